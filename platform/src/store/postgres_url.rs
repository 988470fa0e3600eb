//! The URL of a PostgreSQL database, as the driver reads it. It connects to nothing.

use sqlx::postgres::PgConnectOptions;

/// The parameters that the driver reads from a URL (`sqlx::postgres::PgConnectOptions`), and `options[NAME]`.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "statement-cache-capacity",
    "user",
];

/// Reads a URL. The error has no secret.
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions, String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (key, _) in form_urlencoded::parse(query.as_bytes()) {
        // The driver would log the value, and a slip in the key may make that a password.
        if !PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
            // With an `@`, this is what a password has after a `?`.
            let key = if query.contains('@') { String::new() } else { format!(" '{key}'") };
            return Err(format!("unknown parameter{key}, expected one of {}", PARAMETERS.join(", ")));
        }
    }
    url.parse().map_err(|error: sqlx::Error| error.to_string())
}
