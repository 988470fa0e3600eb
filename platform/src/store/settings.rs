//! The settings of the store, and how its URL names an engine. It opens no store.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::local_path::local_path;
use crate::error::StartError;
use crate::secret::MaskedUrl;
#[cfg(feature = "mongodb")]
use crate::secret::mask_url;
use crate::setting::{Count, Size, Span};

/// The section `store` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The engine, and where it keeps the documents.
    pub url: StoreUrl,
    /// The longest that a caller waits for the store.
    pub timeout: Span<10, 60_000>,
    /// What only SQLite has.
    pub sqlite: SqliteSettings,
    /// What only MongoDB has.
    pub mongodb: MongodbSettings,
    /// What only PostgreSQL has.
    pub postgres: PostgresSettings,
}

/// The section `store.sqlite`, for each process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteSettings {
    /// Connections that read; one more writes.
    pub connections: Count<1, 64>,
    /// Writes that may wait for that one.
    pub queue: Count<1, 100_000>,
    /// The most writes that share one commit.
    pub group: Count<1, 10_000>,
    /// The size above which the log beside the file is emptied as soon as nobody reads an old state.
    pub wal_limit: Size<1_048_576, 1_099_511_627_776>,
}

/// The section `store.mongodb`, for each process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MongodbSettings {
    /// The most connections to each server.
    pub connections: Count<1, 1_000>,
}

/// The section `store.postgres`, for each process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// The most connections.
    pub connections: Count<1, 1_000>,
}

/// A URL whose password is never shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct StoreUrl(MaskedUrl);

impl StoreUrl {
    /// Refuses a store that several processes cannot share.
    pub fn check_shared(&self, processes: u64) -> Result<(), StartError> {
        if processes > 1 && self.0.expose().starts_with("memory:") {
            return Err(StartError::config(format!(
                "store.url is memory: and {processes} processes are asked for: each would have data of its own; \
                 use sqlite:PATH, or one process"
            )));
        }
        Ok(())
    }

    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(MaskedUrl::new(url))
    }

    /// The path of a store on this machine.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match Engine::of(self) {
            Ok(Engine::File(path)) => Some(path),
            #[cfg(feature = "sqlite")]
            Ok(Engine::Sqlite(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether both name the same store, as far as their texts and the file system tell: a server has many names.
    pub(super) fn is_same_store(&self, other: &Self) -> bool {
        match (self.path(), other.path()) {
            (Some(one), Some(other)) => match (one.canonicalize(), other.canonicalize()) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            },
            _ => {
                self.0.expose().replacen("postgresql:", "postgres:", 1)
                    == other.0.expose().replacen("postgresql:", "postgres:", 1)
            }
        }
    }

    /// Refuses a URL that names no engine of this build, or no path for it.
    pub fn check(&self) -> Result<(), StartError> {
        Engine::of(self).map(drop)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an engine is to be had.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Availability {
    ThisBuild,
    /// A build with this cargo feature.
    Feature(&'static str),
}

/// An engine that is in a build with this feature; `enabled` says whether this one has it.
const fn feature(name: &'static str, enabled: bool) -> Availability {
    if enabled { Availability::ThisBuild } else { Availability::Feature(name) }
}

/// Every scheme that a URL can have.
const ENGINES: [(&str, Availability); 7] = [
    ("sqlite", feature("sqlite", cfg!(feature = "sqlite"))),
    ("file", Availability::ThisBuild),
    ("memory", Availability::ThisBuild),
    ("mongodb", feature("mongodb", cfg!(feature = "mongodb"))),
    ("mongodb+srv", feature("mongodb", cfg!(feature = "mongodb"))),
    ("postgres", feature("postgres", cfg!(feature = "postgres"))),
    ("postgresql", feature("postgres", cfg!(feature = "postgres"))),
];

/// An engine of this build, with the path or the servers that it uses.
pub(super) enum Engine {
    Memory,
    File(PathBuf),
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    #[cfg(feature = "mongodb")]
    /// With the options that change nothing.
    Mongodb(Box<mongodb::options::ConnectionString>, Vec<String>),
    #[cfg(feature = "postgres")]
    /// With the parameters that change nothing.
    Postgres(Box<sqlx::postgres::PgConnectOptions>, Vec<String>),
}

impl Engine {
    /// The name of the database, as OpenTelemetry has it where it has one.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File(_) => "json_file",
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "mongodb")]
            Self::Mongodb(..) => "mongodb",
            #[cfg(feature = "postgres")]
            Self::Postgres(..) => "postgresql",
        }
    }

    /// Reads a URL; the error says what could have been meant.
    pub(super) fn of(url: &StoreUrl) -> Result<Self, StartError> {
        let url_text = url.0.expose();
        let (scheme, rest) = url_text.split_once(':').unwrap_or((url_text, ""));
        match scheme {
            "memory" if matches!(rest, "" | "//") => Ok(Self::Memory),
            "memory" => Err(refused(url, "memory: takes no path and no options")),
            "file" => Ok(Self::File(local_path(scheme, rest).map_err(|why| refused(url, &why))?)),
            #[cfg(feature = "sqlite")]
            "sqlite" => Ok(Self::Sqlite(local_path(scheme, rest).map_err(|why| refused(url, &why))?)),
            #[cfg(feature = "mongodb")]
            "mongodb" | "mongodb+srv" => {
                let (parsed, ignored) = mongodb(url)?;
                Ok(Self::Mongodb(Box::new(parsed), ignored))
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let (options, ignored) =
                    super::postgres_url::connect_options(url_text).map_err(|why| refused(url, &why))?;
                Ok(Self::Postgres(Box::new(options), ignored))
            }
            _ => Err(refused(url, &unavailable(scheme))),
        }
    }
}

fn refused(url: &StoreUrl, why: &str) -> StartError {
    StartError::config(format!("store.url '{url}': {why}"))
}

/// The URL as the driver reads it, and the names of the options that it does not know. Its error may quote a part of the URL that looks like an option, so it is shown only
/// when the URL has no password.
#[cfg(feature = "mongodb")]
fn mongodb(url: &StoreUrl) -> Result<(mongodb::options::ConnectionString, Vec<String>), StartError> {
    use mongodb::error::ErrorKind;

    let (mut text, mut ignored) = (url.0.expose().to_owned(), Vec::new());
    loop {
        let kind = match mongodb::options::ConnectionString::parse(&text) {
            Ok(parsed) => {
                #[expect(deprecated, reason = "the driver reads it, and refuses it when it connects")]
                if parsed.socket_timeout.is_some() {
                    let why =
                        "the driver has no socketTimeoutMS; leave it out, store.timeout bounds each call";
                    return Err(refused(url, why));
                }
                return Ok((parsed, ignored));
            }
            Err(error) => *error.kind,
        };
        // What follows an `@` in an option may be the rest of a password.
        if let ErrorKind::InvalidArgument { message, .. } = &kind
            && let Some((option, _)) = message.split_once(" is an invalid option")
            && text.split_once('?').is_some_and(|(_, query)| !query.contains('@'))
        {
            let (rest, names) = super::url_query::without(&text, |name, _| name.eq_ignore_ascii_case(option));
            if !names.is_empty() {
                (text, ignored) = (rest, [ignored, names].concat());
                continue;
            }
        }
        let hides_something = mask_url(url.0.expose()) != url.0.expose();
        return Err(if hides_something {
            refused(
                url,
                "it is not a MongoDB URL; are user and password percent-encoded, and its options right?",
            )
        } else {
            refused(url, &kind.to_string())
        });
    }
}

/// Why this build has no engine of this scheme.
fn unavailable(scheme: &str) -> String {
    let built: Vec<&str> = ENGINES
        .iter()
        .filter(|(_, availability)| *availability == Availability::ThisBuild)
        .map(|(scheme, _)| *scheme)
        .collect();
    let built = built.join(", ");
    match ENGINES.iter().find(|(known, _)| *known == scheme) {
        Some((_, Availability::Feature(feature))) => format!(
            "the {scheme} store is not in this build, which has {built}; `make run FEATURES={feature}` builds it in"
        ),
        _ => format!("unknown store '{scheme}'{} (it has {built})", nearest(scheme)),
    }
}

fn nearest(scheme: &str) -> String {
    let nearest = ENGINES
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(scheme, known), known))
        // With half the letters wrong, another word was meant.
        .filter(|(distance, known)| *distance * 2 <= known.len())
        .min_by_key(|(distance, _)| *distance);
    nearest.map_or_else(String::new, |(_, known)| format!(", did you mean {known}:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Engine::of(&StoreUrl::new(url)).err().unwrap().to_string()
    }

    #[test]
    fn a_url_names_its_engine_and_path() {
        let of = |url: &str| Engine::of(&StoreUrl::new(url)).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(of("memory:"), Engine::Memory));
        assert!(matches!(of("file:var/store"), Engine::File(path) if path == *"var/store"));
        assert!(matches!(of("file:///srv/store"), Engine::File(path) if path == *"/srv/store"));
        #[cfg(feature = "sqlite")]
        assert!(
            matches!(of("sqlite:var/server.sqlite"), Engine::Sqlite(path) if path == *"var/server.sqlite")
        );
        #[cfg(feature = "mongodb")]
        for url in
            ["mongodb://h:1,i:2/db?replicaSet=r", "mongodb://ada:p%40w@h", "mongodb+srv://cluster.example/db"]
        {
            assert!(matches!(of(url), Engine::Mongodb(_, ignored) if ignored.is_empty()), "{url}");
        }
    }

    #[test]
    fn every_engine_of_the_table_that_is_in_this_build_opens() {
        for (scheme, availability) in ENGINES {
            let path = match scheme {
                "memory" => "",
                "sqlite" | "file" => "x",
                _ => "//h.example.com/x",
            };
            let engine = Engine::of(&StoreUrl::new(format!("{scheme}:{path}")));
            assert_eq!(engine.is_ok(), availability == Availability::ThisBuild, "{scheme}");
        }
    }

    #[cfg(feature = "mongodb")]
    #[test]
    fn a_url_that_the_mongodb_driver_refuses_says_why_and_shows_no_password() {
        let message = refused("mongodb://h:99999/db");
        assert!(message.starts_with("store.url 'mongodb://h:99999/db': "), "{message}");
        assert!(message.contains("port"), "{message}");
        for url in [
            "mongodb://ada:hunter/2@h/db",
            "mongodb://ada:hunter@2@h/db",
            "mongodb://ada:hunter2@h/db?directConnection=perhaps",
            "mongodb://ada:hunter?2@h/db",
        ] {
            assert!(!refused(url).contains("hunter"), "{}", refused(url));
        }
    }

    #[cfg(feature = "mongodb")]
    #[test]
    fn an_option_that_mongodb_does_not_know_is_ignored_and_one_that_the_driver_cannot_do_is_refused() {
        let url =
            StoreUrl::new("mongodb://ada:p@h/db?gssapiServiceName=x&retryWrites=false&Passwrod=hunter2");
        let Ok(Engine::Mongodb(parsed, ignored)) = Engine::of(&url) else { panic!("it is refused") };
        assert_eq!(ignored, ["gssapiServiceName", "Passwrod"]);
        assert_eq!(parsed.retry_writes, Some(false));
        let url = StoreUrl::new("mongodb+srv://ada:p@h.example.com/db?sockettimeoutms=300");
        let error = Engine::of(&url).err().unwrap();
        assert!(error.to_string().contains("socketTimeoutMS") && error.exit_code == 2, "{error}");
    }

    #[cfg(not(feature = "sqlite"))]
    #[test]
    fn an_engine_that_is_not_compiled_in_is_refused_with_the_command_that_has_it() {
        let message = refused("sqlite:var/server.sqlite");
        assert!(message.contains("not in this build, which has file, memory;"), "{message}");
        assert!(message.contains("`make run FEATURES=sqlite`"), "{message}");
    }

    #[test]
    fn a_url_that_names_no_engine_of_this_build_says_what_there_is() {
        for (scheme, availability) in ENGINES {
            let why = match availability {
                Availability::ThisBuild => continue,
                Availability::Feature(feature) => format!("`make run FEATURES={feature}` builds it in"),
            };
            let message = refused(&format!("{scheme}://ada:hunter2@h/db"));
            assert!(message.contains(&why), "{message}");
            assert!(message.contains("ada:***@h"), "{message}");
        }
        let message = refused("sqlit:var/x");
        assert!(message.contains("did you mean sqlite:"), "{message}");
        let message = refused("redis://h");
        assert!(!message.contains("did you mean"), "{message}");
        assert!(refused("file:").contains("names no path"));
        for url in ["memory:x", "memory:?x", "memory://x"] {
            assert!(refused(url).contains("memory: takes no path"), "{}", refused(url));
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_wrong_url_of_postgresql_is_refused_without_its_secrets() {
        for (url, why) in [
            ("postgres://ada:hunter2@h:x/db", "invalid port number"),
            // The driver would ignore it, and log its value.
            ("postgres://h/db?passwrod=hunter2", "unknown parameter 'passwrod'"),
            ("postgres://ada:hunter2@h/db?sslmode=on", "unknown value"),
        ] {
            let message = refused(url);
            assert!(message.contains(why) && !message.contains("hunter2"), "{message}");
        }
        for url in
            ["postgres://h/db", "postgresql://ada:p%40@h:5433/db?sslmode=require&options[search_path]=x"]
        {
            let engine = Engine::of(&StoreUrl::new(url));
            assert!(matches!(engine, Ok(Engine::Postgres(_, ignored)) if ignored.is_empty()));
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_url_of_libpq_is_taken_unless_it_asks_for_a_safety_that_the_driver_does_not_have() {
        use sqlx::postgres::PgSslMode;

        let query = "connect_timeout=10&sslmode=require&channel_binding=prefer&target_session_attrs=read-write\
                     &gssencmode=disable&keepalives=1&keepalives_idle=30";
        let url = StoreUrl::new(format!("postgres://ada:p@h/db?{query}"));
        let Ok(Engine::Postgres(options, ignored)) = Engine::of(&url) else { panic!("it is refused") };
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Require));
        let expected = [
            "connect_timeout",
            "channel_binding",
            "target_session_attrs",
            "gssencmode",
            "keepalives",
            "keepalives_idle",
        ];
        assert_eq!(ignored, expected);
        for parameter in ["channel_binding", "gssencmode"] {
            let message = refused(&format!("postgres://h/db?sslmode=require&{parameter}=require"));
            assert!(
                message.contains("=require: the driver cannot") && message.contains("sslmode=verify-full")
            );
        }
        for sslmode in ["", "&sslmode=verify-full"] {
            let url = StoreUrl::new(format!("postgres://h/db?sslrootcert=system{sslmode}"));
            let Ok(Engine::Postgres(options, _)) = Engine::of(&url) else { panic!("it is refused") };
            assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
            assert!(!format!("{options:?}").contains("system"), "{options:?}");
        }
        assert!(
            refused("postgres://h/db?sslrootcert=system&sslmode=require")
                .contains("needs sslmode=verify-full")
        );
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let url = StoreUrl::new("postgres://ada:hunter2@h/db");
        assert_eq!(format!("{url:?}"), "StoreUrl(postgres://ada:***@h/db)");
        assert_eq!(StoreUrl::new("sqlite://ada:hunter2@h/db").to_string(), "sqlite://ada:***@h/db");
        assert_eq!(serde_json::to_string(&url).unwrap(), "\"postgres://ada:***@h/db\"");
        // The control: nothing is hidden where there is none, so that the output can be read back.
        for open in ["sqlite:var/ada@home.sqlite", "file:/srv/a:b@c", "file:///srv/a:b@c"] {
            assert_eq!(StoreUrl::new(open).to_string(), open);
        }
    }
}
