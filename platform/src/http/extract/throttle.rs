//! [`Route::throttle`] and [`Route::throttle_callers`]: limits of a route that are counted in the store.

use axum::extract::FromRef;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;

use super::caller;
use crate::auth::{Account, Key, Limit};
use crate::error::Result;
use crate::http::request::context;
use crate::http::routing::route::Route;
use crate::network::Network;
use crate::services::Services;

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
            match take(&parts, &Services::from_ref(&state), limit, None).await {
                Ok(()) => Ok(parts),
                Err(refusal) => Err(refusal.into_response()),
            }
        })
    }

    /// How many requests one user may send to this route, on all of their devices and with all of their tokens, counted as
    /// [`Route::throttle`] does. Who is not known counts by their address.
    pub fn throttle_callers<U: Account>(self, limit: Limit) -> Self {
        self.check_first(move |mut parts, state| async move {
            let counted = async {
                let user = caller::known::<U, S>(&mut parts, &state).await?;
                let user = user.as_ref().map(|known| known.id());
                take(&parts, &Services::from_ref(&state), limit, user).await
            };
            match counted.await {
                Ok(()) => Ok(parts),
                Err(refusal) => Err(refusal.into_response()),
            }
        })
    }
}

/// Counts a request, for this user or for its client.
async fn take(parts: &Parts, services: &Services, limit: Limit, user: Option<&str>) -> Result<()> {
    let context = context::of(parts)?;
    let route = context.route().map_or("", |route| &route.template);
    // A request that came through no socket has no address: all of them are one client.
    let network = context.client().map(|client| Network::of(client).to_string()).unwrap_or_default();
    let (purpose, whom) = user.map_or(("route", network.as_str()), |user| ("route of callers", user));
    // With its limit: two limits of one route are two throttles.
    services.throttles().take(&Key::new(purpose, &[route, &limit.to_string(), whom]), limit).await
}
