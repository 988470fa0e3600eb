//! The URL of a MongoDB server from its parts, as the flags `--db_host` ... `--db_password` and the `MONGODB_...`
//! variables give them.
//!
//! A pure function: it does not know where a part came from. The defaults are those of the original server.

use crate::setting::Host;

/// The database where the URL names none.
pub(super) const DEFAULT_NAME: &str = "axum_boilerplate";

/// The parts that were given.
#[derive(Clone, Copy, Default)]
pub struct MongodbParts<'a> {
    /// Name or address of the server.
    pub host: Option<&'a str>,
    /// TCP port.
    pub port: Option<&'a str>,
    /// Name of the database.
    pub name: Option<&'a str>,
    /// User name.
    pub user: Option<&'a str>,
    /// Password of that user.
    pub password: Option<&'a str>,
}

/// A part that is wrong. The message shows no password.
#[derive(Debug, PartialEq, Eq)]
pub enum WrongPart {
    /// The host is neither a name nor an address.
    Host(String),
    /// The port is not a number from 1 to 65535.
    Port(String),
    /// A password was given without a user.
    Password(String),
}

/// `mongodb://user:password@host:port/name`.
pub fn mongodb_url(parts: MongodbParts<'_>) -> Result<String, WrongPart> {
    let host = Host::parse(parts.host.unwrap_or("localhost")).map_err(WrongPart::Host)?.in_url();
    let port = parts.port.unwrap_or("27017");
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| WrongPart::Port(format!("'{port}' is not a port, expected 1 to 65535")))?;
    let name = encoded(parts.name.unwrap_or(DEFAULT_NAME));
    let credentials = match (parts.user, parts.password) {
        (None, None) => String::new(),
        (Some(user), None) => format!("{}@", encoded(user)),
        (Some(user), Some(password)) => format!("{}:{}@", encoded(user), encoded(password)),
        (None, Some(_)) => {
            let message = "a password needs a user (--db_user or MONGODB_USER)";
            return Err(WrongPart::Password(message.to_owned()));
        }
    };
    Ok(format!("mongodb://{credentials}{host}:{port}/{name}"))
}

/// Percent-encodes all but the unreserved characters of RFC 3986, section 2.3.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.extend(format!("%{byte:02X}").chars());
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: MongodbParts<'_> =
        MongodbParts { host: None, port: None, name: None, user: None, password: None };

    #[test]
    fn a_part_that_is_not_given_has_the_default_of_the_original() {
        let url = |parts| mongodb_url(parts).unwrap();
        assert_eq!(url(NONE), "mongodb://localhost:27017/axum_boilerplate");
        let given = MongodbParts { host: Some("db"), port: Some("1"), name: Some("x"), ..NONE };
        assert_eq!(url(given), "mongodb://db:1/x");
        let address = MongodbParts { host: Some("::1"), ..NONE };
        assert_eq!(url(address), "mongodb://[::1]:27017/axum_boilerplate");
    }

    #[test]
    fn user_and_password_are_percent_encoded() {
        let parts = MongodbParts { user: Some("a@b"), password: Some("p:/?#%é"), ..NONE };
        let expected = "mongodb://a%40b:p%3A%2F%3F%23%25%C3%A9@localhost:27017/axum_boilerplate";
        assert_eq!(mongodb_url(parts).unwrap(), expected);
    }

    #[test]
    fn a_part_that_is_wrong_is_named_and_no_password_is_shown() {
        let wrong = |parts| mongodb_url(parts).unwrap_err();
        let port = wrong(MongodbParts { port: Some("70000"), ..NONE });
        assert_eq!(port, WrongPart::Port("'70000' is not a port, expected 1 to 65535".to_owned()));
        let host = wrong(MongodbParts { host: Some("h/x"), ..NONE });
        assert!(matches!(host, WrongPart::Host(message) if message.starts_with("'h/x' is not a host")));
        let password = wrong(MongodbParts { password: Some("hunter2"), ..NONE });
        let expected = "a password needs a user (--db_user or MONGODB_USER)";
        assert_eq!(password, WrongPart::Password(expected.to_owned()));
    }
}
