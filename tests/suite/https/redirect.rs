//! Requests for HTTP are sent to HTTPS.

use std::net::SocketAddr;

use platform::testing::{Connection, TestPair, TestServer};

use super::start;
use crate::support::PROGRAM;

const ENABLED: &str = "server: {tls: {redirect: {enabled: true, port: 0}}}\n";

/// Where it listens for HTTP.
fn redirected(server: &mut TestServer) -> SocketAddr {
    let line = server.log_file().lines().find(|line| line.contains("redirecting")).map(str::to_owned);
    let line = line.unwrap_or_else(|| server.wait_for_line("redirecting"));
    let port = line.split(" port=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    SocketAddr::new(server.address.ip(), port)
}

#[test]
fn http_is_redirected_to_a_host_of_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::new(&["localhost", "127.0.0.1", "*.example.org", "::1"], |_| ());
    pair.write(folder.path());
    std::fs::write(folder.path().join("a.yaml"), ENABLED).unwrap();
    let mut server = start(folder.path(), &["--config", "a.yaml"]);
    let address = redirected(&mut server);
    let https = server.address.port();
    for (request, location) in [
        ("GET /a/b?c=%20d HTTP/1.1\r\nHost: localhost:80\r\n\r\n", Some(("localhost", "/a/b?c=%20d"))),
        ("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nab", Some(("127.0.0.1", "/"))),
        ("GET //evil.org HTTP/1.1\r\nHost: API.example.org\r\n\r\n", Some(("api.example.org", "//evil.org"))),
        ("GET http://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(("localhost", "/x"))),
        ("GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Some(("[::1]", "/x"))),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(("localhost", "/"))),
        ("GET / HTTP/1.1\r\nHost: evil.org\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.b.example.org\r\n\r\n", None),
    ] {
        let mut connection = Connection::open(address);
        let response = connection.send(request).read_response();
        if let Some((host, path)) = location {
            assert!(response.starts_with("HTTP/1.1 308 "), "{request}: {response}");
            let location = format!("\r\nlocation: https://{host}:{https}{path}\r\n");
            assert!(response.contains(&location), "{request}: {response}");
        } else {
            assert!(response.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{request}: {response}");
            assert!(!response.contains("location:"), "{response}");
        }
        assert!(!response.contains("strict-transport-security"), "{response}");
    }
    // Malformed requests, and the control: the port of HTTPS answers itself.
    let refused =
        Connection::open(address).send("GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n").read_response();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(super::serves(&server, &pair));
    // It ends with the server.
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_host_that_is_not_allowed_is_redirected_nowhere() {
    // Both are names of the certificate.
    let pair = TestPair::new(&["localhost", "127.0.0.1", "other.example"], |_| ());
    let yaml = |hosts: &str| format!("{ENABLED}http: {{allowed_hosts: [{hosts}]}}\n");
    for (hosts, status) in [("localhost", "421"), ("", "308")] {
        let folder = tempfile::tempdir().unwrap();
        pair.write(folder.path());
        std::fs::write(folder.path().join("a.yaml"), yaml(hosts)).unwrap();
        let mut server = start(folder.path(), &["--config", "a.yaml"]);
        let address = redirected(&mut server);
        // `/ping` responds to any host, but for this.
        for path in ["/nowhere", "/ping"] {
            let ask = |host: &str| {
                Connection::open(address)
                    .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                    .read_response()
            };
            let response = ask("other.example");
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{hosts} {path}: {response}");
            assert_eq!(response.contains("\r\nlocation: "), status == "308", "{response}");
            assert!(ask("localhost:80").starts_with("HTTP/1.1 308 "), "{hosts} {path}");
        }
    }
}

#[test]
fn several_processes_need_a_port_to_share() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    std::fs::write(folder.path().join("a.yaml"), ENABLED).unwrap();
    let output =
        PROGRAM.run(folder.path(), &["--ssl", "--proc", "2", "--port", "0", "--config", "a.yaml"], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("server.tls.redirect.port"), "{text}");
}
