//! The client that forwards requests: it rewrites nothing.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::tls;

/// How long a connection without a request is kept: less than the 60 s and more after which most servers close it.
const POOL_IDLE: Duration = Duration::from_secs(30);

type Client = legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// A client that rewrites nothing, or why there is none. It speaks HTTP/1.1 only, as the proxies of nginx do: WebSockets
/// need it.
pub(super) type Forwarder = Arc<LazyLock<Result<Client, String>>>;

pub(super) fn forwarder() -> Forwarder {
    Arc::new(LazyLock::new(|| {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls(&[])?).https_or_http();
        let https = https.enable_http1().wrap_connector(http);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE);
        Ok(builder.build(https))
    }))
}
