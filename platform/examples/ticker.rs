//! A server with a job each second that runs in one process, and one that runs in all. Each run appends its time and its
//! process to a file, which is its effect. `tests/suite/proofs/ticks.rs` starts it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use platform::App;
use platform::config::{Defaults, Service};
use platform::error::{Error, Result};
use platform::http::Routes;
use platform::scheduler::{Job, Run, every};
use platform::services::Services;
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "ticker.yaml", text: "app: {effects: effects}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What the names of the two files begin with.
    effects: String,
}

fn main() -> ExitCode {
    let second = || every(Duration::from_secs(1));
    let init = async |_: Services, settings: Settings| Ok(settings.effects);
    let app = App::new(init, |_: &Settings| Routes::new())
        .job(Job::new("guarded", second(), async |path, run| append(path, "guarded", &run)).single_process())
        .job(Job::new("unguarded", second(), async |path, run| append(path, "unguarded", &run)));
    platform::main(&SERVICE, app)
}

/// One short write at the end of a file is whole, also when several processes append.
fn append(path: String, job: &str, run: &Run) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(format!("{path}.{job}"));
    let line = format!("{} {}\n", run.tick().as_second(), std::process::id());
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(Error::internal)
}
