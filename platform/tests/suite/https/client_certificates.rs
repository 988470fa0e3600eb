//! The certificates of clients.

use platform::testing::{Connection, TestAuthority, TestClient, TestPair, client};
use rcgen::{DnType, date_time_ymd};
use rustls::version::{TLS12, TLS13};

use super::{Server, start_in};

const GET: &str = "GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn start(authority: &TestAuthority, certificates: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("clients.pem");
    std::fs::write(&ca, &authority.certificate).unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    let settings = [
        ("SERVER__SERVER__TLS__CLIENTS__CERTIFICATES", certificates),
        ("SERVER__SERVER__TLS__CLIENTS__CA", ca.to_str().unwrap()),
    ];
    start_in(folder, pair, &settings).await
}

/// The body of the response, or nothing where the client is refused: in TLS 1.3 it learns of that after the handshake.
fn who(server: std::net::SocketAddr, client: &TestClient) -> Option<String> {
    let mut connection = Connection::try_secure(server, client).ok()?;
    if !connection.try_send(GET) {
        return None;
    }
    let response = connection.try_read_to_end().ok()?;
    Some(response.split("\r\n\r\n").nth(1)?.to_owned())
}

#[tokio::test]
async fn the_subject_of_a_verified_certificate_is_in_the_context() {
    let authority = TestAuthority::new("The clients");
    let own = authority.sign("ada, the first", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Example");
    });
    for certificates in ["required", "optional"] {
        let server = start(&authority, certificates).await;
        let (address, pair, own) = (server.address, server.pair.clone(), own.clone());
        client(move || {
            for versions in [&[&TLS12][..], &[&TLS13]] {
                let client = TestClient::with_versions(&[&pair], Some(&own), versions);
                // The second connection continues the session of the first one.
                for _ in 0..2 {
                    let who = who(address, &client);
                    assert_eq!(who.as_deref(), Some(r"O=Example,CN=ada\, the first"), "{certificates}");
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_only_where_one_is_required() {
    let authority = TestAuthority::new("The clients");
    for (certificates, expected) in
        [("required", None), ("optional", Some("nobody")), ("none", Some("nobody"))]
    {
        let server = start(&authority, certificates).await;
        let (address, client_of) = (server.address, server.client.clone());
        let who = client(move || who(address, &client_of)).await;
        assert_eq!(who.as_deref(), expected, "{certificates}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_is_refused_also_where_it_is_optional() {
    let authority = TestAuthority::new("The clients");
    let another = TestAuthority::new("The clients").sign("ada", |_| ());
    let expired = authority.sign("ada", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = authority.sign("ada", |params| params.not_before = date_time_ymd(2999, 1, 1));
    let own = TestPair::new(&[], |_| ());
    for certificates in ["required", "optional"] {
        let server = start(&authority, certificates).await;
        for (kind, shown) in
            [("another", &another), ("expired", &expired), ("future", &future), ("own", &own)]
        {
            let client_of = TestClient::with(&[&server.pair], Some(shown));
            let address = server.address;
            assert_eq!(client(move || who(address, &client_of)).await, None, "{kind}, {certificates}");
        }
        assert!(server.folder.path().exists());
    }
}
