//! HTTPS with several processes: replaced files, reload, and the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use platform::testing::{Connection, TestPair, TestServer};

use super::GET;
use crate::processes::{signal, until, workers};
use crate::support::PROGRAM;

fn start(folder: &Path, more: &[&str]) -> TestServer {
    let server = PROGRAM.start_in(folder, &[&["--ssl", "--proc", "2"], more].concat());
    until(|| workers(&server).len() == 2);
    server
}

/// The workers whose log has such a line.
fn told_by(server: &TestServer, what: &str) -> BTreeSet<String> {
    let log = server.log_file();
    let lines = log.lines().filter(|line| line.contains(what));
    lines.filter_map(|line| line.split(" worker=").nth(1)?.split(' ').next().map(str::to_owned)).collect()
}

#[test]
fn every_worker_serves_a_replaced_pair_and_keeps_its_own_when_that_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = std::array::from_fn(|_| TestPair::for_this_machine());
    first.write(folder.path());
    let server = start(folder.path(), &[]);
    second.write(folder.path());
    until(|| told_by(&server, "certificate replaced").len() == 2);
    std::fs::write(folder.path().join("keys/private-key.pem"), &third.key).unwrap();
    until(|| told_by(&server, "the one from before is served").len() == 2);
    // Enough connections to come to both.
    assert!((0..20).all(|_| super::serves(&server, &second)));
    assert!((0..20).all(|_| !super::serves(&server, &first)));
}

#[test]
fn workers_that_start_while_the_files_are_broken_serve_the_last_good_pair() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = std::array::from_fn(|_| TestPair::for_this_machine());
    first.write(folder.path());
    let server = start(folder.path(), &[]);
    // By both workers, and by their supervisor.
    second.write(folder.path());
    until(|| server.log_file().matches("certificate replaced").count() == 3);
    let key = folder.path().join("keys/private-key.pem");
    std::fs::write(&key, "").unwrap();
    // The control: with these files, no server starts.
    let refused = PROGRAM.run(folder.path(), &["--ssl", "--proc", "2", "--port", "0"], &[]);
    assert_eq!(refused.status.code(), Some(2));

    let all_serve = |pair: &TestPair| (0..20).all(|_| super::serves(&server, pair));
    let are_new = |before: &std::collections::BTreeMap<u32, u32>| {
        let now = workers(&server);
        before.iter().all(|(number, pid)| now[number] != *pid)
    };
    let old = workers(&server);
    for pid in old.values() {
        signal("KILL", i64::from(*pid));
    }
    until(|| are_new(&old));
    assert!(all_serve(&second));
    for pid in workers(&server).values() {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("PRIVATE KEY"), "{file}");
        }
    }
    let replaced = workers(&server);
    signal("HUP", i64::from(server.process_id()));
    until(|| server.log_file().contains("msg=reloaded"));
    assert!(are_new(&replaced) && all_serve(&second));
    third.write(folder.path());
    until(|| all_serve(&third));
}

#[test]
fn a_reload_over_tls_loses_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    std::fs::write(folder.path().join("a.yaml"), "").unwrap();
    let mut server = start(folder.path(), &["--config", "a.yaml"]);
    let before = workers(&server);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (address, client, done) = (server.address, pair.client(), &done);
        let asking = scope.spawn(move || {
            let (mut responses, mut connections) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let mut connection = Connection::secure(address, &client);
                connections += 1;
                loop {
                    let response = connection.send(GET).read_response();
                    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
                    responses += 1;
                    if response.contains("\r\nconnection: close\r\n") || done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            (responses, connections)
        });
        signal("HUP", i64::from(server.process_id()));
        until(|| server.log_file().contains("msg=reloaded"));
        done.store(true, Ordering::Relaxed);
        let (responses, connections) = asking.join().unwrap();
        assert!(responses > 0 && connections > 0);
    });
    // Each worker writes its own line, which may come after that of the supervisor.
    until(|| workers(&server).iter().all(|(number, pid)| before[number] != *pid));
    let after = workers(&server);
    // Another pair in the configuration, which is none, stops the reload, and the workers go on.
    let other = "server: {tls: {certificate: keys/other.pem}}\n";
    std::fs::write(folder.path().join("a.yaml"), other).unwrap();
    signal("HUP", i64::from(server.process_id()));
    until(|| server.log_file().contains("no reload"));
    assert!(super::serves(&server, &pair));
    assert_eq!(workers(&server), after);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    let mut server = start(folder.path(), &[]);
    let mut connection = server.connect_secure(&pair.client());
    connection.send("GET /nowhere HTTP/1.1\r\nHost: a\r\n");
    assert!(connection.is_quiet_for(std::time::Duration::from_millis(100)));
    server.signal("TERM");
    until(|| server.log_file().matches("msg=draining").count() == 2);
    let response = connection.send("\r\n").read_response();
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert_eq!(server.wait(), Some(0));
}

/// Two workers, and the address of HTTP that they redirect.
fn start_redirecting(folder: &Path) -> (TestServer, SocketAddr) {
    // Free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = format!("server: {{tls: {{redirect: {{enabled: true, port: {port}, to_port: 443}}}}}}\n");
    std::fs::write(folder.join("a.yaml"), yaml).unwrap();
    let server = start(folder, &["--config", "a.yaml"]);
    let mut address = server.address;
    address.set_port(port);
    (server, address)
}

#[test]
fn every_worker_redirects_on_one_port() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    let (server, address) = start_redirecting(folder.path());
    until(|| {
        let response = Connection::open(address).send(GET).read_response();
        assert!(response.contains("\r\nlocation: https://localhost/nowhere\r\n"), "{response}");
        told_by(&server, "status=308").len() == 2
    });
}

#[test]
fn a_reload_loses_no_connection_to_the_port_that_is_redirected() {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    let (server, address) = start_redirecting(folder.path());
    // An old worker waits for these for some seconds.
    let _idle: Vec<_> = (0..20).map(|_| server.connect_secure(&pair.client())).collect();
    let old = workers(&server);
    let to_old = |name: &str| old.values().for_each(|pid| signal(name, i64::from(*pid)));
    // While nobody accepts them they wait, also in the sockets of the workers that are about to be replaced.
    to_old("STOP");
    let ask = || {
        let mut connection = Connection::open(address);
        connection.send(GET);
        connection
    };
    let waiting: Vec<_> = (0..20).map(|_| ask()).collect();
    signal("HUP", i64::from(server.process_id()));
    until(|| server.log_file().contains("msg=reloaded"));
    to_old("CONT");
    for mut connection in waiting {
        let response = connection.read_response();
        assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
    }
    until(|| server.log_file().matches("msg=draining").count() == 2);
    // A moment for the close itself.
    std::thread::sleep(std::time::Duration::from_millis(100));
    for _ in 0..40 {
        let response = ask().read_response();
        assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
    }
    let log = server.log_file();
    assert!(!log.contains("msg=stopped"), "no old worker has waited: {log}");
}
