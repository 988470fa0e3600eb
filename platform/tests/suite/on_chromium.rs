//! Forms in a real browser: a page's own form gets in, one of another site does not, over HTTP and HTTPS.
//!
//! `app.test` and `evil.test` are the same server: to a browser, two sites.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::response::{Html, IntoResponse as _, Response};
use platform::http::{Path, Route, Routes};
use platform::services::Services;
use platform::testing::{PATIENCE, TestApp, TestPair};
use tempfile::TempDir;

/// A page whose script sends its form. Its address has the name of the site to which it goes.
async fn page(Path((policy, target)): Path<(String, String)>) -> Response {
    let form = format!(
        "<form method=post action=//{target}/change enctype=text/plain><input name=a value=b></form><script src=/send.js></script>"
    );
    // With the headers of the server where the page has none of its own.
    match policy.as_str() {
        "default" => Html(form).into_response(),
        policy => {
            let own = [("content-security-policy", "default-src 'self'"), ("referrer-policy", policy)];
            (own, Html(form)).into_response()
        }
    }
}

fn routes() -> Routes<Services> {
    let script = async || ([("content-type", "text/javascript")], "document.forms[0].submit()");
    Routes::new()
        .route(Route::at("/page/{policy}/{target}").get(page))
        .route(Route::at("/send.js").get(script).unlogged())
        .route(Route::at("/change").post(async || "changed"))
}

/// A browser with a profile of its own, at one page.
struct Browser(Child, #[expect(dead_code, reason = "deleted with it")] TempDir);

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let browser = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
            .args(["--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1"])
            .args(["--disable-features=HttpsUpgrades", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is missing (Debian: chromium)");
        Self(browser, profile)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of what the form of a page at this site is answered with.
async fn sent(app: &TestApp, scheme: &str, address: SocketAddr, site: &str, policy: &str) -> u16 {
    let (port, before) = (address.port(), app.log().len());
    let browser = Browser::open(&format!("{scheme}://{site}:{port}/page/{policy}/app.test:{port}"));
    let line = || app.log()[before..].iter().find(|line| line.contains("method=POST route=/change")).cloned();
    // A browser takes its time to start, on a machine that does other things too.
    let start = Instant::now();
    while line().is_none() {
        assert!(start.elapsed() < PATIENCE * 2, "{:#?}", &app.log()[before..]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(browser);
    let line = line().unwrap();
    line.split(" status=").nth(1).unwrap()[..3].parse().unwrap()
}

async fn own_and_foreign_forms(app: &TestApp, scheme: &str, address: SocketAddr) {
    for policy in ["default", "no-referrer-when-downgrade"] {
        assert_eq!(sent(app, scheme, address, "app.test", policy).await, 200, "{scheme} {policy}");
    }
    for policy in ["no-referrer", "unsafe-url"] {
        assert_eq!(sent(app, scheme, address, "evil.test", policy).await, 403, "{scheme} {policy}");
    }
}

#[tokio::test]
#[ignore = "needs Chromium: make test-all"]
async fn over_http_a_page_can_send_its_own_form_and_another_site_cannot() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let address = app.listen().await.0;
    own_and_foreign_forms(&app, "http", address).await;
    // The control: with this policy, which is helmet's, the browser takes the page's own form for one of nowhere.
    assert_eq!(sent(&app, "http", address, "app.test", "no-referrer").await, 403);
}

#[tokio::test]
#[ignore = "needs Chromium: make test-all"]
async fn over_https_a_page_can_send_its_own_form_and_another_site_cannot() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    let path = |name: &str| folder.path().join("keys").join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("public-key.pem"), path("private-key.pem"));
    let settings = [("SERVER__SERVER__TLS__CERTIFICATE", &*certificate), ("SERVER__SERVER__TLS__KEY", &*key)];
    let app = TestApp::with_routes(routes(), &settings).await;
    let address = app.listen_secure().await.0;
    own_and_foreign_forms(&app, "https", address).await;
}
