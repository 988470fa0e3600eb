//! The files of a pair: when a certificate is taken, when it expires soon, and which keys there are.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use platform::testing::{TestPair, until};
use platform::tls::{Settings, Tls};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_hours(1);

/// With the files that `TestPair::write` makes in this folder.
fn settings(folder: &Path) -> Settings {
    let clients = serde_json::json!({
        "certificates": "none", "ca": "", "healthcheck_certificate": "", "healthcheck_key": "",
    });
    let settings = serde_json::json!({
        "certificate": folder.join("keys/public-key.pem"), "key": folder.join("keys/private-key.pem"),
        "handshake_timeout": "10s", "warn_days": 14, "clients": clients,
        "redirect": {"enabled": false, "port": 80, "to_port": 0},
    });
    serde_json::from_value(settings).unwrap()
}

fn from(time: SystemTime) -> TestPair {
    TestPair::new(&["localhost"], |params| params.not_before = time.into())
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_no_error_of_the_configuration() {
    let folder = TempDir::new().unwrap();
    from(SystemTime::now() + HOUR).write(folder.path());
    assert_eq!(Tls::load(&settings(folder.path())).err().unwrap().exit_code, 1);
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_serves_from_its_time_on() {
    let folder = TempDir::new().unwrap();
    let settings = settings(folder.path());
    from(SystemTime::now() - HOUR).write(folder.path());
    let tls = Arc::new(Tls::load(&settings).unwrap());
    let (first, watched) = (tls.hand_over(), Arc::clone(&tls));
    let watching = tokio::spawn(async move { watched.watch().await });
    // More than the two rounds after which a pair is refused.
    from(SystemTime::now() + Duration::from_secs(5)).write(folder.path());
    until(|| tls.hand_over() != first).await;
    watching.abort();
}

#[test]
fn a_certificate_of_a_short_life_expires_soon_in_its_last_third() {
    let folder = TempDir::new().unwrap();
    let expires_soon = |hours_since: u32, hours_left: u32| {
        let now = SystemTime::now();
        let pair = TestPair::new(&["localhost"], |params| {
            params.not_before = (now - HOUR * hours_since).into();
            params.not_after = (now + HOUR * hours_left).into();
        });
        pair.write(folder.path());
        Tls::load(&settings(folder.path())).unwrap().expires_soon()
    };
    assert!(!expires_soon(1, 6 * 24) && !expires_soon(94, 50) && expires_soon(97, 47));
    // The controls: a long life.
    assert!(!expires_soon(300 * 24, 15 * 24) && expires_soon(300 * 24, 13 * 24));
}

#[test]
fn a_key_of_a_kind_that_is_not_served_with_is_named() {
    let folder = TempDir::new().unwrap();
    // openssl ecparam -name secp521r1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt
    let key = "\
-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIAmkb5JYOJFWPrghGg
1F+XveP5CNYtP40brZiz/EHmFbqMT0qHcRT1SXRu8v7iQacrExK1eFev1R/YrfkD
mSK+0A6hgYkDgYYABACaRyNJXm8LjZrg8q+0Cj9MkXAE8t8vpwqWsm1M688bQA7L
nna2dVA/5ONKWiHUdcx8bbfgBhrWx9Vv2r4EXea4XAGVzhYEP6JgbsOxQGdyYrfo
SOyxaT+8eQJIjuqud0V91ezzorhgZWlCX1R187PQyd0J/FARGHyHd0yX5GemFDiK
LQ==
-----END PRIVATE KEY-----
";
    TestPair { key: key.to_owned(), ..TestPair::for_this_machine() }.write(folder.path());
    let error = Tls::load(&settings(folder.path())).err().unwrap().to_string();
    assert!(error.contains("private-key.pem: expected a key of RSA from 2048 bits, ECDSA P-256"), "{error}");
}
