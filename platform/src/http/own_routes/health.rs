//! `/ping` and `/live`: 200 when the server can respond; they ask no dependency. `/ready`: 200 when it should get requests.
//! None of them is logged, but for a `/ready` that fails before the server drains.

use axum::extract::{FromRef, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::http::extract::Json;
use crate::http::request::context::Context;
use crate::http::routing::route::Route;
use crate::http::routing::routes::Routes;
use crate::services::{Checked, Services};
use crate::shutdown::Shutdown;

/// The routes `/ping`, `/live` and `/ready`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Routes<S>
where
    Services: FromRef<S>,
{
    Routes::new()
        .route(Route::at("/ping").get(ping).unlogged().probe())
        .route(Route::at("/live").get(ping).unlogged().probe())
        .route(Route::at("/ready").get(ready).unlogged().probe())
}

async fn ping() {}

/// 503 while a component that `health.required` names does not respond, and from the signal on that ends the server: so
/// a load balancer stops to send requests while they are still accepted.
async fn ready(
    State(services): State<Services>,
    shutdown: Shutdown,
    context: Context,
    headers: HeaderMap,
) -> Response {
    let (status, checked) = if shutdown.is_announced() {
        ("draining", Vec::new())
    } else {
        let checked = services.check().await;
        let is_ready = checked.iter().all(|one| one.result.is_ok() || !one.is_required);
        (if is_ready { "ready" } else { "not ready" }, checked)
    };
    for failed in checked.iter().filter(|one| one.is_required) {
        if let Err(error) = &failed.result {
            context.log(failed.name, error.cause());
        }
    }
    let mut body = json!({ "status": status });
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if services.health().token.is_bearer(authorization) {
        body["components"] = checked.iter().map(describe).collect::<Map<String, Value>>().into();
    }
    let status = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status != StatusCode::OK {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn describe(checked: &Checked) -> (String, Value) {
    let state = match &checked.result {
        Ok(()) => json!({ "responds": true, "required": checked.is_required }),
        Err(error) => json!({ "responds": false, "required": checked.is_required, "cause": error.cause() }),
    };
    (checked.name.to_owned(), state)
}
