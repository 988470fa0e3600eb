//! What a request has to pass before anything is done for it: allowed hosts, the rate limit of its client, and the most
//! requests at a time. The probes pass always.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rate_limit::RateLimit;
use crate::error::{Error, Kind, Result};
use crate::http::request::context::Context;
use crate::http::routing::limits::Rate;
use crate::http::routing::routes::RouteTable;
use crate::http::settings::Settings;

/// When a client that was refused because the server is busy may come back, in seconds: clients wait longer by themselves.
const RETRY_AFTER: &str = "1";

/// The gate of all requests.
pub(crate) struct Gate {
    rate_limit: Option<RateLimit>,
    /// By the index of the route in the table.
    of_routes: Vec<Option<RateLimit>>,
    in_flight: Arc<AtomicU64>,
}

/// Counts a request as in flight until it is dropped.
pub(crate) struct Pass(Option<Arc<AtomicU64>>);

impl Gate {
    pub(crate) fn new(settings: &Settings, table: &RouteTable) -> Self {
        let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let (per_minute, burst) = (settings.rate_limit.get(), settings.rate_limit_burst.get());
        let all = Rate { per_minute: number(per_minute), burst: number(burst) };
        let limit = |rate| RateLimit::new(rate, settings.rate_limit_clients.as_usize());
        let of_routes = table.iter().map(|route| route.rate.and_then(limit)).collect();
        Self { rate_limit: limit(all), of_routes, in_flight: Arc::default() }
    }

    /// Lets a request through.
    ///
    /// # Errors
    ///
    /// 421 for a host that is not allowed; 429 and 503 with `Retry-After` for a client, or for a server, with too many
    /// requests.
    pub(crate) fn pass(&self, context: &Context, settings: &Settings) -> Result<Pass> {
        if context.route().is_some_and(|route| route.probe) {
            return Ok(Pass(None));
        }
        settings.allowed_hosts.check(context.info().host())?;
        if let Some(client) = context.client() {
            let of_route = context.info().route.and_then(|route| self.of_routes.get(route)?.as_ref());
            self.rate_limit.iter().chain(of_route).try_for_each(|limit| limit.check(client))?;
        }
        let pass = Pass(Some(Arc::clone(&self.in_flight)));
        if self.in_flight.fetch_add(1, Ordering::AcqRel) >= settings.max_in_flight.get() {
            let error = Error::new(Kind::Unavailable).with_reason("Too Many Requests In Flight");
            return Err(error.with_header("retry-after", RETRY_AFTER));
        }
        Ok(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.0 {
            in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
