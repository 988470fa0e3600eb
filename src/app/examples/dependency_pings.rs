//! `/pings`: asks all that this service depends on, at the same time, and says which of them are up: the store, the cache and
//! each upstream. The tutorial does so with `gen.multi`.

use std::collections::BTreeMap;

use platform::http::{Json, Route, Routes, State};
use platform::services::Services;

use crate::app::AppState;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/pings").get(read))
}

async fn read(State(services): State<Services>) -> Json<BTreeMap<String, &'static str>> {
    let (components, upstreams) = tokio::join!(services.check(), services.check_upstreams());
    let components = components.into_iter().map(|checked| (checked.name.to_owned(), checked.result));
    let state = |up| if up { "up" } else { "down" };
    Json(components.chain(upstreams).map(|(name, result)| (name, state(result.is_ok()))).collect())
}
