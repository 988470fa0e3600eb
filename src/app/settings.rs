//! Section `app` of the configuration: the settings of your own code.

use serde::{Deserialize, Serialize};

/// Add a field here and its default, with a comment, under `app:` in `configs/default.yaml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}
