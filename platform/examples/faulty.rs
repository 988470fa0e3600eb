//! A server whose own parts never end, or panic: `FAULT` names the one. `tests/suite/tasks.rs` starts it.

use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use platform::App;
use platform::clap::Command;
use platform::config::{Defaults, Service};
use platform::error::StartError;
use platform::http::{Routes, health};
use platform::services::Services;
use platform::shutdown::Shutdown;
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "faulty.yaml", text: "app: {}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

fn main() -> ExitCode {
    let app = App::new(init, |_: &Settings| Routes::new().merge(health::routes()))
        .task("beside", beside)
        .on_shutdown(first_end)
        .on_shutdown(async |_| tracing::info!("the second end"))
        .command(Command::new("check"), async |_, _| {
            tracing::error!("checked");
            Ok(())
        });
    platform::main(&SERVICE, app)
}

fn is(fault: &str) -> bool {
    std::env::var("FAULT").is_ok_and(|asked| asked == fault)
}

async fn init(services: Services, _: Settings) -> Result<Services, StartError> {
    if is("init blocks") {
        tracing::info!("init blocks");
        std::thread::sleep(Duration::from_hours(1));
    }
    if is("init waits") {
        tracing::info!("init waits");
        pending::<()>().await;
    }
    Ok(services)
}

async fn beside(_: Services, shutdown: Shutdown) {
    assert!(!is("task panics"), "the task");
    if is("task blocks") {
        std::thread::sleep(Duration::from_hours(1));
    }
    if is("all threads block") {
        for _ in 0..1_000 {
            tokio::spawn(async { std::thread::sleep(Duration::from_hours(1)) });
        }
        std::thread::sleep(Duration::from_hours(1));
    }
    if !is("task ends") {
        shutdown.begun().await;
    }
}

async fn first_end(_: Services) {
    assert!(!is("end panics"), "the end");
    if is("end waits") {
        pending::<()>().await;
    }
    if is("end blocks") {
        std::thread::sleep(Duration::from_hours(1));
    }
}
