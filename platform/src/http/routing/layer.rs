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

use crate::error::Error;

/// A layer for any number of endpoints, built when it is first needed: some layers start a task, and a description of
/// routes exists before there is a runtime. A clone is one more handle on the same.
#[derive(Clone)]
pub(crate) struct SharedLayer(Arc<LazyLock<BuiltLayer, Build>>);

/// A layer around [`HandlerService`].
pub type BuiltLayer = BoxCloneSyncService<Request, Response, BoxError>;
type Build = Box<dyn FnOnce() -> BuiltLayer + Send>;

/// What the layer wraps for one request. A layer may call it more than once.
pub(crate) type Inner = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// What the layer wraps, in the extensions of the request while it passes the layer.
#[derive(Clone)]
struct Handled(Inner);

/// A response that exists already. A layer that asks for it twice gets an error.
pub(crate) fn once(response: Response) -> Inner {
    let response = Mutex::new(Some(response));
    Arc::new(move |_| {
        let response = response.lock().unwrap_or_else(PoisonError::into_inner).take();
        let twice = || Error::internal("a layer sent a request twice that is refused").into_response();
        std::future::ready(response.unwrap_or_else(twice)).boxed()
    })
}

/// The service that a layer is put around. It calls the handler of the request at hand.
#[derive(Clone, Copy, Debug)]
pub struct HandlerService(());

/// A layer of tower that can be put around handlers: what it makes of [`HandlerService`] takes a request, responds with
/// what axum makes a response of, and can be cloned for each request.
pub trait HandlerLayer: Send + 'static {
    /// The service around a handler.
    #[doc(hidden)]
    fn build(self) -> BuiltLayer;
}

impl<L> HandlerLayer for L
where
    L: Layer<HandlerService> + Send + 'static,
    L::Service: Service<Request> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse,
    <L::Service as Service<Request>>::Error: Into<BoxError>,
    <L::Service as Service<Request>>::Future: Send,
{
    fn build(self) -> BuiltLayer {
        let service = self.layer(HandlerService(()));
        let service = service.map_response(IntoResponse::into_response).map_err(Into::into);
        BoxCloneSyncService::new(service)
    }
}

impl SharedLayer {
    /// Builds the layer at its first use.
    pub(crate) fn new(layer: impl HandlerLayer) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(move || layer.build()))))
    }

    /// Builds the layer if it is not yet.
    fn build(&self) {
        LazyLock::force(&self.0);
    }

    /// What is behind the layer, with the layer around it.
    pub(crate) fn wrap(&self, inner: Inner) -> Inner {
        self.build();
        let layer = self.clone();
        Arc::new(move |request| layer.call(request, Arc::clone(&inner)))
    }

    /// Sends a request through the layer to what is behind it.
    fn call(&self, mut request: Request, inner: Inner) -> BoxFuture<'static, Response> {
        request.extensions_mut().insert(Handled(inner));
        let responding = BuiltLayer::clone(&self.0).oneshot(request);
        responding.map(|response| response.unwrap_or_else(|error| failed(error).into_response())).boxed()
    }
}

/// The layers around everything, the innermost first.
#[derive(Clone, Default)]
pub struct Layers(Vec<SharedLayer>);

impl Layers {
    /// Puts a layer around the others.
    pub(crate) fn push(&mut self, layer: impl HandlerLayer) {
        self.0.push(SharedLayer::new(layer));
    }

    /// Builds them all.
    pub(crate) fn build(&self) {
        self.0.iter().for_each(SharedLayer::build);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends a request through all of them to what is behind them.
    pub(crate) fn call(&self, request: Request, inner: Inner) -> BoxFuture<'static, Response> {
        self.0.iter().fold(inner, |inner, layer| layer.wrap(inner))(request)
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
        let Some(Handled(inner)) = request.extensions_mut().remove() else {
            let error = "a layer sent a request without the extensions of the one that it got";
            return Box::pin(std::future::ready(Ok(Error::internal(error).into_response())));
        };
        inner(request).map(Ok).boxed()
    }
}
