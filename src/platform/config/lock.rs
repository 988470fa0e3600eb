//! The settings of the section `lock`, until the room `lock` owns them.

use serde::{Deserialize, Serialize};

use super::server::Host;
use crate::platform::setting::Count;

/// The section `lock`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Locks are kept by an etcd server.
    pub server: bool,
    /// Where that server is.
    pub host: Host,
    /// Its port.
    pub port: Count<1, 65_535>,
}
