//! Where `store.url` comes from beside its own key: the flags `--db_host` ... `--db_password` of the original server and
//! the `MONGODB_...` variables of its Heroku set-up, which are parts of a MongoDB URL, and the variables in which hosting
//! services put a whole URL.

use super::tree::Origin;
use super::wording::short;
use crate::cli::Flags;
use crate::error::StartError;
use crate::secret::Secret;
use crate::store::{MongodbParts, WrongPart, mongodb_url};

/// The key that the URL sets.
pub(super) const KEY: &str = "store.url";

/// The variable of the host.
pub(super) const HOST: &str = "MONGODB_HOST";

/// The variables that hold a whole URL, in the order in which a contradiction names them. The first two hold one of
/// MongoDB only.
pub(super) const URL_VARIABLES: [&str; 3] = ["MONGODB_URI", "MONGO_URI", DATABASE_URL];
const DATABASE_URL: &str = "DATABASE_URL";

/// Refuses a URL of another database in a variable that is named for MongoDB. The URL is not shown: it may have a
/// password.
pub(super) fn check_url(name: &str, url: &str) -> Result<(), StartError> {
    let of_mongodb = ["mongodb:", "mongodb+srv:"].iter().any(|scheme| url.starts_with(scheme));
    if of_mongodb || name == DATABASE_URL {
        return Ok(());
    }
    Err(Origin::variable(name).wrong("is not a MongoDB URL, expected mongodb://... or mongodb+srv://..."))
}

/// One part of the URL, with its origin.
#[derive(Clone)]
struct Part<'a> {
    value: &'a str,
    origin: Origin,
}

/// The parts that were given; an empty one counts as not given.
#[derive(Clone, Default)]
pub(super) struct Parts<'a> {
    host: Option<Part<'a>>,
    port: Option<Part<'a>>,
    name: Option<Part<'a>>,
    user: Option<Part<'a>>,
    password: Option<Part<'a>>,
}

impl<'a> Parts<'a> {
    pub(super) fn from_flags(flags: &'a Flags) -> Self {
        let part = |value: Option<&'a str>, flag| {
            value.filter(|value| !value.is_empty()).map(|value| Part { value, origin: Origin::flag(flag) })
        };
        Self {
            host: part(flags.db_host.as_deref(), "--db_host"),
            port: part(flags.db_port.as_deref(), "--db_port"),
            name: part(flags.db_name.as_deref(), "--db_name"),
            user: part(flags.db_user.as_deref(), "--db_user"),
            password: part(flags.db_password.as_ref().map(Secret::expose), "--db_password"),
        }
    }

    /// Reads the `MONGODB_...` variables; `variable` returns the value of a variable.
    pub(super) fn from_environment(variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let part = |name: &'static str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(Part { value, origin: Origin::variable(name) })
        };
        Self {
            host: part(HOST),
            // Kubernetes sets MONGODB_PORT=tcp://10.0.0.1:27017 where a service is named `mongodb`.
            port: part("MONGODB_PORT").filter(|part| !part.value.starts_with("tcp://")),
            name: part("MONGODB_NAME"),
            user: part("MONGODB_USER"),
            password: part("MONGODB_PASSWORD"),
        }
    }

    /// These parts; a missing one is taken from `other`.
    pub(super) fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            name: self.name.or(other.name),
            user: self.user.or(other.user),
            password: self.password.or(other.password),
        }
    }

    /// Whether a host was given.
    pub(super) fn has_host(&self) -> bool {
        self.host.is_some()
    }

    /// The origin of the first part that was given, if any.
    pub(super) fn first_origin(&self) -> Option<Origin> {
        let parts = [&self.host, &self.port, &self.name, &self.user, &self.password];
        parts.into_iter().flatten().next().map(|part| part.origin.clone())
    }

    /// The URL; an error names the origin of the part that is wrong.
    pub(super) fn url(&self) -> Result<String, StartError> {
        let value = |part: &Option<Part<'a>>| part.as_ref().map(|part| part.value);
        let parts = MongodbParts {
            host: value(&self.host),
            port: value(&self.port),
            name: value(&self.name),
            user: value(&self.user),
            password: value(&self.password),
        };
        mongodb_url(parts).map_err(|wrong| {
            let (part, message) = match wrong {
                WrongPart::Host(message) => (&self.host, message),
                WrongPart::Port(message) => (&self.port, message),
                WrongPart::Password(message) => (&self.password, message),
            };
            let message = short(&message, 200);
            part.as_ref().map_or_else(|| StartError::config(&message), |part| part.origin.wrong(&message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Flags {
        let mut flags = Flags::default();
        for (name, value) in pairs {
            let value = (*value).to_owned();
            match *name {
                "host" => flags.db_host = Some(value),
                "port" => flags.db_port = Some(value),
                "name" => flags.db_name = Some(value),
                "user" => flags.db_user = Some(value),
                _ => flags.db_password = Some(Secret::new(value)),
            }
        }
        flags
    }

    fn url(pairs: &[(&str, &str)]) -> String {
        let flags = flags(pairs);
        Parts::from_flags(&flags).url().unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_part_that_is_wrong_names_its_flag_and_shows_no_password() {
        assert_eq!(url(&[("port", "70000")]), "flag --db_port: '70000' is not a port, expected 1 to 65535");
        assert!(url(&[("host", "h/x")]).starts_with("flag --db_host: 'h/x' is not a host"));
        let message = url(&[("password", "hunter2")]);
        assert_eq!(message, "flag --db_password: a password needs a user (--db_user or MONGODB_USER)");
    }

    #[test]
    fn a_port_variable_that_kubernetes_has_set_is_ignored() {
        let variables = [("MONGODB_HOST", "db"), ("MONGODB_PORT", "tcp://10.0.0.1:27017")];
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        assert_eq!(Parts::from_environment(find).url().unwrap(), "mongodb://db:27017/axum_boilerplate");
    }
}
