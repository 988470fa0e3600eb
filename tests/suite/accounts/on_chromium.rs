//! The pages in a real browser, over HTTP and HTTPS: it keeps the cookies, it sends the forms, and it says where they come
//! from.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::extract::RawQuery;
use axum::response::{Html, IntoResponse};
use futures_util::{SinkExt as _, StreamExt as _};
use platform::http::{Route, Routes};
use platform::testing::{PATIENCE, TestApp, TestPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{PASSWORD, Site};

/// A browser with a profile of its own, with one page, driven by the DevTools protocol.
pub struct Browser {
    process: Child,
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    session: String,
    calls: u64,
    _profile: TempDir,
}

impl Browser {
    async fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let process = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
            .args(["--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1"])
            .args(["--disable-features=HttpsUpgrades", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is missing (Debian: chromium)");
        let file = profile.path().join("DevToolsActivePort");
        let start = Instant::now();
        let address = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n') {
                break format!("ws://127.0.0.1:{port}{path}");
            }
            assert!(start.elapsed() < PATIENCE * 2, "the browser does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (socket, _) = connect_async(address).await.unwrap();
        let mut browser = Self { process, socket, session: String::new(), calls: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let answer: Value = serde_json::from_str(message.to_text().unwrap()).unwrap_or_default();
            if answer["id"] == json!(self.calls) {
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression; null while the page changes.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    async fn until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(expression).await != json!(true) {
            let page = self.value("location.href + '\\n' + document.body.innerText").await;
            assert!(start.elapsed() < PATIENCE * 2, "{expression} is not true on {page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Goes to a page, or to where that sends the browser.
    pub async fn go(&mut self, url: &str) {
        self.value("window.stays = true").await;
        self.call("Page.navigate", json!({"url": url})).await;
        self.until("!window.stays && document.readyState == 'complete'").await;
    }

    /// Fills the form with this action in, sends it by its button, and waits for the page that comes.
    pub async fn submit(&mut self, action: &str, fields: &[(&str, &str)], comes: &str) {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let fill = format!(
            "(() => {{ const form = document.querySelector(\"form[action='{action}']\"); window.stays = true;
                for (const [name, value] of Object.entries({})) form.elements[name].value = value;
                form.querySelector('button').click(); return true; }})()",
            Value::Object(fields)
        );
        assert_eq!(self.value(&fill).await, json!(true), "no form {action}");
        let came = "!window.stays && document.readyState == 'complete'";
        self.until(&format!("location.pathname == '{comes}' && {came}")).await;
    }

    async fn text(&mut self) -> String {
        self.value("document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A page whose form goes to the URL in its query. Its policy lets it.
async fn foreign(RawQuery(target): RawQuery) -> impl IntoResponse {
    let form = format!("<form method=post action=\"{}\"></form>", target.unwrap_or_default());
    ([("content-security-policy", "default-src 'none'")], Html(form))
}

async fn a_visit(site: &Site, scheme: &str, address: SocketAddr) {
    let home = format!("{scheme}://app.test:{}", address.port());
    let mut browser = Browser::open().await;
    browser.go(&format!("{home}/register")).await;
    browser.submit("/register", &[("email", "ada@shop.example")], "/mail-sent").await;
    let token = site.token().await;
    browser.go(&format!("{home}/confirm?token={token}")).await;
    browser.submit("/confirm", &[("name", "Ada"), ("password", PASSWORD)], "/account").await;
    assert!(browser.text().await.contains("ada@shop.example"));
    // Scripts see none of the cookies.
    assert_eq!(browser.value("document.cookie").await, json!(""));
    crate::examples::blog::publish(&mut browser, &home).await; // example: blog

    // Somebody else, on another device.
    let mut second = Browser::open().await;
    second.go(&format!("{home}/account")).await;
    second.until("location.pathname == '/log-in'").await;
    second.submit("/log-in", &[("email", "ada@shop.example"), ("password", "wrong")], "/log-in").await;
    assert!(second.text().await.contains("do not belong together"));
    second.submit("/log-in", &[("password", PASSWORD)], "/account").await;
    browser.go(&format!("{home}/account")).await;
    browser.submit("/account/sessions/end", &[], "/account").await;
    second.go(&format!("{home}/account")).await;
    second.until("location.pathname == '/log-in'").await;

    second.go(&format!("{home}/forgot")).await;
    second.submit("/forgot", &[("email", "ada@shop.example")], "/mail-sent").await;
    let token = site.token().await;
    second.go(&format!("{home}/reset?token={token}")).await;
    second.submit("/reset", &[("password", "nine badgers on a raft")], "/log-in").await;
    site.mails().await;
    browser.go(&format!("{home}/account")).await;
    browser.until("location.pathname == '/log-in'").await;
    let fields = [("email", "ada@shop.example"), ("password", "nine badgers on a raft")];
    browser.submit("/log-in", &fields, "/account").await;

    // A page of another site: its form does not log anybody out.
    let evil = TestApp::with_routes(Routes::new().route(Route::at("/").get(foreign)), &[]).await;
    let at = format!("http://evil.test:{}/?{home}/log-out", evil.listen().await.0.port());
    browser.go(&at).await;
    assert_eq!(browser.value("document.forms[0].submit(); true").await, json!(true));
    browser.until("location.pathname == '/log-out'").await;
    assert!(browser.text().await.contains("403"), "{}", browser.text().await);
    browser.go(&format!("{home}/account")).await;
    assert!(browser.text().await.contains("ada@shop.example"));
    browser.submit("/log-out", &[], "/log-in").await;
    browser.go(&format!("{home}/account")).await;
    browser.until("location.pathname == '/log-in'").await;
}

#[tokio::test]
#[ignore = "needs Chromium: make test-all"]
async fn a_visit_over_http() {
    let site = Site::of(server::app::app(), &[]).await;
    let address = site.app.listen().await.0;
    a_visit(&site, "http", address).await;
}

#[tokio::test]
#[ignore = "needs Chromium: make test-all"]
async fn a_visit_over_https() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    let path = |name: &str| folder.path().join("keys").join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("public-key.pem"), path("private-key.pem"));
    let settings = [("SERVER__SERVER__TLS__CERTIFICATE", &*certificate), ("SERVER__SERVER__TLS__KEY", &*key)];
    let site = Site::of(server::app::app(), &settings).await;
    let address = site.app.listen_secure().await.0;
    a_visit(&site, "https", address).await;
}
