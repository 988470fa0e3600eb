//! The two jobs of the original boilerplate: one that every process runs, and one that runs in a single process, however
//! many there are. They are off; `SERVER__APP__TIMEKEEPER__ENABLED=true` switches them on.

use std::time::Duration;

use platform::error::Result;
use platform::scheduler::{Job, Run, every};
use serde::{Deserialize, Serialize};

use crate::app::AppState;

/// The section `app.timekeeper` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether the jobs run.
    pub enabled: bool,
}

/// The jobs of the example.
pub fn jobs() -> [Job<AppState>; 2] {
    let second = || every(Duration::from_secs(1));
    let is_on = |state: &AppState| state.settings.timekeeper.enabled;
    [
        Job::new("example", second(), greet).only_if(is_on),
        Job::new("concurrent example", second(), greet).single_process().only_if(is_on),
    ]
}

async fn greet(state: AppState, run: Run) -> Result<()> {
    let (name, token) = (state.services.name(), run.fencing_token());
    tracing::info!(tick = %run.tick(), token, "{name} works");
    Ok(())
}
