//! `GET /ping`: the server is up and answers. It asks no dependency, and is left out of the log.

use super::route::Route;
use super::routes::Routes;

/// The route `/ping`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Routes<S> {
    Routes::new().route(Route::at("/ping").get(ping).unlogged())
}

async fn ping() {}
