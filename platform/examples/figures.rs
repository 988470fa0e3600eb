//! A server that counts something of every kind. `tests/suite/figures.rs` starts it and reads its `/metrics`.

use std::process::ExitCode;
use std::time::Duration;

use platform::App;
use platform::cache::Cache;
use platform::config::{Defaults, Service};
use platform::connector::Upstream;
use platform::error::{Error, Result};
use platform::http::{ConnectorTo, NoContent, Path, Route, Routes, health};
use platform::lock::{LockManager, Wait};
use platform::scheduler::{Job, Run, after};
use platform::services::Services;
use platform::store::{Dao, Entity};
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    // Nothing listens on port 9: each call is refused, and tried again.
    defaults: Defaults {
        name: "figures.yaml",
        text: "app: {}\nupstreams: {nobody: {url: \"http://127.0.0.1:9\", attempts: 2}}",
    },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

#[derive(Deserialize, Serialize)]
struct Entry {
    n: u64,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "entries";
}

struct Nobody;

impl Upstream for Nobody {
    const NAME: &'static str = "nobody";
}

fn main() -> ExitCode {
    let fails = async |_: Services, _: Run| Err(Error::not_found("Nothing To Do"));
    let app = App::new(async |services: Services, _| Ok(services), |_: &Settings| routes()).job(Job::new(
        "fails once",
        after(Duration::ZERO),
        fails,
    ));
    platform::main(&SERVICE, app)
}

fn routes() -> Routes<Services> {
    Routes::new()
        .merge(health::routes())
        .upstream::<Nobody>()
        .entity::<Entry>()
        .route(Route::at("/entries/{id}").put(put))
        .route(Route::at("/cached/{key}").get(cached))
        .route(Route::at("/locked/{name}").post(locked))
        .route(Route::at("/called").get(called))
        .route(Route::forward::<Nobody>("/forwarded"))
}

/// 409 for an id that is taken.
async fn put(entries: Dao<Entry>, Path(id): Path<String>) -> Result<NoContent> {
    entries.insert_with_id(&id, &Entry { n: 1 }).await?;
    Ok(NoContent)
}

/// A miss, then a hit.
async fn cached(cache: Cache, Path(key): Path<String>) -> Result<String> {
    cache.get_or_compute(&key, Duration::from_mins(1), async || Ok(1)).await.map(|n: u64| n.to_string())
}

/// A lock that is acquired, and a second time while it is held.
async fn locked(locks: LockManager, Path(name): Path<String>) -> Result<NoContent> {
    let _lease = locks.acquire(&name, Wait::No).await?;
    locks.acquire(&name, Wait::No).await?;
    Ok(NoContent)
}

async fn called(nobody: ConnectorTo<Nobody>) -> Result<NoContent> {
    nobody.get("/").send().await?;
    Ok(NoContent)
}
