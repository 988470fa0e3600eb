//! `/cors`: a route that pages of other sites may call. The others may not be: CORS is off unless a route asks.

use crate::app::AppState;
use platform::http::{Cors, Route, Routes};

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/cors").get(nothing).post(nothing).cors(Cors::any()))
}

async fn nothing() {}
