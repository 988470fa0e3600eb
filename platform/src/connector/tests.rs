//! The SSRF guard as a whole: a name that a test resolves, and an upstream that must not be reached.

use std::net::IpAddr;
use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;

fn settings() -> Settings {
    let settings = serde_json::json!({
        "timeout": "2s", "attempt_timeout": "200ms", "attempts": 1, "backoff": "0s", "max_backoff": "0s", "jitter": true,
        "retry_percent": 20, "retry_reserve": 10, "concurrency": 10, "response_limit": "1MiB",
        "breaker": {"window": "10s", "min_calls": 20, "failure_percent": 50, "open_for": "5s"},
        "forward": {"idle_timeout": "60s", "max_headers": 1000, "keep_host": false},
    });
    serde_json::from_value(settings).unwrap()
}

/// A resolver that gives these answers one after the other.
fn answers(addresses: &[&str]) -> public_addresses::Lookup {
    let addresses: Vec<IpAddr> = addresses.iter().rev().map(|address| address.parse().unwrap()).collect();
    let addresses = Mutex::new(addresses);
    Arc::new(move |_| {
        let next = addresses.lock().unwrap().pop();
        Box::pin(async move { Ok(next.into_iter().collect()) })
    })
}

#[tokio::test]
async fn a_name_of_a_private_address_is_not_connected_to_also_when_it_is_rebound() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("http://rebound.example:{port}/");
    let tls = lazy::Tls::new(tls);
    let public = |addresses: &[&str]| {
        let client = Arc::new(client("test", Some(answers(addresses)), &tls));
        Connector::new(PUBLIC, None, None, settings(), (client, forwarder::forwarder(&settings(), &tls)))
    };
    for private in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "64:ff9b::7f00:1"]
    {
        let error = public(&[private]).get(&url).send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::NotPublic, "{private}: {error}");
    }
    // Rebound: a check of its own before the call would see the first address, and the call connect to the second. Here
    // nothing is looked up but by the connection, so the first call goes to the first one, and the next is refused.
    let rebound = public(&["203.1.113.1", "127.0.0.1"]);
    let first = rebound.get(&url).send().await.unwrap_err();
    assert!(matches!(first.cause(), Cause::Refused | Cause::TimedOut { .. }), "{first}");
    assert_eq!(rebound.get(&url).send().await.unwrap_err().cause(), Cause::NotPublic);
    // The control: without the guard the same name leads here.
    let lookup: public_addresses::Lookup = answers(&["127.0.0.1"]);
    let found = lookup("rebound.example".to_owned()).await.unwrap();
    assert!(tokio::net::TcpStream::connect((found[0], port)).await.is_ok());
    listener.accept().await.unwrap();
    // A name without addresses is not public either.
    assert_eq!(public(&[]).get(&url).send().await.unwrap_err().cause(), Cause::NotPublic);
    // Nobody has connected.
    let none = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
    assert!(none.is_err());
}
