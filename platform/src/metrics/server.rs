//! The listener of `/metrics`: its own, so that it is reached when the port of the clients is full, and not by them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Page, Settings};
use crate::error::StartError;
use crate::secret::Secret;

/// Scrapers come one at a time; more connections than this wait.
const CONNECTIONS: usize = 16;

/// How long a scraper may need for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last in all.
const TIME: Duration = Duration::from_secs(30);

/// The version of the text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Listens, and serves until the process ends. Nothing when the section is off.
pub async fn serve(settings: &Settings, page: Page) -> Result<(), StartError> {
    let Some(address) = settings.listen.0 else { return Ok(()) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        StartError::failed(format!(
            "metrics.listen: cannot listen on {address}: {error}; choose another port"
        ))
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(target: "server", url = %format_args!("http://{address}/metrics"), "metrics");
    let token = settings.token.clone();
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most often.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (token, page) = (token.clone(), Arc::clone(&page));
            tokio::spawn(async move {
                let respond = service_fn(|request: Request<hyper::body::Incoming>| {
                    let response = respond(&request, &token, &page);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), respond);
                // A scraper that goes away is nothing to report.
                let _ = tokio::time::timeout(TIME, connection).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

fn respond<B>(request: &Request<B>, token: &Secret, page: &Page) -> Response<Body> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let refused = |status: StatusCode| {
        let mut response = Response::new(Body::from(format!("{status}\n")));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return refused(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if !token.is_empty() && !token.is_bearer(given) {
        let mut response = refused(StatusCode::UNAUTHORIZED);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    let mut response = Response::new(Body::from(page()));
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
