//! `/locking/{name}`: holds a lock while it works, as the original boilerplate does. Who comes meanwhile is refused at once.
//!
//! The lock is released however the work ends: also when it fails, takes too long, or the client goes away.

use axum::extract::State;
use platform::error::{Error, Result};
use platform::http::{Json, Path, Route, Routes};
use platform::lock::{Lease, LockManager, Wait};
use platform::setting::Span;
use serde::{Deserialize, Serialize};

use crate::app::AppState;

/// The section `app.locking` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long the work takes.
    pub hold: Span<1, 60_000>,
}

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/locking/{name}").get(work))
}

/// What the original answers.
#[derive(Serialize)]
struct Done {
    #[serde(rename = "aLock")]
    lock: String,
}

async fn work(
    locks: LockManager,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Done>> {
    let work = async |_: &Lease| {
        tokio::time::sleep(state.settings.locking.hold.get()).await;
        Ok(())
    };
    match locks.with_lock(&name, Wait::No, work).await? {
        Some(()) => Ok(Json(Done { lock: name })),
        None => Err(Error::conflict("Lock In Use")
            .with_message(format!("Lock id {name} is currently being used. Please try later."))),
    }
}
