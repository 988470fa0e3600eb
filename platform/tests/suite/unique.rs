//! Unique paths in a whole server: `examples/worker.rs` as a process.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use platform::http::Routes;
use platform::store::{Dao, Entity, Filter};
use platform::testing::{Connection, PATIENCE, TestApp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::tasks::{STORE, worker};

/// The seats of the example, without its unique path.
#[derive(Deserialize, Serialize)]
struct Seat {
    guest: String,
    place: Value,
}

impl Entity for Seat {
    const COLLECTION: &'static str = "seats";
}

/// Access to the file of the server.
async fn with_seats<R>(folder: &Path, work: impl AsyncFnOnce(Dao<Seat>) -> R) -> R {
    let url = format!("sqlite:{}", folder.join("worker.sqlite").display());
    let app = TestApp::with_routes(Routes::new(), &[("SERVER__STORE__URL", url.as_str())]).await;
    let result = work(app.services().dao()).await;
    app.close().await;
    result
}

fn seat(guest: &str, number: impl Into<Value>) -> Seat {
    Seat { guest: guest.to_owned(), place: json!({"number": number.into()}) }
}

fn take(mut connection: Connection, seat: &Seat) -> String {
    let body = serde_json::to_string(seat).unwrap();
    let request = format!(
        "POST /seats HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(request).read_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_exists_is_409_and_its_pointer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = worker().start_in(folder.path(), &["--db_url", STORE]);
    for free in [seat("Ada", 7), seat("Bob", 8), seat("Cid", Value::Null), seat("Dan", Value::Null)] {
        let taken = take(server.connect(), &free);
        assert!(taken.starts_with("HTTP/1.1 201 "), "{taken}");
    }
    let refused = take(server.connect(), &seat("Eve", 7));
    assert!(refused.starts_with("HTTP/1.1 409 Value Exists\r\n"), "{refused}");
    let body: Value = serde_json::from_str(refused.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected =
        json!([{"pointer": "/place/number", "message": "must be unique: another document has this value"}]);
    assert_eq!((&body["code"], &body["errors"]), (&json!(409), &expected), "{body}");
    // Of many guests who want one seat at the same time, one gets it.
    let answers: Vec<String> = std::thread::scope(|scope| {
        let guests: Vec<_> = (0..20)
            .map(|_| {
                let connection = server.connect();
                scope.spawn(move || take(connection, &seat("Guest", 9)))
            })
            .collect();
        guests.into_iter().map(|guest| guest.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 201 ")).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 409 ")).count(), 19);
    drop(server);
    let seats = with_seats(folder.path(), async |seats| seats.count(Filter::all()).await.unwrap()).await;
    assert_eq!(seats, 5);
}

/// Runs the server until it ends by itself, and returns its exit code and standard error.
fn run_to_the_end(folder: &Path) -> (Option<i32>, String) {
    let mut command = worker().command(folder);
    command.args(["--port", "0", "--host", "127.0.0.1", "--db_url", STORE]);
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while server.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It has ended; if not, the exit code is that of the signal.
    let _ = server.kill();
    let mut text = String::new();
    server.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (server.wait().unwrap().code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_documents_clash_does_not_start_and_names_two() {
    let folder = tempfile::tempdir().unwrap();
    with_seats(folder.path(), async |seats| {
        for (id, number) in [("ada", 7), ("bob", 8), ("cid", 7)] {
            seats.insert_with_id(id, &seat(id, number)).await.unwrap();
        }
    })
    .await;
    let (code, text) = run_to_the_end(folder.path());
    assert_eq!(code, Some(1), "{text}");
    let named = r#"the documents "ada" and "cid" of seats have the same value at "place.number", which is declared UNIQUE"#;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(named)).collect();
    assert!(lines.iter().any(|line| line.contains("collection seats: ")), "{text}");
    // The control: with one of them deleted, it starts.
    with_seats(folder.path(), async |seats| seats.delete_with_ids(&["cid"]).await.unwrap()).await;
    let server = worker().start_in(folder.path(), &["--db_url", STORE]);
    assert!(take(server.connect(), &seat("Eve", 7)).starts_with("HTTP/1.1 409 "));
}
