//! The cache on a real Redis server (`make test-all`), and what an outage of it costs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use platform::cache::{self, Cache};
use platform::testing::{PATIENCE, TestPair, until};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::tcp_proxy::TcpProxy;

const MINUTE: Duration = Duration::from_mins(1);

/// `HOST:PORT` of the server.
fn server() -> String {
    let url = std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL names a Redis server: make test-all");
    url.trim_start_matches("redis://").split('/').next().unwrap().to_owned()
}

/// A cache with keys of its own.
fn open(server: &str, prefix: &str) -> Cache {
    open_with(server, prefix, "100ms")
}

fn open_with(server: &str, prefix: &str, timeout: &str) -> Cache {
    let settings = json!({
        "url": format!("redis://{server}/0"), "timeout": timeout, "redis": {"prefix": prefix, "ca": ""},
        "memory": {"max_entries": 1, "max_bytes": "64KiB"},
    });
    cache::open(&serde_json::from_value(settings).unwrap(), "test").unwrap()
}

/// A server with this certificate, which says PONG to everything.
async fn with_tls(pair: &TestPair) -> u16 {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![pair.der()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let Ok(mut stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                let commands = bytes[..length].split(|byte| *byte == b'*').count() - 1;
                stream.write_all("+PONG\r\n".repeat(commands).as_bytes()).await.unwrap();
            }
        }
    });
    port
}

#[tokio::test]
async fn over_tls_the_authority_of_the_settings_is_trusted_and_a_fragment_is_refused() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), TestPair::for_this_machine());
    pair.write(folder.path());
    let port = with_tls(&pair).await;
    let open = |url: &str, ca: &str| {
        let settings = json!({
            "url": url, "timeout": "10s", "memory": {"max_entries": 1, "max_bytes": "64KiB"},
            "redis": {"prefix": "", "ca": folder.path().join(ca)},
        });
        cache::open(&serde_json::from_value(settings).unwrap(), "test")
    };
    let url = format!("rediss://localhost:{port}");
    open(&url, "keys/public-key.pem").unwrap().ping().await.unwrap();
    // The controls.
    let system = json!({
        "url": url, "timeout": "10s", "memory": {"max_entries": 1, "max_bytes": "64KiB"},
        "redis": {"prefix": "", "ca": ""},
    });
    let system = cache::open(&serde_json::from_value(system).unwrap(), "test").unwrap();
    assert!(system.ping().await.is_err());
    for (url, ca, why) in [
        (url.as_str(), "keys/private-key.pem", "cache.redis.ca"),
        (&url, "no.pem", "cache.redis.ca"),
        (&format!("{url}/#insecure"), "keys/public-key.pem", "certificates are always checked"),
    ] {
        let error = open(url, ca).err().unwrap();
        assert!(error.to_string().contains(why) && error.exit_code == 2, "{error}");
    }
}

/// Its environment names the authority of a server, and the port of that.
#[tokio::test]
#[ignore = "another test starts it"]
async fn one_process_that_trusts_the_operating_system() {
    let Ok(port) = std::env::var("TEST_REDISS_PORT") else { return };
    let settings = json!({
        "url": format!("rediss://localhost:{port}"), "timeout": "10s",
        "memory": {"max_entries": 1, "max_bytes": "64KiB"}, "redis": {"prefix": "", "ca": ""},
    });
    cache::open(&serde_json::from_value(settings).unwrap(), "test").unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn over_tls_the_authorities_of_the_operating_system_are_trusted() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), TestPair::for_this_machine());
    pair.write(folder.path());
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "on_redis::one_process_that_trusts_the_operating_system"]);
    child.env("SSL_CERT_FILE", folder.path().join("keys/public-key.pem"));
    child.env("TEST_REDISS_PORT", with_tls(&pair).await.to_string());
    let output = child.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn prefix() -> String {
    format!("test-{}:", platform::store::dao::new_id())
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn what_one_process_keeps_another_one_finds_until_it_ends() {
    let prefix = prefix();
    let (one, other) = (open(&server(), &prefix), open(&server(), &prefix));
    one.set("a", &json!({"n": 1}), MINUTE).await.unwrap();
    assert_eq!(other.get("a").await, Some(json!({"n": 1})));
    // The control: another prefix is another cache.
    assert_eq!(open(&server(), "another:").get::<serde_json::Value>("a").await, None);
    one.set_bytes("b", vec![0, 255].into(), Duration::from_millis(50)).await.unwrap();
    assert_eq!(other.get_bytes("b").await.unwrap(), vec![0, 255]);
    let start = Instant::now();
    while other.get_bytes("b").await.is_some() {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.delete("a").await.unwrap();
    assert_eq!(one.get::<serde_json::Value>("a").await, None);
    one.ping().await.unwrap();
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn a_value_that_is_to_be_kept_for_ever_is_kept() {
    let cache = open(&server(), &prefix());
    cache.set("a", &1, Duration::MAX).await.unwrap();
    assert_eq!(cache.get("a").await, Some(1));
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn an_outage_costs_a_request_100_ms_at_most_and_ends_with_the_server_s_return() {
    for freezes in [false, true] {
        let mut proxy = TcpProxy::started(&server()).await;
        let cache = open(&proxy.address.to_string(), &prefix());
        cache.set("a", &1, MINUTE).await.unwrap();
        assert_eq!(cache.get("a").await, Some(1), "{freezes}");
        if freezes {
            proxy.freeze(true);
        } else {
            proxy.stop().await;
        }
        let start = Instant::now();
        for number in 2..100 {
            assert_eq!(
                cache.get_or_compute(&number.to_string(), MINUTE, async || Ok(number)).await.unwrap(),
                number
            );
        }
        // One look that fails; the rest goes on without the cache. Each for itself they take ten seconds.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        if freezes {
            proxy.freeze(false);
        } else {
            proxy.start().await;
        }
        let start = Instant::now();
        while cache.get::<i32>("a").await.is_none() {
            assert!(start.elapsed() < Duration::from_secs(5), "{freezes}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn a_server_that_is_down_at_the_start_is_used_when_it_comes() {
    let mut proxy = TcpProxy::stopped(&server()).await;
    let (cache, computed) = (open(&proxy.address.to_string(), &prefix()), AtomicUsize::new(0));
    let ask = || cache.get_or_compute("a", MINUTE, async || Ok(computed.fetch_add(1, Ordering::SeqCst)));
    assert_eq!((ask().await.unwrap(), ask().await.unwrap()), (0, 1));
    proxy.start().await;
    let start = Instant::now();
    while cache.get::<usize>("a").await.is_none() {
        assert!(start.elapsed() < Duration::from_secs(5));
        ask().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A Redis of a test's own.
struct Redis {
    process: Child,
    address: String,
}

impl Redis {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let redis = Self { process: command.spawn().unwrap(), address: address.to_string() };
        until(|| TcpStream::connect(address).is_ok()).await;
        redis
    }

    /// The first line of what the server says to a command.
    fn tell(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn a_connection_that_was_closed_while_it_was_idle_is_replaced_and_costs_nothing() {
    let redis = Redis::start().await;
    let cache = open_with(&redis.address, &prefix(), "10s");
    cache.set("a", &1, MINUTE).await.unwrap();
    // The control: it closes the one connection that there is.
    let close = || assert_eq!(redis.tell("CLIENT KILL TYPE normal"), ":1");
    close();
    assert_eq!(cache.get("a").await, Some(1));
    close();
    cache.set("b", &2, MINUTE).await.unwrap();
    close();
    cache.delete("a").await.unwrap();
    close();
    cache.ping().await.unwrap();
    assert_eq!((cache.get::<i32>("a").await, cache.get("b").await), (None, Some(2)));
}

#[tokio::test]
#[ignore = "needs Redis: make test-all"]
async fn a_server_that_is_full_costs_no_request_its_response_and_is_used_again_when_it_has_room() {
    let redis = Redis::start().await;
    let cache = open(&redis.address, &prefix());
    cache.set("before", &0, MINUTE).await.unwrap();
    assert_eq!(cache.get("before").await, Some(0));
    // A text of 2 MB. It is not dropped to make room.
    assert_eq!(redis.tell("SETRANGE ballast 2000000 x"), ":2000001");
    assert_eq!(redis.tell("CONFIG SET maxmemory-policy noeviction"), "+OK");
    assert_eq!(redis.tell("CONFIG SET maxmemory 1mb"), "+OK");
    // The control: it refuses to keep what it is given.
    let said = redis.tell("SET more 1");
    assert!(said.starts_with("-OOM"), "{said}");
    let computed = AtomicUsize::new(0);
    let start = Instant::now();
    for number in 0..100 {
        let compute = async || {
            computed.fetch_add(1, Ordering::SeqCst);
            Ok(number)
        };
        assert_eq!(cache.get_or_compute("new", MINUTE, compute).await.unwrap(), number);
    }
    assert_eq!(computed.load(Ordering::SeqCst), 100);
    // It says so at once, and is then left alone. To wait for it takes ten seconds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(redis.tell("CONFIG SET maxmemory 0"), "+OK");
    let start = Instant::now();
    while cache.get::<i32>("new").await.is_none() {
        assert!(start.elapsed() < Duration::from_secs(5));
        cache.get_or_compute("new", MINUTE, async || Ok(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cache.get("before").await, Some(0));
}
