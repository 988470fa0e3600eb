//! What the tests on MongoDB have beside the contract: the server, and a database for each test.

mod on_mongodb;
mod unique;

use mongodb::Client;
use tempfile::TempDir;

/// The server that the tests use.
///
/// # Panics
/// When the variable is missing: a test that did not run must not count as passed.
pub fn server() -> String {
    std::env::var("TEST_MONGODB_URI").expect("TEST_MONGODB_URI names no server; `make test-all` starts one")
}

/// The name of a database for one test.
pub fn database(folder: &TempDir) -> String {
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    format!("test_{}", name.trim_start_matches('.'))
}

/// The URL of a database. The one that the server's URL names, if any, stays the one that has its users.
pub fn url(server: &str, database: &str) -> String {
    let (address, options) = server.split_once('?').unwrap_or((server, ""));
    let (scheme, rest) = address.split_once("://").unwrap();
    let (hosts, users) = rest.split_once('/').unwrap_or((rest, ""));
    let mut options: Vec<String> =
        options.split('&').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    if hosts.contains('@') && !options.iter().any(|option| option.starts_with("authSource=")) {
        options.push(format!("authSource={}", if users.is_empty() { "admin" } else { users }));
    }
    format!("{scheme}://{hosts}/{database}?{}", options.join("&"))
}

/// Deletes the database of a URL of MongoDB.
pub async fn remove(url: &str) {
    if url.starts_with("mongodb") {
        let client = Client::with_uri_str(url).await.unwrap();
        client.default_database().unwrap().drop().await.unwrap();
    }
}

#[test]
fn a_test_has_a_database_of_its_own_on_any_server() {
    assert_eq!(url("mongodb://h:1", "t"), "mongodb://h:1/t?");
    assert_eq!(url("mongodb://u:p@h/?tls=true", "t"), "mongodb://u:p@h/t?tls=true&authSource=admin");
    assert_eq!(url("mongodb+srv://u:p@h/users", "t"), "mongodb+srv://u:p@h/t?authSource=users");
    assert_eq!(url("mongodb://u:p@h/x?authSource=y", "t"), "mongodb://u:p@h/t?authSource=y");
}
