//! The settings of the cache, and how its URL names an engine. It connects to nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::secret::MaskedUrl;
use crate::setting::{Count, Size, Span};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// The section `cache` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The engine.
    pub url: MaskedUrl,
    /// The longest that a caller waits for the cache.
    pub timeout: Span<1, 10_000>,
    /// What only the cache in memory has.
    pub memory: MemorySettings,
    /// What only Redis has.
    pub redis: RedisSettings,
}

/// The section `cache.memory`, for each process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySettings {
    /// The most entries.
    pub max_entries: Count<1, 10_000_000>,
    /// The most bytes of keys and values.
    pub max_bytes: Size<{ 64 * KIB }, { 64 * GIB }>,
}

/// The section `cache.redis`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// What every key begins with.
    pub prefix: String,
    /// The authority that has signed the certificate of the server, a PEM file. Empty: those of the operating system.
    pub ca: PathBuf,
}

/// An engine of this build.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Memory,
    /// The URL.
    #[cfg(feature = "redis")]
    Redis(String),
}

impl Settings {
    /// Refuses a URL that names no engine of this build.
    pub fn check(&self) -> Result<(), StartError> {
        Engine::of(&self.url).map(drop)
    }
}

impl Engine {
    /// Reads the URL; the error says what could have been meant.
    pub(super) fn of(url: &MaskedUrl) -> Result<Self, StartError> {
        let refused = |why: &str| Err(StartError::config(format!("cache.url '{url}': {why}")));
        match url.expose().split_once(':').unwrap_or((url.expose(), "")) {
            ("memory", "") => Ok(Self::Memory),
            ("memory", _) => refused("memory: takes no path"),
            #[cfg(feature = "redis")]
            ("redis" | "rediss", rest) if rest.contains('#') => refused(
                "takes nothing after a #: certificates are always checked, cache.redis.ca names the authority of your own",
            ),
            #[cfg(feature = "redis")]
            ("redis" | "rediss", _) => Ok(Self::Redis(url.expose().to_owned())),
            #[cfg(not(feature = "redis"))]
            ("redis" | "rediss", _) => {
                refused("redis is not in this build; `make run FEATURES=redis` has it")
            }
            _ => refused("is no cache: expected memory: or redis://HOST:PORT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_engine_or_is_refused_without_its_password() {
        assert_eq!(Engine::of(&MaskedUrl::new("memory:")).unwrap(), Engine::Memory);
        let refused = |url: &str| Engine::of(&MaskedUrl::new(url)).unwrap_err().to_string();
        assert!(refused("memory:x").contains("takes no path"));
        let message = refused("memcached://:hunter2@h");
        assert!(
            message.contains("expected memory: or redis://") && !message.contains("hunter2"),
            "{message}"
        );
        #[cfg(feature = "redis")]
        assert_eq!(Engine::of(&MaskedUrl::new("redis://h")).unwrap(), Engine::Redis("redis://h".to_owned()));
        #[cfg(not(feature = "redis"))]
        assert!(refused("redis://:hunter2@h").contains("make run FEATURES=redis"));
        assert!(!format!("{:?}", MaskedUrl::new("redis://:hunter2@h")).contains("hunter2"));
    }
}
