//! The client that forwards requests: it rewrites nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service as _, service_fn};

use super::lazy::{Lazy, Tls};
use super::settings::Settings;

/// How long a connection without a request is kept: less than the 60 s and more after which most servers close it.
const POOL_IDLE: Duration = Duration::from_secs(30);

type Connect = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// A client that rewrites nothing. It speaks HTTP/1.1 only, as the proxies of nginx do: WebSockets need it.
pub(super) type Forwarder = Lazy<legacy::Client<Connect, Body>>;

pub(super) fn forwarder(settings: &Settings, tls: &Arc<Tls>) -> Forwarder {
    let (time, max_headers) = (settings.attempt_timeout.get(), settings.forward.max_headers.as_usize());
    Lazy::new(tls, move |config| {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let https = https.enable_http1().wrap_connector(http);
        let connect = service_fn(move |uri: Uri| {
            let connecting = https.clone().call(uri);
            async move { tokio::time::timeout(time, connecting).await? }
        });
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE).http1_max_headers(max_headers);
        Ok(builder.build(BoxCloneSyncService::new(connect)))
    })
}
