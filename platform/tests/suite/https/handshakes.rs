//! Handshakes that do not come about: their deadline, their share of the connections, and what the log says.

use std::time::{Duration, Instant};

use platform::testing::{Connection, client, until};

use super::{GET, start};

/// The beginning of a `ClientHello` of 512 bytes.
pub(super) const HELLO: &[u8] =
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00";

const SHORT: [(&str, &str); 2] =
    [("SERVER__HTTP__FIRST_BYTE_TIMEOUT", "200ms"), ("SERVER__SERVER__TLS__HANDSHAKE_TIMEOUT", "300ms")];

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_closed() {
    let server = start(&SHORT).await;
    let address = server.address;
    client(move || {
        for hello in [&b""[..], &HELLO[..1], HELLO] {
            Connection::open(address).send(hello).read_to_end();
        }
    })
    .await;
    until(|| server.drain.connections() == 0).await;
}

#[tokio::test]
async fn without_the_deadline_it_would_stay() {
    // The control of the test above: nothing else closes it. That it stays does not depend on how busy the machine is.
    let long = [SHORT[0], (SHORT[1].0, "10m")];
    let server = start(&long).await;
    let address = server.address;
    client(move || assert!(Connection::open(address).send(HELLO).is_quiet_for(Duration::from_secs(2)))).await;
}

#[tokio::test]
async fn a_client_that_sends_its_hello_byte_by_byte_gets_no_more_time() {
    let server = start(&SHORT).await;
    let address = server.address;
    client(move || {
        let mut trickling = Connection::open(address);
        let begun = Instant::now();
        for byte in HELLO.iter().chain(std::iter::repeat(&b'a')) {
            if !trickling.is_quiet_for(Duration::from_millis(50)) || !trickling.try_send([*byte]) {
                break;
            }
            assert!(begun.elapsed() < platform::testing::PATIENCE, "not closed");
        }
        trickling.read_to_end();
    })
    .await;
}

#[tokio::test]
async fn handshakes_under_way_count_as_connections() {
    let settings = [SHORT[0], (SHORT[1].0, "2s"), ("SERVER__HTTP__MAX_CONNECTIONS", "1")];
    let server = start(&settings).await;
    let (address, client_of, drain) = (server.address, server.client.clone(), server.drain.clone());
    client(move || {
        let mut half = Connection::open(address);
        half.send(HELLO);
        assert!(half.is_quiet_for(Duration::from_millis(100)));
        assert_eq!(drain.connections(), 1);
        // Its hello waits in the queue of the kernel until the other one is closed at its deadline.
        let response = Connection::secure(address, &client_of).send(GET).read_response();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        assert!(!half.is_quiet_for(Duration::from_secs(1)), "both had a connection");
    })
    .await;
}

#[tokio::test]
async fn handshakes_under_way_stop_nobody() {
    let server = start(&[(SHORT[1].0, "10m")]).await;
    let (address, client_of) = (server.address, server.client.clone());
    client(move || {
        let mut halves: Vec<_> = (0..200).map(|_| Connection::open(address)).collect();
        for half in &mut halves {
            half.send(HELLO);
        }
        for _ in 0..5 {
            let response = Connection::secure(address, &client_of).send(GET).read_response();
            assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        }
        assert!(halves.iter_mut().all(|half| half.is_quiet_for(Duration::from_millis(1))));
    })
    .await;
}
