//! A handler without its type, called as axum's router would call it. Knows nothing of the table.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Extensions, Uri};
use axum::response::Response;
use axum::routing::any;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Body as _;
use tower::{Service as _, ServiceExt as _};

use super::context::Context;

/// A handler without its type.
pub(super) type Endpoint = Box<dyn Fn(Request, Context) -> BoxFuture<'static, Response> + Send + Sync>;

/// A handler of a path in all its spellings. axum's router itself is needed for a path with parameters,
/// which are of a private type. For every other path it would note the same with each request: that is asked of it once,
/// and saves a ninth of a small request (docs/PERFORMANCE.md).
pub(super) fn endpoint<T, S>(paths: Vec<String>, handler: impl Handler<T, S>, state: S) -> Endpoint
where
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    if let Some(path) = paths.first().filter(|path| !path.contains('{')) {
        let notes = notes(path);
        return Box::new(move |mut request, context| {
            // In this order: there is nothing yet in most requests, and the notes are taken as they are.
            request.extensions_mut().extend(notes.clone());
            request.extensions_mut().insert(context);
            Box::pin(handler.clone().call(request, state.clone()))
        });
    }
    let route = |router: Router<S>, path: String| router.route(&path, any(handler.clone()));
    let router = paths.into_iter().fold(Router::new(), route).with_state(state);
    Box::new(move |mut request, context| {
        request.extensions_mut().insert(context);
        let answered = router.clone().call(request);
        Box::pin(async move {
            let Ok(response) = answered.await;
            without_length(response)
        })
    })
}

/// What axum's router notes for its extractors when this path, which has no parameters, is asked for.
fn notes(path: &str) -> Extensions {
    let copy = async |request: Request| {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().extend(request.into_parts().0.extensions);
        response
    };
    let mut request: Request = Request::default();
    *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
    match Router::new().route(path, any(copy)).oneshot(request).now_or_never() {
        Some(Ok(response)) => response.into_parts().0.extensions,
        None => Extensions::new(),
    }
}

/// axum's router gives an answer without a body a length too, a 204 among them, which must have none (RFC 9110, section
/// 8.6). hyper does it right by itself.
fn without_length(mut response: Response) -> Response {
    if response.body().size_hint().exact().is_some() {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}
