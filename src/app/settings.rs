//! Section `app` of the configuration: the settings of your own code.

use serde::{Deserialize, Serialize};

/// Add a field here and its default, with a comment, under `app:` in `configs/default.yaml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The example of a lock. // example: locking
    pub locking: super::examples::locking::Settings, // example: locking
    /// The example of jobs. // example: timekeeper
    pub timekeeper: super::examples::timekeeper::Settings, // example: timekeeper
}
