//! tower layers around endpoints: each is built once, at start, so that it keeps its state between requests.
//!
//! axum builds the layer of a handler (`handler.layer(…)`) anew for each request: a limit there limits nothing.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context as Task, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt as _};

use super::endpoint::Endpoint;
use crate::error::Error;

/// A layer for any number of endpoints, built when it is first needed: some layers start a task, and a description of
/// routes exists before there is a runtime. A clone is one more handle on the same.
#[derive(Clone)]
pub(super) struct SharedLayer(Arc<LazyLock<BuiltLayer, Build>>);

type BuiltLayer = BoxCloneSyncService<Request, Response, BoxError>;
type Build = Box<dyn FnOnce() -> BuiltLayer + Send>;

/// What the layer wraps: one request's way to its handler.
pub(super) type Inner = Box<dyn FnOnce(Request) -> BoxFuture<'static, Response> + Send>;

/// The handler of this request, in its extensions while it passes the layer.
#[derive(Clone)]
struct Handled(Arc<Mutex<Option<Inner>>>);

/// The service that a layer is put around. It calls the handler of the request at hand.
#[derive(Clone, Copy, Debug)]
pub struct HandlerService(());

impl SharedLayer {
    /// Builds the layer at its first use.
    pub(super) fn new<L>(layer: L) -> Self
    where
        L: Layer<HandlerService> + Send + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse,
        <L::Service as Service<Request>>::Error: Into<BoxError>,
        <L::Service as Service<Request>>::Future: Send,
    {
        let build = move || {
            let service = layer.layer(HandlerService(()));
            let service = service.map_response(IntoResponse::into_response).map_err(Into::into);
            BoxCloneSyncService::new(service)
        };
        Self(Arc::new(LazyLock::new(Box::new(build))))
    }

    /// Builds the layer if it is not yet.
    fn build(&self) {
        LazyLock::force(&self.0);
    }

    /// The endpoint behind the layer.
    pub(super) fn wrap(&self, inner: Endpoint) -> Endpoint {
        self.build();
        let (layer, inner) = (self.clone(), Arc::new(inner));
        Endpoint::from_call(Box::new(move |request| {
            let inner = Arc::clone(&inner);
            layer.call(request, Box::new(move |request| inner.call(request, |_| ())))
        }))
    }

    /// Sends a request through the layer to what is behind it.
    fn call(&self, mut request: Request, inner: Inner) -> BoxFuture<'static, Response> {
        request.extensions_mut().insert(Handled(Arc::new(Mutex::new(Some(inner)))));
        let responding = BuiltLayer::clone(&self.0).oneshot(request);
        responding.map(|response| response.unwrap_or_else(|error| failed(error).into_response())).boxed()
    }
}

/// The layers around everything, the innermost first.
#[derive(Clone, Default)]
pub struct Layers(Vec<SharedLayer>);

impl Layers {
    /// Puts a layer around the others.
    pub(crate) fn push<L>(&mut self, layer: L)
    where
        L: Layer<HandlerService> + Send + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse,
        <L::Service as Service<Request>>::Error: Into<BoxError>,
        <L::Service as Service<Request>>::Future: Send,
    {
        self.0.push(SharedLayer::new(layer));
    }

    /// Builds them all.
    pub(super) fn build(&self) {
        self.0.iter().for_each(SharedLayer::build);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends a request through all of them to what is behind them.
    pub(super) fn call(&self, request: Request, inner: Inner) -> BoxFuture<'static, Response> {
        let around = |inner: Inner, layer: &SharedLayer| -> Inner {
            let layer = layer.clone();
            Box::new(move |request| layer.call(request, inner))
        };
        self.0.iter().fold(inner, around)(request)
    }
}

/// A layer that gives up (a timeout, load shedding) says that the server cannot serve now.
fn failed(error: BoxError) -> Error {
    Error::unavailable(error)
}

impl Service<Request> for HandlerService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let handled = request.extensions_mut().remove::<Handled>();
        let inner =
            handled.and_then(|handled| handled.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        let missing =
            || Error::internal("a layer sent a request twice, or dropped its extensions").into_response();
        inner.map_or_else(|| std::future::ready(missing()).boxed(), |inner| inner(request)).map(Ok).boxed()
    }
}
