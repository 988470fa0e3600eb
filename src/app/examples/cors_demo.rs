//! `/cors`: a route that pages of other sites may call. CORS is off for every route that does not ask for it.

use crate::app::AppState;
use platform::http::{Cors, Route, Routes};

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/cors").get(nothing).post(nothing).cors(Cors::any()))
}

async fn nothing() {}
