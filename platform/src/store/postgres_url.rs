//! The URL of a PostgreSQL database, as the driver reads it. It connects to nothing.

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::url_query::without;

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

/// Parameters of libpq that the driver does not have, and without which a connection is as safe.
const IGNORED: [&str; 15] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Reads a URL, and names the parameters that change nothing. The error has no secret.
pub(super) fn connect_options(url: &str) -> Result<(PgConnectOptions, Vec<String>), String> {
    let (url, ignored) = without(url, |name, value| IGNORED.contains(&name) && value != "require");
    // The driver would look for a file of this name. It trusts the roots of the operating system anyway.
    let (url, system) = without(&url, |name, value| (name, value) == ("sslrootcert", "system"));
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (key, _) in form_urlencoded::parse(query.as_bytes()) {
        if IGNORED.contains(&&*key) {
            return Err(format!(
                "{key}=require: the driver cannot do that; write sslmode=verify-full instead, with which nobody can be \
                 in between either"
            ));
        }
        // The driver would log the value, and a slip in the key may make that a password.
        if !PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
            // With an `@`, this is what a password has after a `?`.
            let key = if query.contains('@') { String::new() } else { format!(" '{key}'") };
            return Err(format!("unknown parameter{key}, expected one of {}", PARAMETERS.join(", ")));
        }
    }
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| error.to_string())?;
    match options.get_ssl_mode() {
        _ if system.is_empty() => Ok((options, ignored)),
        // As libpq has it: everybody has a certificate of these authorities, for a name of his own.
        PgSslMode::Prefer | PgSslMode::VerifyFull => Ok((options.ssl_mode(PgSslMode::VerifyFull), ignored)),
        _ => Err("sslrootcert=system needs sslmode=verify-full".to_owned()),
    }
}
