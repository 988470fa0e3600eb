//! The settings of the locks. It connects to nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::secret::Secret;
use crate::setting::{Count, Host, Span};

/// The section `lock` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether an etcd server keeps the locks; else they are files.
    pub server: bool,
    /// The host of the etcd server.
    pub host: Host,
    /// The port of the etcd server.
    pub port: Count<1, 65_535>,
    /// The folder of the lock files.
    pub dir: PathBuf,
    /// The longest time that the folder or the lock server may take to respond.
    pub timeout: Span<10, 60_000>,
    /// What only etcd has.
    pub etcd: EtcdSettings,
}

/// The section `lock.etcd`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// The members of a cluster, instead of `lock.host` and `lock.port`.
    pub endpoints: Vec<String>,
    /// The user; empty: none.
    pub user: String,
    /// The password of the user.
    pub password: Secret,
    /// What every key begins with.
    pub prefix: String,
    /// How long the lock of a holder that has died stays.
    pub time_to_live: Span<2_000, 3_600_000>,
    /// TLS to the server.
    pub tls: TlsSettings,
}

/// The section `lock.etcd.tls`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Whether `lock.host` is spoken to with TLS.
    pub enabled: bool,
    /// The certificate of the authority, a PEM file; empty: those of the operating system.
    pub ca: PathBuf,
    /// The client's own certificate, a PEM file; empty: none.
    pub certificate: PathBuf,
    /// The private key of that certificate, a PEM file.
    pub key: PathBuf,
}

impl Settings {
    /// Refuses a lock server that this build has no client for.
    pub fn check(&self) -> Result<(), StartError> {
        if self.server && !cfg!(feature = "etcd") {
            return Err(StartError::config(
                "lock.server: etcd is not in this build; `make run FEATURES=etcd` has it",
            ));
        }
        Ok(())
    }
}
