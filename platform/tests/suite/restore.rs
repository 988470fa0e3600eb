//! The recipes of docs/OPERATIONS.md, "Back up and restore", with a whole server: `examples/worker.rs` as a process.

use std::fs;
use std::path::Path;

use platform::store::drivers::sqlx::{self, ConnectOptions as _, Connection as _};
use platform::testing::TestServer;

use crate::tasks::worker;

fn ask(server: &TestServer, method: &str, body: &str) -> String {
    let head = format!(
        "{method} /seats HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    );
    server.connect().send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).read_to_end()
}

fn take(server: &TestServer, guest: &str) -> String {
    ask(server, "POST", &format!(r#"{{"guest":"{guest}","place":{{"number":null}}}}"#))
}

fn guests(server: &TestServer) -> String {
    ask(server, "GET", "").split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// As `cp -a` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn stop(mut server: TestServer) {
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test]
async fn a_database_is_restored_from_a_backup_of_the_running_server() {
    const URL: &str = "sqlite:var/worker.sqlite";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = worker().start_in(folder.path(), &["--db_url", URL]);
    assert!(take(&server, "Ada").starts_with("HTTP/1.1 201 "));
    // `.backup` of sqlite3, in SQL: scripts/smoke has the command itself.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path("var/worker.sqlite"));
    let mut connection = options.connect().await.unwrap();
    let backup = format!("VACUUM INTO '{}'", path("backup.sqlite").display());
    sqlx::query(sqlx::AssertSqlSafe(backup)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(take(&server, "Bob").starts_with("HTTP/1.1 201 "));
    // A replaced file under the server: no write that would be lost.
    fs::rename(path("var/worker.sqlite"), path("aside")).unwrap();
    fs::copy(path("backup.sqlite"), path("var/worker.sqlite")).unwrap();
    let refused = take(&server, "Cid");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    // Not even a stop: `-wal` and `-shm` stay.
    server.signal("KILL");
    drop(server);
    for name in ["var/worker.sqlite", "var/worker.sqlite-wal", "var/worker.sqlite-shm"] {
        fs::remove_file(path(name)).unwrap();
    }
    fs::copy(path("backup.sqlite"), path("var/worker.sqlite")).unwrap();
    let server = worker().start_in(folder.path(), &["--db_url", URL]);
    assert_eq!(guests(&server), r#"["Ada"]"#);
    assert!(take(&server, "Dan").starts_with("HTTP/1.1 201 "));
    stop(server);
}

#[test]
fn a_folder_of_documents_is_restored_from_a_copy() {
    const URL: &str = "file:var/documents";
    let folder = tempfile::tempdir().unwrap();
    let (documents, backup) = (folder.path().join("var/documents"), folder.path().join("backup"));
    let server = worker().start_in(folder.path(), &["--db_url", URL]);
    assert!(take(&server, "Ada").starts_with("HTTP/1.1 201 "));
    stop(server);
    copy(&documents, &backup);
    let server = worker().start_in(folder.path(), &["--db_url", URL]);
    assert!(take(&server, "Bob").starts_with("HTTP/1.1 201 "));
    assert!(guests(&server).contains("Bob"), "the control");
    stop(server);
    fs::rename(&documents, folder.path().join("aside")).unwrap();
    copy(&backup, &documents);
    let server = worker().start_in(folder.path(), &["--db_url", URL]);
    assert_eq!(guests(&server), r#"["Ada"]"#);
    assert!(take(&server, "Dan").starts_with("HTTP/1.1 201 "));
    stop(server);
}
