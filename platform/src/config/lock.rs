//! The settings of the section `lock`. They move to the part of the platform that takes locks, once there is one.

use serde::{Deserialize, Serialize};

use crate::setting::{Count, Host};

/// The section `lock`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether an etcd server keeps the locks.
    pub server: bool,
    /// The host of the etcd server.
    pub host: Host,
    /// The port of the etcd server.
    pub port: Count<1, 65_535>,
}
