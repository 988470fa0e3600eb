//! The section `server.workers`. `defaults/server.yaml` explains each key.

use serde::{Deserialize, Serialize};

use crate::setting::{Count, Span};

/// What the supervisor of several processes tolerates.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a worker may need until it serves.
    pub start_timeout: Span<1_000, 3_600_000>,
    /// How long nothing may be heard of a worker; it sends a byte each second.
    pub hang_timeout: Span<2_000, 3_600_000>,
    /// How many times in the window a worker may die at its start.
    pub crash_limit: Count<1, 1_000>,
    /// The window.
    pub crash_window: Span<1_000, 3_600_000>,
}
