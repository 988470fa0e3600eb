//! The extractor of the way to another service. It takes what the calls need of the request at hand: its id, its trace, its
//! time, and its line in the log.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::connector::{Connector, IncomingRequest, TunnelBounds, Upstream};
use crate::error::{Error, Result};
use crate::http::request::context;
use crate::http::request::request_headers::joined;
use crate::http::request::request_id::REQUEST_ID;
use crate::http::request::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use crate::services::Services;

/// The way to the upstream `U`, for one request: a [`Connector`] whose calls carry the request's id and trace, end before
/// its time is over, and are counted in its log line (`out_n`, `out_ms`, `out_retries`).
///
/// [`Routes::upstream`](crate::http::Routes::upstream) makes an upstream that the configuration does not have an error at the
/// start; without it, it is a 500.
pub struct ConnectorTo<U>(Connector, PhantomData<fn() -> U>);

impl<U> Deref for ConnectorTo<U> {
    type Target = Connector;

    fn deref(&self) -> &Connector {
        &self.0
    }
}

impl<U> Debug for ConnectorTo<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectorTo({})", self.0.name())
    }
}

impl<U: Upstream, S: Sync> FromRequestParts<S> for ConnectorTo<U>
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let connector = Services::from_ref(state).connector(U::NAME).map_err(Error::internal)?;
        Ok(Self(connector.for_request(incoming(parts)?), PhantomData))
    }
}

/// What the calls of this request need of it.
fn incoming(parts: &Parts) -> Result<IncomingRequest> {
    let context = context::of(parts)?;
    let mut headers = HeaderMap::new();
    headers.insert(REQUEST_ID, context.info().id.to_header());
    if let Some(parent) = &context.info().trace {
        headers.insert(TRACEPARENT, parent.header().clone());
        // A list, which may be in several lines.
        if context.info().continues_a_trace()
            && let Some(state) = joined(parts.headers.get_all(TRACESTATE).iter(), ", ")
        {
            headers.insert(TRACESTATE, state);
        }
    } else if let Some(begun) = TraceParent::begin(context.request_id()) {
        headers.insert(TRACEPARENT, begun);
    }
    Ok(IncomingRequest {
        headers,
        request_id: context.request_id().to_owned(),
        deadline: Some(context.deadline().into()),
        tunnel: TunnelBounds {
            idle: context.upgrade_idle_timeout(),
            deadline: context.shutdown().deadline(),
        },
        tally: context.tally(),
    })
}
