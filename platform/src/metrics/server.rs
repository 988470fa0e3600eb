//! The listener of `/metrics`: its own, so that it is reached when the port of the clients is full, and not by them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::{Page, Settings};
use crate::error::StartError;
use crate::secret::Secret;

/// Scrapers come one at a time, and take milliseconds; with more connections than this, the oldest is closed.
const CONNECTIONS: usize = 16;

/// How long a scraper may need for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last in all.
const TIME: Duration = Duration::from_secs(30);

/// The version of the text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Listens, and serves until the process ends. Nothing when the section is off. `bind` opens the port.
pub fn serve(
    settings: &Settings,
    bind: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
    page: Page,
) -> Result<(), StartError> {
    let Some(address) = settings.listen.0 else { return Ok(()) };
    let listener = bind(address).map_err(|error| {
        StartError::failed(format!(
            "metrics.listen: cannot listen on {address}: {error}; choose another port"
        ))
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(target: "server", url = %format_args!("http://{address}/metrics"), "metrics");
    tokio::spawn(accept(listener, settings.token.clone(), page, (HEAD_TIMEOUT, TIME)));
    Ok(())
}

/// `times` are the longest that a request head and a connection may take.
async fn accept(listener: TcpListener, token: Secret, page: Page, times: (Duration, Duration)) {
    let mut connections = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most often.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (token, page) = (token.clone(), Arc::clone(&page));
        let connection = tokio::spawn(async move {
            let respond = service_fn(|request: Request<hyper::body::Incoming>| {
                let response = respond(&request, &token, &page);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(times.0)
                .serve_connection(TokioIo::new(stream), respond);
            // A scraper that goes away is nothing to report.
            let _ = tokio::time::timeout(times.1, connection).await;
        });
        connections.retain(|open: &AbortOnDropHandle<()>| !open.is_finished());
        connections.push_back(AbortOnDropHandle::new(connection));
        if connections.len() > CONNECTIONS {
            connections.pop_front();
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn idle_connections_delay_no_scrape() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Idle connections stay for longer than this test may take.
        let hour = Duration::from_hours(1);
        let serving =
            tokio::spawn(accept(listener, Secret::default(), Arc::new(|| "page".to_owned()), (hour, hour)));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS * 4 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut scraper = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        scraper.write_all(request).await.unwrap();
        let mut response = String::new();
        let read = tokio::time::timeout(Duration::from_mins(1), scraper.read_to_string(&mut response));
        read.await.expect("the scraper waits for the idle connections").unwrap();
        assert!(response.ends_with("page"), "{response}");
        serving.abort();
    }
}
