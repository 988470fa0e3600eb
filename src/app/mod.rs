//! YOURS: what this server does. One wiring function, one settings struct, and a slice for each resource.

pub mod accounts; // example: accounts
pub mod examples; // examples
pub mod settings;

use axum::extract::FromRef;

use platform::App;
use platform::error::StartError;
use platform::http::{Routes, assets, health};
use platform::services::Services;
use settings::Settings;

/// What handlers can ask for. Add a field for what your handlers share; `FromRef` makes it an extractor.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The infrastructure.
    pub services: Services,
    /// Section `app` of the configuration.
    pub settings: Settings,
}

/// The app: its state, its routes, and what runs beside them (`.job(…)`, `.task(…)`, `.layer(…)`, `.command(…)`).
pub fn app() -> App<Settings, AppState> {
    App::new(init, routes)
        // Your jobs, one line each.
        .jobs(examples::timekeeper::jobs()) // example: timekeeper
}

/// Makes the state, once, before the server listens: connect here to what the app needs. An error stops the start.
async fn init(services: Services, settings: Settings) -> Result<AppState, StartError> {
    Ok(AppState { services, settings })
}

/// Every slice adds its routes here.
fn routes(_settings: &Settings) -> Routes<AppState> {
    let slices = [
        health::routes(),
        assets(),
        // Your slices, one line each.
        accounts::routes(),                   // example: accounts
        examples::address_book::routes(),     // example: address_book
        examples::blog::routes(),             // example: blog
        examples::cached_record::routes(),    // example: cached_record
        examples::client_flow::routes(),      // example: client_flow
        examples::cors_demo::routes(),        // example: cors_demo
        examples::dependency_pings::routes(), // example: dependency_pings
        examples::home_page::routes(),        // example: home_page
        examples::locking::routes(),          // example: locking
        examples::named_document::routes(),   // example: named_document
        examples::resources::routes(),        // example: resources
        examples::reverse_proxy::routes(),    // example: reverse_proxy
        examples::sales_report::routes(),     // example: sales_report
        examples::todo_list::routes(),        // example: todo_list
        examples::weather_report::routes(),   // example: weather_report
    ];
    slices.into_iter().fold(Routes::new(), Routes::merge)
}
