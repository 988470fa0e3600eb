//! The deadlines of a connection hold over TLS too.

use std::time::Duration;

use platform::testing::{Connection, client, until};

use super::{GET, start};

const SHORT: [(&str, &str); 6] = [
    ("SERVER__HTTP__FIRST_BYTE_TIMEOUT", "500ms"),
    ("SERVER__HTTP__HEADER_TIMEOUT", "300ms"),
    ("SERVER__HTTP__BODY_GRACE", "300ms"),
    ("SERVER__HTTP__BODY_MIN_RATE", "1000"),
    ("SERVER__HTTP__WRITE_TIMEOUT", "1s"),
    ("SERVER__HTTP__HTTP2_PING_INTERVAL", "1s"),
];

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_connection_that_sends_no_complete_request_head_is_closed() {
    let server = start(&SHORT).await;
    let (address, client_of) = (server.address, server.client.clone());
    client(move || {
        for start in ["", "PRI * HTTP/2", "GET /ping HTT", "GET /ping HTTP/1.1\r\nHost: local"] {
            Connection::secure(address, &client_of).send(start).read_to_end();
        }
        // The control: a complete request gets a response, and the connection stays open for the next one.
        let mut connection = Connection::secure(address, &client_of);
        for _ in 0..2 {
            let response = connection.send(GET).read_response();
            assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        }
        connection.read_to_end();
    })
    .await;
    until(|| server.drain.connections() == 0).await;
}

#[tokio::test]
async fn the_deadlines_are_what_closes_them() {
    // The control of the test above: with those of hours, they stay. That they do does not depend on how busy the machine is.
    let long = SHORT.map(|(name, _)| (name, if name.ends_with("RATE") { "0" } else { "1h" }));
    let server = start(&long).await;
    let (address, client_of) = (server.address, server.client.clone());
    let all = client(move || {
        let mut all = [&b""[..], b"GET /ping HTT", HTTP2].map(|start| {
            let mut connection = Connection::secure(address, &client_of);
            connection.send(start);
            connection
        });
        // The SETTINGS of the server.
        all[2].read_exactly(9);
        std::thread::sleep(Duration::from_secs(2));
        assert!(all[..2].iter_mut().all(|connection| connection.is_quiet_for(Duration::from_millis(1))));
        all
    })
    .await;
    assert_eq!(server.drain.connections(), 3);
    drop(all);
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    let server = start(&SHORT).await;
    let (address, client_of) = (server.address, server.client.clone());
    client(move || {
        let mut stalled = Connection::secure(address, &client_of);
        stalled.send("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{");
        let response = stalled.read_to_end();
        assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
        assert!(response.contains("The body came too slowly"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn an_http_2_client_that_answers_no_ping_is_closed() {
    let server = start(&SHORT).await;
    let (address, client_of) = (server.address, server.client.clone());
    client(move || Connection::secure(address, &client_of).send(HTTP2).read_to_end()).await;
    until(|| server.drain.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    let server = start(&SHORT).await;
    let (address, client_of) = (server.address, server.client.clone());
    let request = "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let stuck = client(move || {
        // The control: a client that reads slowly gets all of it, even when that takes longer than the timeout.
        let mut slow = Connection::secure(address, &client_of);
        slow.send(request);
        for _ in 0..5 {
            assert_eq!(slow.read(1 << 20), 1 << 20);
            std::thread::sleep(Duration::from_millis(250));
        }
        assert!(slow.read_to_end().len() + (5 << 20) > 64 << 20);
        let mut stuck = Connection::secure(address, &client_of);
        stuck.send(request);
        stuck
    })
    .await;
    until(|| server.drain.connections() == 0).await;
    drop(stuck);
}
