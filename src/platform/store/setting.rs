//! The settings of the store, and how its URL names an engine. It opens nothing.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::platform::error::StartError;
use crate::platform::secret::mask_url;
use crate::platform::setting::{Count, Span};

/// The section `store` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The engine and its place.
    pub url: StoreUrl,
    /// The longest that a caller waits for the store.
    pub timeout: Span<10, 60_000>,
    /// The settings of SQLite.
    pub sqlite: SqliteSettings,
}

/// The section `store.sqlite` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteSettings {
    /// Connections that read.
    pub connections: Count<1, 64>,
    /// Writes that may wait.
    pub queue: Count<1, 100_000>,
    /// Most writes that share one commit.
    pub group: Count<1, 10_000>,
}

/// A URL that may hold a password, and never shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Refuses a store that several processes cannot share.
    pub fn check_shared(&self, processes: u64) -> Result<(), StartError> {
        if processes > 1 && self.0.starts_with("memory:") {
            return Err(StartError::config(format!(
                "store.url is memory: and {processes} processes are asked for: each would have data of its own; \
                 use sqlite:PATH, or one process"
            )));
        }
        Ok(())
    }

    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Refuses a URL that names no engine of this build, or no place for it.
    pub fn check(&self) -> Result<(), StartError> {
        Engine::of(self).map(drop)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The place of a local store is a path, which may have any character and hides nothing.
        let local = ["sqlite:", "file:"].iter().any(|scheme| self.0.starts_with(scheme));
        f.write_str(&if local { self.0.clone() } else { mask_url(&self.0) })
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The engines of this build, as the URL names them.
#[cfg(feature = "sqlite")]
const BUILT: [&str; 3] = ["sqlite", "file", "memory"];
#[cfg(not(feature = "sqlite"))]
const BUILT: [&str; 2] = ["file", "memory"];

/// The engines that exist and are not in this build.
const NOT_BUILT: [&str; 5] = ["postgres", "postgresql", "mongodb", "mongodb+srv", "sqlite"];

/// An engine of this build, with its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Memory,
    File(PathBuf),
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
}

impl Engine {
    /// Reads a URL; the error says what could have been meant.
    pub(super) fn of(url: &StoreUrl) -> Result<Self, StartError> {
        let (scheme, rest) = url.0.split_once(':').unwrap_or((&url.0, ""));
        // `sqlite://var/x` is how other tools write it.
        let place = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "memory" if place.is_empty() => Ok(Self::Memory),
            "memory" => Err(StartError::config(format!("store.url '{url}': memory: takes no place"))),
            "file" => Ok(Self::File(path(url, place)?)),
            #[cfg(feature = "sqlite")]
            "sqlite" => Ok(Self::Sqlite(path(url, place)?)),
            _ if NOT_BUILT.contains(&scheme) => Err(StartError::config(format!(
                "store.url '{url}': this build has no {scheme} store; it has {}",
                BUILT.join(", ")
            ))),
            _ => Err(unknown(url, scheme)),
        }
    }
}

fn path(url: &StoreUrl, place: &str) -> Result<PathBuf, StartError> {
    match place {
        "" => Err(StartError::config(format!("store.url '{url}' names no place"))),
        ":memory:" => {
            Err(StartError::config(format!("store.url '{url}': write memory: for a store in memory")))
        }
        _ => Ok(PathBuf::from(place)),
    }
}

fn unknown(url: &StoreUrl, scheme: &str) -> StartError {
    let nearest = BUILT
        .iter()
        .chain(&NOT_BUILT)
        .map(|known| (strsim::damerau_levenshtein(scheme, known), known))
        // Half the letters wrong is another word, not a slip.
        .filter(|(distance, known)| *distance * 2 <= known.len())
        .min_by_key(|(distance, _)| *distance);
    let hint = nearest.map_or_else(String::new, |(_, known)| format!(", did you mean {known}:"));
    StartError::config(format!(
        "store.url '{url}': unknown store '{scheme}'{hint} (it has {})",
        BUILT.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Engine::of(&StoreUrl::new(url)).unwrap_err().to_string()
    }

    #[test]
    fn a_url_names_its_engine_and_place() {
        let of = |url: &str| Engine::of(&StoreUrl::new(url)).unwrap();
        assert_eq!(of("memory:"), Engine::Memory);
        assert_eq!(of("file:var/store"), Engine::File("var/store".into()));
        assert_eq!(of("file:///srv/store"), Engine::File("/srv/store".into()));
        #[cfg(feature = "sqlite")]
        assert_eq!(of("sqlite:var/server.sqlite"), Engine::Sqlite("var/server.sqlite".into()));
    }

    #[test]
    fn a_url_that_names_no_engine_of_this_build_says_what_there_is() {
        let message = refused("mongodb://ada:hunter2@h/db");
        assert!(message.contains("this build has no mongodb store; it has "), "{message}");
        assert!(message.contains("ada:***@h"), "{message}");
        let message = refused("sqlit:var/x");
        assert!(message.contains("did you mean sqlite:"), "{message}");
        let message = refused("redis://h");
        assert!(!message.contains("did you mean"), "{message}");
        assert!(refused("file:").contains("names no place"));
        assert!(refused("file::memory:").contains("write memory:"));
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let url = StoreUrl::new("postgres://ada:hunter2@h/db");
        assert_eq!(format!("{url:?}"), "postgres://ada:***@h/db");
        assert_eq!(serde_json::to_string(&url).unwrap(), "\"postgres://ada:***@h/db\"");
        // The control: nothing is hidden where there is none, so that the output can be read back.
        for open in ["sqlite:var/ada@home.sqlite", "file:/srv/a:b@c"] {
            assert_eq!(StoreUrl::new(open).to_string(), open);
        }
    }
}
