//! Stored documents that cannot be read, or that are not what the app takes them for.

use std::fs;

use platform::error::Result;
use platform::http::{Json, Route, Routes};
use platform::store::{Dao, Entity, Filter};
use platform::testing::TestApp;
use serde::{Deserialize, Serialize};

use crate::tasks::worker;

/// A whole server: `examples/worker.rs` as a process, with a request id on what it logs.
#[test]
fn a_list_leaves_a_damaged_file_out_the_log_names_it_once_and_delete_deletes_it() {
    let folder = tempfile::tempdir().unwrap();
    let seats = folder.path().join("documents/seats");
    fs::create_dir_all(&seats).unwrap();
    let document = r#"{"id":"ada","version":1,"body":{"guest":"Ada","place":{"number":1}}}"#;
    fs::write(seats.join("ada.json"), document).unwrap();
    fs::write(seats.join("half.json"), &document[..30]).unwrap();
    fs::write(seats.join("ada (1).json"), document).unwrap();
    // Its start reads the seats too, since one of their paths is unique.
    let mut server = worker().start_in(folder.path(), &["--db_url", "file:documents"]);
    let ask = |method: &str, path: &str, id: &str| {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n");
        server.connect().send(head).read_to_end()
    };
    let list = |id: &str| ask("GET", "/seats", id);
    for id in ["first", "second"] {
        let found = list(id);
        assert!(found.starts_with("HTTP/1.1 200 ") && found.ends_with("\r\n\r\n[\"Ada\"]"), "{found}");
    }
    fs::write(seats.join("empty.json"), "").unwrap();
    assert!(list("third").ends_with("[\"Ada\"]"));
    for path in ["/seats/half", "/seats/ada%20(1)", "/seats/empty"] {
        let deleted = ask("DELETE", path, "delete");
        assert!(deleted.starts_with("HTTP/1.1 204 "), "{path}: {deleted}");
        let again = ask("DELETE", path, "delete");
        assert!(again.starts_with("HTTP/1.1 404 "), "{path}: {again}");
    }
    assert_eq!(
        fs::read_dir(&seats)
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")
            })
            .count(),
        1
    );
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    for name in ["half.json", "ada (1).json", "empty.json"] {
        let named =
            log.lines().filter(|line| line.contains("left out") && line.contains(name)).collect::<Vec<_>>();
        assert_eq!(named.len(), 1, "{name}: {log}");
        assert!(named[0].contains("level=warn ") && named[0].contains("is damaged"), "{named:?}");
        assert!(name != "empty.json" || named[0].contains("request_id=third"), "{named:?}");
    }
}

/// A note as an older release has stored it.
#[derive(Deserialize, Serialize)]
struct OldNote {
    text: String,
}

impl Entity for OldNote {
    const COLLECTION: &'static str = "notes";
}

/// The same with a new field.
#[derive(Deserialize, Serialize)]
struct Required {
    text: String,
    colour: String,
}

impl Entity for Required {
    const COLLECTION: &'static str = "notes";
}

/// The recipe of docs/STORES.md.
#[derive(Deserialize, Serialize)]
struct Defaulted {
    text: String,
    #[serde(default)]
    colour: String,
}

impl Entity for Defaulted {
    const COLLECTION: &'static str = "notes";
}

async fn list<T: Entity>(notes: Dao<T>) -> Result<Json<usize>> {
    Ok(Json(notes.get_all(Filter::all()).await?.len()))
}

#[tokio::test]
async fn a_document_without_a_new_field_is_named_in_the_log_and_has_a_recipe() {
    let routes = Routes::new()
        .route(Route::at("/required").get(list::<Required>))
        .route(Route::at("/defaulted").get(list::<Defaulted>));
    let app = TestApp::with_routes(routes, &[]).await;
    let old: Dao<OldNote> = app.services().dao();
    let new: Dao<Required> = app.services().dao();
    new.insert_with_id("a1", &Required { text: "x".to_owned(), colour: "red".to_owned() }).await.unwrap();
    assert_eq!(app.get("/required").await.status, 200, "the control");
    old.insert_with_id("old-note", &OldNote { text: "hunter2".to_owned() }).await.unwrap();
    let response = app.get("/required").await;
    assert_eq!(response.status, 500);
    let body = response.text();
    assert!(!body.contains("old-note") && !body.contains("colour"), "{body}");
    let line = app.log().pop().unwrap();
    for part in [
        "status=500",
        "notes \\\"old-note\\\"",
        "missing field `colour`",
        "#[serde(default)]",
        "docs/STORES.md",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("hunter2"), "{line}");
    assert_eq!(app.get("/defaulted").await.json(), 2);
}
