//! What is asked before the handlers of a route: a throttle, or who calls ([`Route::check_first`]).

use std::any::type_name;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::route::Route;

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// Asks, before all handlers of the route and its layers, whether a request may pass. A later check is asked before an
    /// earlier one: that of a group before that of the route. It returns the head with the extensions that it was given.
    pub(crate) fn check_first<F>(mut self, check: impl Fn(Parts, S) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Parts, Response>> + Send + 'static,
    {
        self.checks.push(Arc::new(move |parts, state| Box::pin(check(parts, state))));
        self
    }

    /// Lets only those in whom this extractor lets in, see [`Routes::guard`](crate::http::Routes::guard).
    pub(crate) fn guard<G: FromRequestParts<S> + 'static>(mut self) -> Self {
        self.guards.push(type_name::<G>());
        self.check_first(async |mut parts, state| match G::from_request_parts(&mut parts, &state).await {
            Ok(_) => Ok(parts),
            Err(refusal) => Err(refusal.into_response()),
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::{Method, StatusCode};
    use axum::{Router, routing};
    use tower::util::MapResponseLayer;

    use super::*;
    use crate::http::routing::routes::Routes;

    /// Refuses with the status that is the state, unless the request has this header.
    fn needs(header: &'static str) -> impl Fn(Parts, StatusCode) -> Ready + Clone {
        move |parts, status| {
            let refusal = || (status, header).into_response();
            std::future::ready(if parts.headers.contains_key(header) { Ok(parts) } else { Err(refusal()) })
        }
    }

    type Ready = std::future::Ready<Result<Parts, Response>>;

    #[tokio::test]
    async fn checks_stand_before_all_handlers_and_layers_and_the_last_one_is_first() {
        let layer = MapResponseLayer::new(|_: Response| StatusCode::ACCEPTED.into_response());
        let route = Route::at("/a/{id}").get(async || "").check_first(needs("inner")).layer(layer);
        let mounted =
            Route::mount("/m", Router::new().route("/", routing::get(async || StatusCode::ACCEPTED)));
        let routes = Routes::new()
            .route(route.check_first(needs("outer")).post(async || ""))
            .route(mounted.check_first(needs("inner")).check_first(needs("outer")));
        let table = routes.build(&StatusCode::IM_A_TEAPOT).unwrap();
        for (path, method) in [("/a/1", Method::GET), ("/a/1", Method::POST), ("/m", Method::GET)] {
            let endpoint = &table.get(table.find(path).unwrap()).unwrap().handler(&method).unwrap().endpoint;
            let call = async |headers: &[&'static str]| {
                let mut request = Request::builder().uri(path).method(&method).body(Body::empty()).unwrap();
                request
                    .headers_mut()
                    .extend(headers.iter().map(|name| (name.parse().ok(), "1".parse().unwrap())));
                let response = endpoint.call(request, |_| ()).await;
                let status = response.status();
                (status, axum::body::to_bytes(response.into_body(), 10).await.unwrap())
            };
            assert_eq!(call(&[]).await, (StatusCode::IM_A_TEAPOT, "outer".into()), "{method} {path}");
            assert_eq!(call(&["outer"]).await, (StatusCode::IM_A_TEAPOT, "inner".into()), "{method} {path}");
            assert_eq!(call(&["outer", "inner"]).await, (StatusCode::ACCEPTED, "".into()), "{method} {path}");
        }
    }
}
