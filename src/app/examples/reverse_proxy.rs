//! `/proxy/…`: passes requests on to another service, as they come.

use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use platform::connector::Upstream;
use platform::error::Result;
use platform::http::{ConnectorTo, Route, Routes};

use crate::app::AppState;

/// The path below which everything is passed on.
const PREFIX: &str = "/proxy";

/// The largest body that is passed on, 1 GiB: it is never in memory as a whole.
const BODY_LIMIT: u64 = 1 << 30;

/// How long a response may be waited for, ten minutes: a large body is on its way for long. The upstream's silence is
/// bounded by its `attempt_timeout`.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    let route = Route::at("/proxy/{*path}").any(pass).as_sent().body_limit(BODY_LIMIT).timeout(TIMEOUT);
    Routes::new().upstream::<Behind>().route(route)
}

/// The upstream `upstreams.reverse_proxy`.
struct Behind;

impl Upstream for Behind {
    const NAME: &'static str = "reverse_proxy";
}

async fn pass(behind: ConnectorTo<Behind>, request: Request) -> Result<Response> {
    behind.forward(request, PREFIX).await
}
