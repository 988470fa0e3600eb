//! `GET /ping`: 200 when the server can respond. It checks no dependency, and is not logged.

use super::route::Route;
use super::routes::Routes;

/// The route `/ping`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Routes<S> {
    Routes::new().route(Route::at("/ping").get(ping).unlogged())
}

async fn ping() {}
