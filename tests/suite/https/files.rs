//! The pair: what is refused at the start, what is warned of, and files that are replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use platform::testing::{TestAuthority, TestPair, until};

use super::{serves, start};
use crate::support::PROGRAM;

const DAY: Duration = Duration::from_hours(24);

/// docs/HTTPS.md promises it for files that were replaced.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

fn pair_until(end: SystemTime) -> TestPair {
    TestPair::new(&["localhost", "127.0.0.1"], |params| params.not_after = end.into())
}

#[test]
fn what_cannot_be_served_with_is_one_line_that_names_the_file() {
    let good = TestPair::for_this_machine();
    let expired = pair_until(SystemTime::now() - DAY);
    let future = TestPair::new(&["localhost"], |params| params.not_before = (SystemTime::now() + DAY).into());
    let other = TestPair::for_this_machine();
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    let (certificate, key) = ("keys/public-key.pem", "keys/private-key.pem");
    for (public, private, file, reason) in [
        (None, Some(good.key.as_str()), certificate, "No such file"),
        (Some(good.certificate.as_str()), None, key, "No such file"),
        (Some(""), Some(&good.key), certificate, "empty"),
        (Some(&good.certificate), Some("\n"), key, "empty"),
        (Some("text"), Some(&good.key), certificate, "no BEGIN CERTIFICATE"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Some(&good.key),
            certificate,
            "",
        ),
        (Some(&good.key), Some(&good.key), certificate, "no BEGIN CERTIFICATE"),
        (Some(&good.certificate), Some(&good.certificate), key, "no private key"),
        (Some(&good.certificate), Some(&other.key), key, "does not belong to the certificate"),
        (Some(&expired.certificate), Some(&expired.key), certificate, "has expired"),
        (Some(&future.certificate), Some(&future.key), certificate, "not valid before"),
        (Some(&good.certificate), Some(&encrypted), key, "encrypted"),
        (Some(&good.certificate), Some(old_encrypted), key, "encrypted"),
    ] {
        for processes in ["1", "2"] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("keys")).unwrap();
            for (file, text) in [(certificate, public), (key, private)] {
                if let Some(text) = text {
                    fs::write(folder.path().join(file), text).unwrap();
                }
            }
            let output = PROGRAM.run(folder.path(), &["--ssl", "--proc", processes, "--port", "0"], &[]);
            let text = String::from_utf8(output.stderr).unwrap();
            // By the next start it may be valid: a service manager tries again.
            let code = if reason == "not valid before" { 1 } else { 2 };
            assert_eq!(output.status.code(), Some(code), "{file} {reason}: {text}");
            assert_eq!(text.lines().count(), 1, "{file} {reason}: {text}");
            assert!(
                text.contains(file) && text.contains(reason) && text.contains("`make keys`"),
                "{reason}: {text}"
            );
            assert!(!text.contains("PRIVATE KEY-"), "{text}");
        }
    }
    // The control: the good one.
    let folder = tempfile::tempdir().unwrap();
    good.write(folder.path());
    assert!(serves(&start(folder.path(), &[]), &good));
}

#[test]
fn the_authorities_of_clients_are_checked_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    fs::write(folder.path().join("empty.pem"), "text").unwrap();
    for (ca, reason) in
        [("", "expected the path"), ("no.pem", "No such file"), ("empty.pem", "no BEGIN CERTIFICATE")]
    {
        let environment = [
            ("SERVER__SERVER__TLS__CLIENTS__CERTIFICATES", "required"),
            ("SERVER__SERVER__TLS__CLIENTS__CA", ca),
        ];
        let output = PROGRAM.run(folder.path(), &["--ssl", "--port", "0"], &environment);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{ca}: {text}");
        assert!(text.contains("server.tls.clients.ca") && text.contains(reason), "{ca}: {text}");
    }
}

#[test]
fn the_log_says_how_long_the_certificate_is_valid_and_warns_of_an_open_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("keys/private-key.pem");
    let lines = |days: u32, mode: u32| {
        pair_until(SystemTime::now() + DAY * days + DAY / 2).write(folder.path());
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let mut server = start(folder.path(), &[]);
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        server.remaining_lines().join("\n")
    };
    let log = lines(13, 0o644);
    assert!(log.contains(" days_left=13"), "{log}");
    assert!(log.contains("expires soon") && log.contains("may read the private key"), "{log}");
    // The control.
    let log = lines(14, 0o640);
    assert!(log.contains(" days_left=14"), "{log}");
    assert!(!log.contains("expires soon") && !log.contains("may read the private key"), "{log}");
}

#[test]
fn keys_writes_a_pair_and_replaces_none_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let read =
        || ["public", "private"].map(|name| fs::read(folder.path().join(format!("keys/{name}-key.pem"))));
    let output = PROGRAM.run(folder.path(), &["keys"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = fs::metadata(folder.path().join("keys/private-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = read().map(Result::unwrap);

    let output = PROGRAM.run(folder.path(), &["keys"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--overwrite"));
    assert_eq!(read().map(Result::unwrap), first);

    let output = PROGRAM.run(folder.path(), &["keys", "--overwrite"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let [public, private] = read().map(Result::unwrap);
    assert!(public != first[0] && private != first[1]);
    assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 2);

    // A client that checks it accepts it.
    let mut server = start(folder.path(), &[]);
    let pair = TestPair { certificate: String::from_utf8(public).unwrap(), key: String::new() };
    assert!(serves(&server, &pair));
    let line = server.wait_for_line("days_left=");
    assert!(line.contains("days_left=395") || line.contains("days_left=396"), "{line}");
}

#[tokio::test]
async fn a_replaced_pair_serves_new_connections_and_a_broken_one_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = std::array::from_fn(|_| TestPair::for_this_machine());
    first.write(folder.path());
    let server = start(folder.path(), &[]);
    assert!(serves(&server, &first) && !serves(&server, &second));
    let mut kept = server.connect_secure(&first.client());
    kept.send(super::GET).read_response();

    second.write(folder.path());
    let replaced = Instant::now();
    until(|| serves(&server, &second)).await;
    assert!(replaced.elapsed() < TAKEN_WITHIN, "{:?}", replaced.elapsed());
    // An open connection goes on.
    assert!(kept.send(super::GET).read_response().starts_with("HTTP/1.1 404 "));

    // Half of a pair, then nothing, then one that has expired: each is told once.
    let told = |what: &str| server.log_file().lines().filter(|line| line.contains(what)).count();
    fs::write(folder.path().join("keys/public-key.pem"), &third.certificate).unwrap();
    until(|| told("does not belong") == 1).await;
    fs::remove_file(folder.path().join("keys/private-key.pem")).unwrap();
    until(|| told("No such file") == 1).await;
    pair_until(SystemTime::now() - DAY).write(folder.path());
    until(|| told("has expired") == 1).await;
    // Long enough for two more rounds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(told("the one from before is served"), 3, "{}", server.log_file());
    assert!(serves(&server, &second));

    third.write(folder.path());
    until(|| serves(&server, &third)).await;
    until(|| told("certificate replaced") == 2).await;
}

#[test]
fn the_healthcheck_asks_over_tls_and_trusts_the_configured_certificate_only() {
    let folder = tempfile::tempdir().unwrap();
    assert!(PROGRAM.run(folder.path(), &["keys"], &[]).status.success());
    let server = start(folder.path(), &[]);
    let port = server.address.port().to_string();
    let ask = |command: &str| {
        let arguments = [command, "--ssl", "--host", "127.0.0.1", "--port", &port, "--db_url", "memory:"];
        let output = PROGRAM.run(folder.path(), &arguments, &[]);
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = ask("healthcheck");
    assert!(code == Some(0) && text.contains("https://") && text.contains("ready"), "{text}");
    let (_, text) = ask("doctor");
    assert!(text.lines().any(|line| line.starts_with("ok") && line.contains("more days")), "{text}");
    // The control: another program on this port, whose certificate is not that of the configuration. The server takes new
    // files within some seconds; the certificate in the file is asked for at once.
    let other = tempfile::tempdir().unwrap();
    assert!(PROGRAM.run(other.path(), &["keys"], &[]).status.success());
    let other = start(other.path(), &[]);
    let port = other.address.port().to_string();
    let arguments = ["healthcheck", "--ssl", "--host", "127.0.0.1", "--port", &port];
    assert_eq!(PROGRAM.run(folder.path(), &arguments, &[]).status.code(), Some(1));
}

#[test]
fn the_healthcheck_shows_its_certificate_where_one_is_required() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    let authority = TestAuthority::new("The clients");
    let (own, another) =
        (authority.sign("healthcheck", |_| ()), TestAuthority::new("Another").sign("x", |_| ()));
    for (name, text) in [
        ("ca.pem", &authority.certificate),
        ("own.pem", &own.certificate),
        ("own.key", &own.key),
        ("another.pem", &another.certificate),
        ("another.key", &another.key),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let yaml = |shown: &str| {
        format!("server: {{tls: {{clients: {{certificates: required, ca: ca.pem{shown}}}}}}}\n")
    };
    let shown = |name: &str| format!(", healthcheck_certificate: {name}.pem, healthcheck_key: {name}.key");
    fs::write(folder.path().join("a.yaml"), yaml("")).unwrap();
    let server = start(folder.path(), &["--config", "a.yaml"]);
    let port = server.address.port().to_string();
    // The controls: none, one that the authority has not signed, and a key that is not there.
    for (configured, code, said) in [
        (shown("own"), 0, "ready"),
        (String::new(), 1, "server.tls.clients.healthcheck_certificate is empty"),
        (shown("another"), 1, "https://127.0.0.1"),
        (
            ", healthcheck_certificate: own.pem, healthcheck_key: no.key".to_owned(),
            1,
            "healthcheck_key no.key",
        ),
    ] {
        fs::write(folder.path().join("b.yaml"), yaml(&configured)).unwrap();
        let arguments =
            ["healthcheck", "--ssl", "--host", "127.0.0.1", "--port", &port, "--config", "b.yaml"];
        let output = PROGRAM.run(folder.path(), &arguments, &[]);
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{configured}: {text}");
        assert!(text.contains(said) && text.lines().count() == 1, "{configured}: {text}");
    }
}
