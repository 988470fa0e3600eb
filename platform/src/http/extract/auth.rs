//! What handlers take of people who log in: throttles and API tokens. And [`Route::throttle`].

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::response::IntoResponse as _;

use crate::auth::{ApiTokens, Key, Limit, Throttles};
use crate::error::{Error, Result};
use crate::http::request::context;
use crate::http::routing::route::Route;
use crate::network::Network;
use crate::services::Services;

impl<S: Sync> FromRequestParts<S> for Throttles
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).throttles())
    }
}

impl<S: Sync> FromRequestParts<S> for ApiTokens
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).api_tokens())
    }
}

impl<S: Clone + Send + Sync + 'static> Route<S>
where
    Services: FromRef<S>,
{
    /// How many requests one client (an address of IPv4, 64 bits of IPv6) may send to this route, counted in the store for all
    /// processes and machines. One more gets 429 with `Retry-After`, before any handler. It costs a read and a write of the
    /// store for each request, and where the store is down, the route is 503: for what is dangerous, such as a route that sends
    /// mails. [`Route::rate_limit`] costs nothing of that.
    pub fn throttle(self, limit: Limit) -> Self {
        self.check_first(move |parts, state| async move {
            match throttled(&parts, &Services::from_ref(&state), limit).await {
                Ok(()) => Ok(parts),
                Err(refusal) => Err(refusal.into_response()),
            }
        })
    }
}

async fn throttled(parts: &Parts, services: &Services, limit: Limit) -> Result<()> {
    let context = context::of(parts)?;
    let route = context.route().map_or("", |route| &route.template);
    // A request that came through no socket has no address: all of them are one client.
    let network = context.client().map(|client| Network::of(client).to_string()).unwrap_or_default();
    // With its limit: two limits of one route are two throttles.
    services.throttles().take(&Key::new("route", &[route, &limit.to_string(), &network]), limit).await
}
