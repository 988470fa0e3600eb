//! A request that holds a lock.

use platform::testing::until;

use crate::support::{PROGRAM, app_with};

#[tokio::test]
async fn the_first_request_gets_its_answer_and_the_others_409_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let app = async |hold| {
        let dir = folder.path().to_str().unwrap();
        let limit = ("SERVER__HTTP__REQUEST_TIMEOUT", "5m");
        app_with(&[("SERVER__APP__LOCKING__HOLD", hold), ("SERVER__LOCK__DIR", dir), limit]).await
    };
    // The folder has a file for each lock that is held.
    let is_held = || {
        let mut files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.any(|file| file.extension().is_some_and(|extension| extension == "lock"))
    };
    let holding = app("1m").await;
    tokio::select! {
        _ = holding.get("/locking/a%2Fb") => panic!("it holds its lock for a minute"),
        () = async {
            until(is_held).await;
            for _ in 0..2 {
                let other = holding.get("/locking/a%2Fb").await;
                assert_eq!(other.status.as_u16(), 409);
                assert_eq!(other.json()["message"], "Lock id a/b is currently being used. Please try later.");
            }
            // The control: another lock is free.
            let free = app("1ms").await.get("/locking/c").await;
            assert_eq!(free.status.as_u16(), 200);
        } => {}
    }
    until(|| !is_held()).await;
    let app = app("1ms").await;
    for _ in 0..2 {
        let first = app.get("/locking/a%2Fb").await;
        assert_eq!((first.status.as_u16(), first.json()), (200, serde_json::json!({"aLock": "a/b"})));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_releases_its_lock() {
    let limit = [("SERVER__APP__LOCKING__HOLD", "1m"), ("SERVER__HTTP__REQUEST_TIMEOUT", "100ms")];
    let app = app_with(&limit).await;
    for _ in 0..2 {
        // Not 409, the second time.
        assert_eq!(app.get("/locking/a").await.status.as_u16(), 503);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_lock_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = PROGRAM.command(folder.path());
    // A client may close its side and still wait for its answer: `write_timeout` tells who has gone away.
    let settings =
        [("APP__LOCKING__HOLD", "1m"), ("HTTP__REQUEST_TIMEOUT", "1h"), ("HTTP__WRITE_TIMEOUT", "100ms")];
    command.envs(settings.map(|(key, value)| (format!("SERVER__{key}"), value))).args([
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]);
    let server = platform::testing::TestServer::spawn(command.args(["--db_url", "memory:"]), folder.path());
    let lock = folder.path().join("var/locks/a.lock");
    let mut client = server.connect();
    client.send("GET /locking/a HTTP/1.1\r\nHost: a\r\n\r\n");
    until(|| lock.exists()).await;
    let mut other = server.connect();
    let refused = other.send("GET /locking/a HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
    assert!(refused.starts_with("HTTP/1.1 409 Lock In Use"), "{refused}");
    drop(client);
    until(|| !lock.exists()).await;
}

#[cfg(feature = "etcd")]
#[test]
fn a_lock_server_that_is_down_costs_503_of_what_needs_a_lock_and_nothing_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // From now on nothing listens there.
    drop(listener);
    let lock_server = ["--lock_server", "--lock_server_host", "127.0.0.1", "--lock_server_port", &port];
    let server = PROGRAM.start(&[&lock_server[..], &["--db_url", "memory:"]].concat());
    let get = |path: &str| {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).read_response()
    };
    let locked = get("/locking/a");
    assert!(locked.starts_with("HTTP/1.1 503") && locked.contains("\r\nretry-after: 1\r\n"), "{locked}");
    let ping = get("/ping");
    assert!(ping.starts_with("HTTP/1.1 200"), "{ping}");
    // The control: with lock files the same request gets its lock.
    let server = PROGRAM.start(&["--db_url", "memory:"]);
    let mut client = server.connect();
    let locked = client.send("GET /locking/a HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
    assert!(locked.starts_with("HTTP/1.1 200"), "{locked}");
}
