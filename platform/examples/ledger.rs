//! A server on the platform alone, whose writes a test can account for after a crash. `tests/suite/proofs` and `scripts/chaos` start it.
//!
//! `cargo run -p platform --example ledger -- --port 0` serves entries; `… -- add COUNTER WAY TIMES [TOGETHER]` adds to a
//! counter, and `… -- total COUNTER` prints it. With `FAULT=early:20`, the creation of an entry is acknowledged 20 ms before
//! it is written: the control of the tests.

use std::process::ExitCode;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use platform::App;
use platform::clap::{Arg, ArgMatches, Command, value_parser};
use platform::config::{Defaults, Service};
use platform::error::{Error, Kind, Result, StartError};
use platform::http::{
    Changed, Created, Json, NoContent, Path, Precondition, Route, Routes, Versioned, assets, health,
};
use platform::lock::{Lease, LockManager, Wait};
use platform::services::Services;
use platform::store::{Dao, Entity, Expected, Filter, Patch, dao::new_id};
use serde::{Deserialize, Serialize};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "ledger.yaml", text: "app: {}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// What a test sends. The token names it, whatever its id is.
#[derive(Deserialize, Serialize)]
struct Entry {
    token: String,
    text: String,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "entries";
    const INDEXES: &'static [&'static str] = &["token"];
}

#[derive(Deserialize, Serialize)]
struct Counter {
    n: u64,
}

impl Entity for Counter {
    const COLLECTION: &'static str = "counters";
}

fn main() -> ExitCode {
    let counter = || Arg::new("counter").required(true);
    let app = App::new(async |services, _| Ok(services), |_: &Settings| routes())
        .command(
            Command::new("add").about("Add 1 to a counter, several times").args([
                counter(),
                Arg::new("way").required(true).value_parser(["modify", "patch", "blind"]),
                Arg::new("times").required(true).value_parser(value_parser!(u64)),
                // How many processes add: each waits for the others where a wrong way would be found out.
                Arg::new("together").default_value("1").value_parser(value_parser!(u64)),
            ]),
            add,
        )
        .command(Command::new("total").about("Print a counter").arg(counter()), total);
    platform::main(&SERVICE, app)
}

fn routes() -> Routes<Services> {
    Routes::new()
        .merge(health::routes())
        .merge(assets())
        .entity::<Entry>()
        .route(Route::at("/entries").get(list).post(create))
        .route(Route::at("/entries/{id}").get(read).put(put).delete(remove))
        .route(Route::at("/groups").post(create_all))
        .route(Route::at("/hold/{name}/{milliseconds}").post(hold))
}

/// An entry with its id and version, in a list.
#[derive(Serialize)]
struct Listed {
    id: String,
    version: u64,
    #[serde(flatten)]
    entry: Entry,
}

async fn list(entries: Dao<Entry>) -> Result<Json<Vec<Listed>>> {
    let all = entries.get_all(Filter::all()).await?;
    Ok(Json(
        all.into_iter()
            .map(|stored| Listed { id: stored.id, version: stored.version, entry: stored.value })
            .collect(),
    ))
}

async fn create(entries: Dao<Entry>, Json(entry): Json<Entry>) -> Result<Created> {
    let id = new_id();
    let created = Created::at(format!("/entries/{id}"));
    let fault = std::env::var("FAULT").unwrap_or_default();
    if let Some(time) = fault.strip_prefix("early:") {
        let time = time.parse().map_err(Error::internal)?;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(time)).await;
            entries.insert_with_id(&id, &entry).await
        });
        return Ok(created);
    }
    entries.insert_with_id(&id, &entry).await?;
    Ok(created)
}

async fn create_all(entries: Dao<Entry>, Json(group): Json<Vec<Entry>>) -> Result<Created> {
    entries.insert_many(&group).await?;
    Ok(Created::at("/entries"))
}

/// Holds a lock for a while; 409 when somebody has it.
async fn hold(locks: LockManager, Path((name, milliseconds)): Path<(String, u64)>) -> Result<NoContent> {
    let work = async |_: &Lease| {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(())
    };
    let held = locks.with_lock(&name, Wait::No, work).await?;
    held.map(|()| NoContent).ok_or_else(|| Error::conflict("Lock In Use"))
}

async fn read(entries: Dao<Entry>, Path(id): Path<String>) -> Result<Versioned<Entry>> {
    Ok(entries.get(&id).await?.ok_or_else(none)?.into())
}

async fn put(
    entries: Dao<Entry>,
    Path(id): Path<String>,
    precondition: Precondition,
    Json(entry): Json<Entry>,
) -> Result<Response> {
    if precondition.is_create_only() {
        precondition.apply(entries.insert_with_id(&id, &entry).await)?;
        return Ok(Created::at(format!("/entries/{id}")).into_response());
    }
    let replaced = entries.replace(&id, precondition.expected(), &entry).await;
    Ok(Changed::to(precondition.apply(replaced)?.ok_or_else(none)?).into_response())
}

async fn remove(
    entries: Dao<Entry>,
    Path(id): Path<String>,
    precondition: Precondition,
) -> Result<NoContent> {
    let removed = entries.delete(&id, precondition.expected()).await;
    if precondition.apply(removed)? { Ok(NoContent) } else { Err(none()) }
}

fn none() -> Error {
    Error::not_found("No Such Entry")
}

fn text<'a>(arguments: &'a ArgMatches, name: &str) -> &'a str {
    arguments.get_one::<String>(name).map_or("", String::as_str)
}

async fn add(services: Services, arguments: ArgMatches) -> Result<(), StartError> {
    let counters: Dao<Counter> = services.dao();
    let (counter, way) = (text(&arguments, "counter"), text(&arguments, "way"));
    match counters.insert_with_id(counter, &Counter { n: 0 }).await {
        // Another process was first.
        Err(error) if error.kind() == Kind::Conflict => {}
        created => drop(created?),
    }
    let missing = || StartError::failed("the counter is gone");
    let together = arguments.get_one::<u64>("together").copied().unwrap_or(1);
    if way != "blind" {
        meet(&counters, counter, together).await?;
    }
    for time in 0..arguments.get_one::<u64>("times").copied().unwrap_or(0) {
        match way {
            "modify" => {
                let added = counters.modify(counter, |counter| {
                    counter.n += 1;
                    Ok(())
                });
                added.await?.ok_or_else(missing)?;
            }
            "patch" => {
                let added = counters.update(counter, Expected::Any, Patch::new().add("n", 1));
                added.await?.ok_or_else(missing)?;
            }
            // The wrong way: another process may have written between the read and the write.
            _ => {
                let read = counters.get(counter).await?.ok_or_else(missing)?;
                let next = Counter { n: read.value.n + 1 };
                if time == 0 {
                    meet(&counters, counter, together).await?;
                }
                counters.replace(counter, Expected::Any, &next).await?.ok_or_else(missing)?;
            }
        }
    }
    Ok(())
}

/// Waits until so many processes are here.
async fn meet(counters: &Dao<Counter>, counter: &str, together: u64) -> Result<(), StartError> {
    let id = format!("here for {counter}");
    match counters.insert_with_id(&id, &Counter { n: 0 }).await {
        Err(error) if error.kind() == Kind::Conflict => {}
        created => drop(created?),
    }
    counters.update(&id, Expected::Any, Patch::new().add("n", 1)).await?;
    while counters.get(&id).await?.is_some_and(|here| here.value.n < together) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the number is the product of the subcommand")]
async fn total(services: Services, arguments: ArgMatches) -> Result<(), StartError> {
    let counters: Dao<Counter> = services.dao();
    let stored = counters.get(text(&arguments, "counter")).await?;
    println!("{}", stored.map_or(0, |stored| stored.value.n));
    Ok(())
}
