//! How long requests take, counted by route, method and status. What is counted is looked up once for each of them, so that a
//! request costs a look at a short list and two additions.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use axum::http::Method;
use metrics::{Gauge, Histogram};

use crate::connector::method_name;
use crate::http::routing::routes::RouteTable;

/// The route of a request that has none.
const UNMATCHED: &str = "unmatched";

/// The figures of all requests.
pub(crate) struct Measures {
    /// By the index of the route in the table; the last one is that of requests without a route.
    routes: Vec<Slots>,
    active: Gauge,
}

struct Slots {
    template: String,
    by_status: RwLock<Vec<(&'static str, u16, Histogram)>>,
}

impl Measures {
    pub(crate) fn new(table: &RouteTable) -> Self {
        let templates = table.iter().map(|route| route.template.clone());
        let slots = |template| Slots { template, by_status: RwLock::default() };
        let routes = templates.chain([UNMATCHED.to_owned()]).map(slots).collect();
        Self { routes, active: metrics::gauge!("http_server_active_requests") }
    }

    pub(crate) fn begin(&self) {
        self.active.increment(1);
    }

    pub(crate) fn end(&self, route: Option<usize>, method: &Method, status: u16, took: Duration) {
        self.active.decrement(1);
        let slots = route.and_then(|route| self.routes.get(route)).or(self.routes.last());
        if let Some(slots) = slots {
            slots.record(method, status, took);
        }
    }
}

impl Slots {
    fn record(&self, method: &Method, status: u16, took: Duration) {
        let method = method_name(method);
        let find = |all: &[(&'static str, u16, Histogram)]| {
            let found = all.iter().find(|(of, at, _)| (*of, *at) == (method, status));
            found.map(|(.., histogram)| histogram.record(took)).is_some()
        };
        if find(&self.by_status.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let histogram = metrics::histogram!(
            "http_server_request_duration_seconds",
            "http_request_method" => method,
            "http_response_status_code" => status.to_string(),
            "http_route" => self.template.clone()
        );
        histogram.record(took);
        let mut all = self.by_status.write().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().any(|(of, at, _)| (*of, *at) == (method, status)) {
            all.push((method, status, histogram));
        }
    }
}
