//! The cache on a real Redis server (`make test-all`), and what an outage of it costs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use platform::cache::{self, Cache};
use platform::testing::{PATIENCE, until};
use serde_json::json;

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
        "url": format!("redis://{server}/0"), "timeout": timeout, "redis": {"prefix": prefix},
        "memory": {"max_entries": 1, "max_bytes": "64KiB"},
    });
    cache::open(&serde_json::from_value(settings).unwrap(), "test").unwrap()
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
