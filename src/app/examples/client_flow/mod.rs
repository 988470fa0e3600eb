//! `/client`: the flow of a call to another service: handler, service, connector. The settings of the upstream, five
//! attempts half a second apart, are in `configs/default.yaml`.

mod connector;
mod handlers;
mod service;

use platform::http::{Route, Routes};

use crate::app::AppState;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().upstream::<connector::Flow>().route(Route::at("/client").get(handlers::read))
}
