//! What the tests on PostgreSQL have beside the contract: the server, and a schema for each test.

mod on_postgres;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// The server that the tests use.
///
/// # Panics
/// When the variable is missing: a test that did not run must not count as passed.
pub fn server() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names no server; `make test-all` starts one")
}

/// The name of a schema for one test.
pub fn schema(folder: &TempDir) -> String {
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    format!("test_{}", name.trim_start_matches('.').to_ascii_lowercase())
}

const SCHEMA: &str = "options[search_path]=";

/// The URL of a schema.
pub fn url(server: &str, schema: &str) -> String {
    format!("{server}{}{SCHEMA}{schema}", if server.contains('?') { "&" } else { "?" })
}

/// Creates the schema of a URL of PostgreSQL.
pub async fn create(url: &str) {
    execute(url, "CREATE SCHEMA IF NOT EXISTS").await;
}

/// Deletes the schema of a URL of PostgreSQL.
pub async fn remove(url: &str) {
    execute(url, "SET client_min_messages = warning; DROP SCHEMA").await;
}

async fn execute(url: &str, statement: &str) {
    if let Some((server, schema)) = url.split_once(SCHEMA) {
        let mut connection = PgConnection::connect(server.trim_end_matches(['?', '&'])).await.unwrap();
        let cascade = if statement.ends_with("DROP SCHEMA") { " CASCADE" } else { "" };
        let statement = format!("{statement} \"{schema}\"{cascade}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}
