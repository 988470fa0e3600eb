//! A whole server on the platform alone: a background task, a subcommand, work at the end, a layer beside the log, and a route
//! whose values are unique.
//!
//! `cargo run -p platform --example worker -- --port 0` writes an entry every 10 ms until SIGTERM; `… -- count` says how
//! many there are. `tests/suite/tasks.rs`, `unique.rs` and `damaged.rs` start it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::FromRef;
use platform::App;
use platform::clap::Command;
use platform::config::{Defaults, Service};
use platform::error::{Error, Result, StartError};
use platform::http::{Created, Json, NoContent, Path, Route, Routes, health};
use platform::services::Services;
use platform::shutdown::Shutdown;
use platform::store::{Dao, Entity, Expected, Filter};
use serde::{Deserialize, Serialize};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "worker.yaml", text: "app: {trail: ''}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The file in which the layer beside the log writes a line for each event. Empty: there is no layer.
    trail: String,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    written_by: String,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "entries";
}

/// A seat that one guest has at most.
#[derive(Deserialize, Serialize)]
struct Seat {
    guest: String,
    place: Place,
}

#[derive(Deserialize, Serialize)]
struct Place {
    number: Option<u32>,
}

impl Entity for Seat {
    const COLLECTION: &'static str = "seats";
    const UNIQUE: &'static [&'static str] = &["place.number"];
}

fn main() -> ExitCode {
    let app = App::new(init, |_: &Settings| routes())
        .tracing_layer(|settings| (!settings.trail.is_empty()).then(|| Trail(settings.trail.clone())))
        .task("writer", write_until_shutdown)
        .on_shutdown(async |state| write(&state, "end").await)
        .command(Command::new("count").about("Count the entries"), async |state, _| {
            count(state.entries).await
        });
    platform::main(&SERVICE, app)
}

/// Writes the process and the level of each event of this program.
struct Trail(String);

impl<S: Subscriber> Layer<S> for Trail {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        let line = format!("{} {}\n", std::process::id(), event.metadata().level());
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("{}: {error}", self.0);
        }
    }
}

fn routes() -> Routes<State> {
    Routes::new()
        .merge(health::routes())
        .entity::<Seat>()
        .route(Route::at("/seats").get(guests).post(take_seat))
        .route(Route::at("/seats/{id}").delete(leave_seat))
}

async fn take_seat(seats: Dao<Seat>, Json(seat): Json<Seat>) -> Result<Created> {
    let id = seats.insert(&seat).await?;
    Ok(Created::at(format!("/seats/{id}")))
}

async fn guests(seats: Dao<Seat>) -> Result<Json<Vec<String>>> {
    let taken = seats.get_all(Filter::all()).await?;
    Ok(Json(taken.into_iter().map(|seat| seat.value.guest).collect()))
}

async fn leave_seat(seats: Dao<Seat>, Path(id): Path<String>) -> Result<NoContent> {
    if seats.delete(&id, Expected::Any).await? {
        Ok(NoContent)
    } else {
        Err(Error::not_found("No Such Seat"))
    }
}

async fn init(services: Services, _: Settings) -> Result<State, StartError> {
    tracing::debug!("below the level of the log");
    Ok(State { entries: services.dao(), services })
}

/// What the task, the end, the subcommand and the route use.
#[derive(Clone)]
struct State {
    entries: Dao<Entry>,
    services: Services,
}

impl FromRef<State> for Services {
    fn from_ref(state: &State) -> Self {
        state.services.clone()
    }
}

async fn write_until_shutdown(state: State, shutdown: Shutdown) {
    while !shutdown.has_begun() {
        write(&state, "task").await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = shutdown.begun() => {}
        }
    }
    // What was under way takes a while to finish.
    tokio::time::sleep(Duration::from_millis(100)).await;
    write(&state, "task, told to stop").await;
}

async fn write(state: &State, written_by: &str) {
    let entry = Entry { written_by: written_by.to_owned() };
    if let Err(error) = state.entries.insert(&entry).await {
        tracing::error!(%error, written_by, "cannot write an entry");
    }
}

#[expect(clippy::print_stdout, reason = "the number is the product of the subcommand")]
async fn count(entries: Dao<Entry>) -> Result<(), StartError> {
    println!("{}", entries.count(Filter::all()).await?);
    Ok(())
}
