//! A server with work of every kind in flight. `tests/suite/everything.rs` starts it.

use std::process::ExitCode;
use std::time::Duration;

use axum::body::Bytes;
use platform::App;
use platform::config::{Defaults, Service};
use platform::http::{Context, Route, Routes, WebSocketUpgrade, health};
use platform::lock::Wait;
use platform::scheduler::{Job, Run, every};
use platform::services::Services;
use platform::shutdown::Shutdown;
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "busy.yaml", text: "app: {}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

fn main() -> ExitCode {
    let job = Job::new("each second", every(Duration::from_secs(1)), async |_: Services, run: Run| {
        tracing::info!("a run has begun");
        run.shutdown().begun().await;
        tracing::info!("a run has ended");
        Ok(())
    });
    let app = App::new(async |services: Services, _| Ok(services), |_: &Settings| routes())
        .task("holder", async |services: Services, shutdown: Shutdown| {
            let name = format!("of {}", std::process::id());
            let lease = services.locks().acquire(&name, Wait::No).await;
            tracing::info!(held = matches!(lease, Ok(Some(_))), "the lock is taken");
            shutdown.begun().await;
        })
        .task("beside", async |_, shutdown: Shutdown| {
            shutdown.begun().await;
            tracing::info!("the task has ended");
        })
        .job(job);
    platform::main(&SERVICE, app)
}

fn routes() -> Routes<Services> {
    let slow = async || {
        tracing::info!("slow begins");
        tokio::time::sleep(Duration::from_secs(5)).await;
        tracing::info!("slow ends");
        "slow"
    };
    let spawning = async |context: Context| {
        let bare = tokio::spawn(async { tracing::info!("spawned") });
        let within = tokio::spawn(context.within(async { tracing::info!("spawned within") }));
        let _ = tokio::join!(bare, within);
    };
    let length = async |body: Bytes| body.len().to_string();
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    };
    Routes::new()
        .merge(health::routes())
        .route(Route::at("/slow").get(slow))
        .route(Route::at("/spawning").get(spawning))
        .route(Route::at("/length").post(length))
        .route(Route::at("/echo").get(echo))
}
