//! The section `auth` of the configuration. `defaults/auth.yaml` explains each key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::setting::{Count, Size, Span};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;
const MIB: u64 = 1 << 20;

/// The section `auth`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The keys of signed and encrypted cookies, with spaces between them.
    pub keys: Secret,
    /// A file with the keys, in place of `keys`. One that is missing is made.
    pub key_file: PathBuf,
    /// Sessions.
    pub sessions: Sessions,
    /// Passwords.
    pub passwords: Passwords,
    /// How long links in mails can be used.
    pub link_time: Span<MINUTE, { 30 * DAY }>,
    /// Attempts to log in.
    pub throttles: Throttles,
    /// Providers of OpenID Connect, by name.
    pub providers: BTreeMap<String, Provider>,
}

impl Settings {
    /// Refuses what this build cannot do.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.providers.values().any(|it| it.audience == it.client_id && !it.audience.is_empty()) {
            return Err(
                "auth.providers: an audience that is the client_id would let in who has only logged in",
            );
        }
        if self.providers.is_empty() || cfg!(feature = "oidc") {
            return Ok(());
        }
        Err("auth.providers: this build has no log-in by others: build it with the feature oidc")
    }
}

/// The section `auth.sessions`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// How long a session lasts that is not used.
    pub idle: Span<MINUTE, { 400 * DAY }>,
    /// How long it lasts at most.
    pub absolute: Span<MINUTE, { 400 * DAY }>,
    /// How often its use is noted in the store.
    pub touch: Span<0, DAY>,
    /// How long a log-in counts as recent.
    pub recent: Span<SECOND, DAY>,
    /// How often the session or the token of an open WebSocket is looked at.
    pub watch: Span<100, DAY>,
}

/// The section `auth.passwords`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Passwords {
    /// The fewest characters of a new password.
    pub min_length: Count<8, 128>,
    /// The memory of one hash.
    pub memory: Size<{ 7 * MIB }, { 1_024 * MIB }>,
    /// The passes over the memory.
    pub passes: Count<1, 100>,
    /// The most hashes that are computed at the same time; 0 is one per core.
    pub at_once: Count<0, 1_024>,
}

/// The section `auth.throttles`: attempts to log in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Throttles {
    /// Attempts for one account from one network, or from a device on which its owner has logged in.
    pub account_and_network: Attempts,
    /// Attempts from one network, for all accounts.
    pub network: Attempts,
    /// Attempts for one account, from all networks.
    pub account: Attempts,
}

/// How many attempts there may be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Attempts {
    /// The attempts that may come at once.
    pub burst: Count<1, 1_000_000>,
    /// After that, one in this time.
    pub every: Span<1, DAY>,
}

/// A provider of OpenID Connect, below `auth.providers`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its URL, exactly as its tokens have it.
    pub issuer: String,
    /// What it calls this server.
    pub client_id: String,
    /// What this server proves itself with.
    pub client_secret: Secret,
    /// What its tokens for programs are for; those that are for something else are refused. Empty: it gives none.
    #[serde(default)]
    pub audience: String,
    /// The signatures that its tokens may have.
    #[serde(default = "common")]
    pub algorithms: Vec<Signature>,
}

/// What every provider has to support (OpenID Connect Core 1.0, section 15.1).
fn common() -> Vec<Signature> {
    vec![Signature::RS256]
}

/// An algorithm of signatures with a public key (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Signature {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The settings that a test starts from.
#[cfg(test)]
pub(super) fn of_test() -> Settings {
    serde_json::from_value(serde_json::json!({
        "keys": "", "key_file": "", "link_time": "1h",
        "sessions": {"idle": "7d", "absolute": "30d", "touch": "5m", "recent": "15m", "watch": "30s"},
        "passwords": {"min_length": 15, "memory": "19MiB", "passes": 2, "at_once": 0},
        "throttles": {
            "account_and_network": {"burst": 10, "every": "1m"},
            "network": {"burst": 100, "every": "2s"},
            "account": {"burst": 100, "every": "1m"}
        },
        "providers": {}
    }))
    .unwrap()
}
