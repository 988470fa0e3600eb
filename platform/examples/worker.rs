//! A whole server on the platform alone: a background task, a subcommand, and work at the end.
//!
//! `cargo run -p platform --example worker -- --port 0` writes an entry every 10 ms until SIGTERM; `… -- count` says how
//! many there are. `tests/suite/tasks.rs` starts it.

use std::process::ExitCode;
use std::time::Duration;

use platform::App;
use platform::clap::Command;
use platform::config::{Defaults, Service};
use platform::error::StartError;
use platform::http::{Routes, health};
use platform::services::Services;
use platform::shutdown::Shutdown;
use platform::store::{Dao, Entity, Filter};
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "worker.yaml", text: "app: {}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

#[derive(Deserialize, Serialize)]
struct Entry {
    written_by: String,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "entries";
}

fn main() -> ExitCode {
    let app = App::new(init, |_: &Settings| Routes::new().merge(health::routes()))
        .task("writer", write_until_shutdown)
        .on_shutdown(async |entries| write(&entries, "end").await)
        .command(Command::new("count").about("Count the entries"), async |entries, _| count(entries).await);
    platform::main(&SERVICE, app)
}

async fn init(services: Services, _: Settings) -> Result<State, StartError> {
    Ok(services.dao())
}

/// What the task, the end and the subcommand use.
type State = Dao<Entry>;

async fn write_until_shutdown(entries: State, shutdown: Shutdown) {
    while !shutdown.has_begun() {
        write(&entries, "task").await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = shutdown.begun() => {}
        }
    }
    // What was under way takes a while to finish.
    tokio::time::sleep(Duration::from_millis(100)).await;
    write(&entries, "task, told to stop").await;
}

async fn write(entries: &State, written_by: &str) {
    let entry = Entry { written_by: written_by.to_owned() };
    if let Err(error) = entries.insert(&entry).await {
        tracing::error!(%error, written_by, "cannot write an entry");
    }
}

#[expect(clippy::print_stdout, reason = "the number is the product of the subcommand")]
async fn count(entries: State) -> Result<(), StartError> {
    println!("{}", entries.count(Filter::all()).await?);
    Ok(())
}
