//! A handler without its type, called as axum's router would call it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::handler::Handler;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode, Uri};
use axum::response::Response;
use axum::routing::any;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Body as _;
use tower::{Service as _, ServiceExt as _};

use super::layer::{Inner, SharedLayer};

/// What the middleware calls.
pub(crate) struct Endpoint {
    /// What axum's router would add to the extensions of each request.
    router_extensions: Extensions,
    call: Call,
}

/// What is asked before a handler: the head of the request, to go on, or a response.
pub(crate) type Check<S> = Arc<dyn Fn(Parts, S) -> BoxFuture<'static, Result<Parts, Response>> + Send + Sync>;

pub(crate) type Call = Box<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

impl Endpoint {
    /// A handler of a path in all its spellings, behind layers. They get the request from the router, so that they see
    /// the parameters of the path too.
    pub(crate) fn new<T, S>(
        paths: Vec<String>,
        handler: impl Handler<T, S>,
        state: S,
        layers: &[SharedLayer],
    ) -> Self
    where
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        if layers.is_empty() {
            return Self::of_handler(paths, handler, state);
        }
        let inner: Inner = Arc::new(move |request| handler.clone().call(request, state.clone()).boxed());
        let layered = layers.iter().fold(inner, |inner, layer| layer.wrap(inner));
        Self::of_handler(paths, move |request: Request| layered(request), ())
    }

    /// axum's router itself is needed for a path with parameters, which are of a private type. For every other path it
    /// would add the same extensions to each request: they are made once, which saves a ninth of a small request
    /// (docs/PERFORMANCE.md).
    fn of_handler<T, S>(paths: Vec<String>, handler: impl Handler<T, S>, state: S) -> Self
    where
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        if let Some(path) = paths.first().filter(|_| !paths.iter().any(|path| path.contains('{'))) {
            let call: Call = Box::new(move |request| Box::pin(handler.clone().call(request, state.clone())));
            return Self { router_extensions: router_extensions(path), call };
        }
        let route = |router: Router<S>, path: String| router.route(&path, any(handler.clone()));
        let router = paths.into_iter().fold(Router::new(), route).with_state(state);
        // The length in a response of an upstream is its own, also that of the body that HEAD does not get.
        Self::of_router(router, |response| {
            response.body().size_hint().exact().is_some() && response.extensions().get::<Relayed>().is_none()
        })
    }

    /// A whole axum router behind layers, as an endpoint for every path that it knows.
    pub(crate) fn mounted(router: Router, layers: &[SharedLayer]) -> Self {
        let mounted = Self::of_router(router, |response| {
            matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        });
        if layers.is_empty() {
            return mounted;
        }
        let inner: Inner = Arc::new(move |request| mounted.call(request, |_| ()));
        let layered = layers.iter().fold(inner, |inner, layer| layer.wrap(inner));
        Self::from_call(Box::new(move |request| layered(request)))
    }

    /// axum's router gives a response without a body a length too, a 204 among them, which must have none (RFC 9110,
    /// section 8.6). hyper adds the length by itself where it is known.
    fn of_router(router: Router, drop_length: fn(&Response) -> bool) -> Self {
        Self::from_call(Box::new(move |request| {
            let responding = router.clone().call(request);
            Box::pin(async move {
                let Ok(mut response) = responding.await;
                if drop_length(&response) {
                    response.headers_mut().remove(CONTENT_LENGTH);
                }
                response
            })
        }))
    }

    /// The endpoint behind a check.
    pub(crate) fn behind<S: Clone + Send + Sync + 'static>(self, check: &Check<S>, state: &S) -> Self {
        let (inner, check, state) = (Arc::new(self), Arc::clone(check), state.clone());
        Self::from_call(Box::new(move |request| {
            let (parts, body) = request.into_parts();
            let (checking, inner) = (check(parts, state.clone()), Arc::clone(&inner));
            Box::pin(async move {
                match checking.await {
                    Ok(parts) => inner.call(Request::from_parts(parts, body), |_| ()).await,
                    Err(refusal) => refusal,
                }
            })
        }))
    }

    fn from_call(call: Call) -> Self {
        Self { router_extensions: Extensions::new(), call }
    }

    /// Calls the handler. `extend` adds the extensions of this request.
    pub(crate) fn call(
        &self,
        mut request: Request,
        extend: impl FnOnce(&mut Extensions),
    ) -> BoxFuture<'static, Response> {
        // In this order: most requests have no extensions yet, and then the map is cloned as a whole.
        request.extensions_mut().extend(self.router_extensions.clone());
        extend(request.extensions_mut());
        (self.call)(request)
    }
}

/// What axum's router adds for its extractors when this path, which has no parameters, is asked for. The original URI
/// is not among it: that has the query of each request, and its extractor reads the request itself where it is missing.
fn router_extensions(path: &str) -> Extensions {
    let copy = async |request: Request| {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().extend(request.into_parts().0.extensions);
        response
    };
    let mut request: Request = Request::default();
    *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
    let response = Router::new().route(path, any(copy)).oneshot(request).now_or_never();
    let mut extensions = match response {
        Some(Ok(response)) => response.into_parts().0.extensions,
        None => Extensions::new(),
    };
    extensions.remove::<OriginalUri>();
    extensions
}

/// In the extensions of a response that an upstream has made: the middleware changes neither body, nor length, nor error.
#[derive(Clone, Copy)]
pub(crate) struct Relayed;
