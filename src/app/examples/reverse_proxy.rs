//! `/proxy/…`: passes requests on to another service, as they come.

use std::time::Duration;

use platform::connector::Upstream;
use platform::http::{Route, Routes};

use crate::app::AppState;

/// The largest body that is passed on, 1 GiB: it is never in memory as a whole.
const BODY_LIMIT: u64 = 1 << 30;

/// How long a response may be waited for, ten minutes: a large body is on its way for long. The upstream's silence is
/// bounded by its `forward.idle_timeout`.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    let route = Route::forward::<Behind>("/proxy").body_limit(BODY_LIMIT).timeout(TIMEOUT);
    Routes::new().route(route)
}

/// The upstream `upstreams.reverse_proxy`.
struct Behind;

impl Upstream for Behind {
    const NAME: &'static str = "reverse_proxy";
}
