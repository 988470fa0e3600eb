//! An app in process: requests pass the complete middleware, without a socket.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::ext::ReasonPhrase;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::PATIENCE;
use crate::app::{App, OpenApp, Tasks};
#[cfg(feature = "auth")]
use crate::auth;
use crate::cli::Flags;
use crate::config::{self, Config, Defaults, Service};
use crate::connector;
use crate::http::server::{self, Drain, Https};
use crate::http::{self, Routes, Stack};
use crate::logging::{Logging, MemoryLog};
#[cfg(feature = "auth")]
use crate::secret::Secret;
use crate::services::Services;
use crate::tls::{self, Tls};

/// An app without a socket, on a store in memory. Its background tasks run only when they are started.
pub struct TestApp {
    app: OpenApp,
    log: MemoryLog,
    settings: http::Settings,
    tls: tls::Settings,
    /// Deleted with the app.
    _locks: TempDir,
}

/// The settings of an app that has none.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// A service without settings of its own.
pub const SERVICE: Service =
    Service { name: "test", version: "0.0.0", defaults: Defaults { name: "test.yaml", text: "app: {}" } };

impl TestApp {
    /// Opens the app with the service's own configuration and these variables, such as
    /// `("SERVER__HTTP__BODY_LIMIT", "1KiB")`. The store is `memory:` where they name none, the key of cookies is the
    /// app's own where they have none, and so is the folder of the lock files.
    pub async fn start<A, S>(service: &Service, app: App<A, S>, environment: &[(&str, &str)]) -> Self
    where
        A: Clone + DeserializeOwned + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        Self::open(service, app, &Flags::default(), environment).await
    }

    /// [`TestApp::start`] with a file of configuration too, as `--config` has it.
    pub async fn start_with_file<A, S>(
        service: &Service,
        app: App<A, S>,
        file: &Path,
        environment: &[(&str, &str)],
    ) -> Self
    where
        A: Clone + DeserializeOwned + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let flags = Flags { config: Some(file.to_owned()), ..Flags::default() };
        Self::open(service, app, &flags, environment).await
    }

    async fn open<A, S>(
        service: &Service,
        app: App<A, S>,
        flags: &Flags,
        environment: &[(&str, &str)],
    ) -> Self
    where
        A: Clone + DeserializeOwned + Send + 'static,
        S: Clone + Send + Sync + 'static,
    {
        connector::install_tls_provider();
        let locks = tempfile::tempdir().unwrap();
        let dir = locks.path().to_str().unwrap();
        let environment = [&[("SERVER__LOCK__DIR", dir)], environment].concat();
        let config: Config<A> = configuration(service, flags, &environment);
        let (logging, log) = Logging::to_memory();
        let app = app.open(&config, logging).await.unwrap();
        Self { app, log, settings: config.http, tls: config.server.tls, _locks: locks }
    }

    /// An app that has only these routes. Its state is the services.
    pub async fn with_routes(routes: Routes<Services>, environment: &[(&str, &str)]) -> Self {
        let app = App::new(async |services, _| Ok(services), move |_: &NoSettings| routes);
        Self::start(&SERVICE, app, environment).await
    }

    /// The services: for a test that reads or changes the store directly.
    pub fn services(&self) -> &Services {
        self.app.services()
    }

    /// The app as an axum router, for a test client such as axum-test.
    pub fn into_router(self) -> Router {
        self.app.into_router()
    }

    /// Starts the background tasks.
    pub fn start_tasks(&mut self) -> Tasks {
        self.app.start_tasks()
    }

    /// Begins the drain, as a signal does: background tasks and jobs are told.
    pub fn drain(&self) {
        self.app.stack().shutdown().begin();
    }

    /// Shuts the app down as the program does: its own shutdown functions first, then the services.
    pub async fn close(self) {
        self.app.close(PATIENCE).await;
    }

    /// The middleware, with the routes and everything that they use.
    pub fn stack(&self) -> Arc<Stack> {
        self.app.stack()
    }

    /// Serves as the program does, on a port that the system chooses.
    pub async fn listen(&self) -> (SocketAddr, Drain, JoinHandle<std::io::Result<()>>) {
        self.listen_with(None).await
    }

    /// [`TestApp::listen`] with HTTPS, as `server.tls` has it. There is no redirect.
    pub async fn listen_secure(&self) -> (SocketAddr, Drain, JoinHandle<std::io::Result<()>>) {
        let handshake_timeout = self.tls.handshake_timeout.get();
        let tls = Arc::new(Tls::load(&self.tls).unwrap());
        self.listen_with(Some(Https { tls, handshake_timeout, redirect: None })).await
    }

    async fn listen_with(
        &self,
        https: Option<Https>,
    ) -> (SocketAddr, Drain, JoinHandle<std::io::Result<()>>) {
        let listener = server::listen("127.0.0.1", 0, &self.settings).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stack, settings) = (self.stack(), self.settings.clone());
        let drain = Drain::new(stack.shutdown().clone());
        let handle = drain.clone();
        let serving =
            tokio::spawn(async move { server::serve_with(listener, https, stack, &settings, handle).await });
        (address, drain, serving)
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Sends a request. Adds a `Host` header where it is missing.
    pub async fn send(&self, mut request: Request<Body>) -> TestResponse {
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| "localhost".parse().unwrap());
        let response = self.stack().respond(None, request).await;
        let (parts, body) = response.into_parts();
        let reason = parts.extensions.get::<ReasonPhrase>();
        let reason = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
        let body = body.collect().await.unwrap().to_bytes();
        TestResponse { status: parts.status, reason, headers: parts.headers, body }
    }

    /// Sends a request with these parts.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> TestResponse {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> TestResponse {
        self.call(Method::DELETE, path, &[], Body::empty()).await
    }

    /// POST with this body, as `curl -d` sends it.
    pub async fn post(&self, path: &str, body: impl ToString) -> TestResponse {
        self.call(Method::POST, path, &FORM, body.to_string()).await
    }

    /// PUT with this body, as `curl -d` sends it.
    pub async fn put(&self, path: &str, body: impl ToString) -> TestResponse {
        self.call(Method::PUT, path, &FORM, body.to_string()).await
    }

    /// PATCH with this body, as `curl -d` sends it.
    pub async fn patch(&self, path: &str, body: impl ToString) -> TestResponse {
        self.call(Method::PATCH, path, &FORM, body.to_string()).await
    }
}

/// The content type of `curl -d`: the server reads such a body as JSON nevertheless.
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

fn configuration<A: DeserializeOwned>(
    service: &Service,
    flags: &Flags,
    environment: &[(&str, &str)],
) -> Config<A> {
    let named = environment.iter().any(|(name, value)| config::sets_store(name) && !value.is_empty());
    let memory = [("SERVER__STORE__URL", "memory:")];
    let pairs = memory.iter().filter(|_| !named).chain(environment);
    let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut config: Config<A> = config::load(flags, pairs.collect::<Vec<_>>(), service).unwrap().config;
    #[cfg(feature = "auth")]
    if config.auth.keys.is_empty() && config.auth.key_file.as_os_str().is_empty() {
        config.auth.keys = Secret::new(auth::new_key().unwrap());
    }
    config
}

/// A response with its complete body.
#[derive(Debug)]
pub struct TestResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its reason phrase, unless it is the standard one of the status.
    pub reason: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl TestResponse {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The value of a header; the first one where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status code and the reason phrase, as the status line of HTTP/1.1 has them.
    pub fn status_line(&self) -> String {
        let standard = self.status.canonical_reason().unwrap_or_default();
        format!("{} {}", self.status.as_u16(), self.reason.as_deref().unwrap_or(standard))
    }
}
