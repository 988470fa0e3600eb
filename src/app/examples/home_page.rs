//! `/`: an HTML page, with a stylesheet whose URL carries its version.

use askama::Template;
use axum::http::Method;

use crate::app::AppState;
use platform::http::{Context, Html, Route, RouteInfo, Routes, State};
use platform::services::Services;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/").get(show))
}

#[derive(Template)]
#[template(path = "home_page.html")]
struct HomePage {
    name: String,
    version: &'static str,
    stylesheet: String,
    routes: Vec<RouteLine>,
}

struct RouteLine {
    methods: String,
    path: String,
}

async fn show(State(services): State<Services>, context: Context) -> Html<HomePage> {
    let line = |route: &RouteInfo| RouteLine {
        methods: route.methods().map(Method::as_str).collect::<Vec<_>>().join(" "),
        path: route.template.clone(),
    };
    Html(HomePage {
        name: services.name().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        stylesheet: services.assets().url("home_page.css"),
        routes: context.routes().iter().map(line).collect(),
    })
}
