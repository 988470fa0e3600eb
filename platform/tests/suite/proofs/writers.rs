//! Eight clients that write to `examples/ledger.rs` over HTTP, and tell the oracle all they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use platform::testing::{PATIENCE, TestServer, until};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::oracle::{Answer, Found, Oracle, Sent};

const WRITERS: u32 = 8;
/// The entry that all of them change.
const SHARED: &str = "shared";
/// Longer than a page of SQLite and a block of a file system, so that a half of it could be stored.
const LONG_TEXT: usize = 12_000;

/// The writers of one server.
pub struct Writers {
    oracle: Arc<Oracle>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Writers {
    /// Starts them. Each ends when it is told to, or when the server does not respond any more.
    pub fn start(server: &TestServer, oracle: &Arc<Oracle>, round: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..WRITERS {
            let client = client();
            let (oracle, stop) = (Arc::clone(oracle), Arc::clone(&stop));
            let mut writer =
                Writer { client, url: server.url(""), oracle, name: format!("{round}-{number}"), turn: 0 };
            running
                .spawn(async move { while !stop.load(Ordering::Relaxed) && writer.step().await.is_ok() {} });
        }
        Self { oracle: Arc::clone(oracle), stop, running }
    }

    /// Waits until so many more writes were acknowledged.
    pub async fn acknowledged(&self, more: u64) {
        let before = self.oracle.counts().0;
        until(|| self.oracle.counts().0 >= before + more).await;
    }

    /// Waits until an entry to which the server gives its id was acknowledged.
    pub async fn inserted(&self) {
        until(|| self.oracle.has_acknowledged("new-")).await;
    }

    /// Waits until so many more requests were refused with 503 or 507.
    pub async fn unavailable(&self, more: u64) {
        let before = self.oracle.counts().1;
        until(|| self.oracle.counts().1 >= before + more).await;
    }

    /// Waits until all have ended by themselves.
    pub async fn end(self) {
        self.running.join_all().await;
    }

    /// Tells them to stop, and waits until they have.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join_all().await;
    }
}

/// The server does not respond any more.
struct Gone;

struct Writer {
    client: Client,
    url: String,
    oracle: Arc<Oracle>,
    name: String,
    turn: u32,
}

impl Writer {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn step(&mut self) -> Result<(), Gone> {
        self.turn += 1;
        match fastrand::u8(0..10) {
            0..4 => self.life().await,
            4..6 => self.shared().await,
            6..8 => self.group().await,
            _ => self.inserted().await,
        }
    }

    /// A text that no other write has.
    fn text(&self, turn: u32) -> String {
        let length =
            if fastrand::u8(0..10) == 0 { fastrand::usize(0..LONG_TEXT) } else { fastrand::usize(0..99) };
        let letter = fastrand::lowercase();
        format!("{} {} {turn} {}", self.name, self.turn, String::from(letter).repeat(length))
    }

    /// An entry with an id of the client's: created, replaced with `If-Match`, sometimes deleted.
    async fn life(&self) -> Result<(), Gone> {
        let token = format!("own-{}-{}", self.name, self.turn);
        let path = format!("/entries/{token}");
        for version in 1..=fastrand::u64(1..4) {
            let Some(stored) = self.version(&path).await? else { return Ok(()) };
            let text = self.text(u32::try_from(version).unwrap());
            let sent = self.oracle.send(&token, version, Some(&text));
            let request = self.request(Method::PUT, &path);
            let request = match version {
                1 => request.header("if-none-match", "*"),
                _ => request.header("if-match", format!("\"{stored}\"")),
            };
            let request = request.body(entry(&token, &text).to_string());
            // Its version is not known any more.
            if self.send(request, &[sent], Some(&token)).await? != Answer::Acknowledged {
                return Ok(());
            }
            if version == 3 && fastrand::bool() {
                let Some(stored) = self.version(&path).await? else { return Ok(()) };
                let sent = self.oracle.send(&token, version + 1, None);
                let request = self.request(Method::DELETE, &path).header("if-match", format!("\"{stored}\""));
                self.send(request, &[sent], None).await?;
            }
        }
        Ok(())
    }

    /// An entry to which the server gives an id.
    async fn inserted(&self) -> Result<(), Gone> {
        let token = format!("new-{}-{}", self.name, self.turn);
        let text = self.text(1);
        let sent = self.oracle.send(&token, 1, Some(&text));
        let request = self.request(Method::POST, "/entries").body(entry(&token, &text).to_string());
        self.send(request, &[sent], None).await.map(drop)
    }

    /// Several entries of one insert.
    async fn group(&self) -> Result<(), Gone> {
        let tokens: Vec<String> =
            (0..5).map(|member| format!("group-{}-{}-{member}", self.name, self.turn)).collect();
        let texts: Vec<String> = (0..5).map(|member| self.text(member)).collect();
        let sent: Vec<Sent> =
            tokens.iter().zip(&texts).map(|(token, text)| self.oracle.send(token, 1, Some(text))).collect();
        let body: Vec<Value> = tokens.iter().zip(&texts).map(|(token, text)| entry(token, text)).collect();
        self.oracle.together(tokens);
        let request = self.request(Method::POST, "/groups").body(Value::from(body).to_string());
        self.send(request, &sent, None).await.map(drop)
    }

    /// The entry that all change: the first one creates it, each replaces the version that it has read.
    async fn shared(&self) -> Result<(), Gone> {
        let path = format!("/entries/{SHARED}");
        let Some(version) = self.version(&path).await? else { return Ok(()) };
        let text = self.text(1);
        let sent = self.oracle.send(SHARED, version + 1, Some(&text));
        let request = self.request(Method::PUT, &path);
        let request = match version {
            0 => request.header("if-none-match", "*"),
            _ => request.header("if-match", format!("\"{version}\"")),
        };
        self.send(request.body(entry(SHARED, &text).to_string()), &[sent], None).await.map(drop)
    }

    /// The version of what is stored, 0 where there is nothing; `None` when the server cannot tell.
    async fn version(&self, path: &str) -> Result<Option<u64>, Gone> {
        let Ok(read) = self.request(Method::GET, path).send().await else { return Err(Gone) };
        match read.status() {
            StatusCode::OK => {
                Ok(read.headers()["etag"].to_str().unwrap().trim_matches('"').parse().map(Some).unwrap())
            }
            StatusCode::NOT_FOUND => Ok(Some(0)),
            status => {
                self.not_available(&format!("GET {path}"), status);
                Ok(None)
            }
        }
    }

    /// Sends a request, and tells the oracle the answer to its writes.
    async fn send(&self, request: RequestBuilder, sent: &[Sent], id: Option<&str>) -> Result<Answer, Gone> {
        let Ok(response) = request.send().await else { return Err(Gone) };
        let location = response.headers().get("location").map(|location| location.to_str().unwrap());
        let given = location.and_then(|location| location.strip_prefix("/entries/")).or(id);
        let answer = match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Answer::Acknowledged,
            StatusCode::PRECONDITION_FAILED => Answer::Refused,
            status => {
                self.not_available("a write", status);
                Answer::Unknown
            }
        };
        for sent in sent {
            self.oracle.answered(sent, answer, given.filter(|_| answer == Answer::Acknowledged));
        }
        Ok(answer)
    }

    fn not_available(&self, what: &str, status: StatusCode) {
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            self.oracle.unavailable();
        } else {
            self.oracle.wrong(format!("{what} was answered with {status}"));
        }
    }
}

/// A client that asks for no compression: a compressed response has a weak `ETag`, and the writers read the version in it.
fn client() -> Client {
    let plain = Client::builder().no_gzip().no_brotli().no_zstd().no_deflate();
    plain.timeout(PATIENCE).build().unwrap()
}

fn entry(token: &str, text: &str) -> Value {
    json!({"token": token, "text": text})
}

/// All entries of a server, or how it refused to give them.
pub async fn entries(server: &TestServer) -> Result<Vec<Found>, Vec<String>> {
    let client = client();
    let response = client.get(server.url("/entries")).send().await.unwrap();
    let (status, body) = (response.status(), response.bytes().await.unwrap());
    if status == StatusCode::OK {
        Ok(serde_json::from_slice(&body).unwrap())
    } else {
        Err(vec![format!("{status}: {}", String::from_utf8_lossy(&body))])
    }
}

/// Waits until the server can read again: a store with a server of its own may recover meanwhile.
pub async fn wait_until_ready(server: &TestServer) {
    let client = client();
    let start = Instant::now();
    while client.get(server.url("/entries/none")).send().await.unwrap().status() != StatusCode::NOT_FOUND {
        assert!(start.elapsed() < PATIENCE, "the store does not respond");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
