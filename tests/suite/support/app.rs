//! The app in process: requests go through the whole middleware, without a socket.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::ext::ReasonPhrase;
use serde_json::Value;
use server::app;
use server::platform::App;
use server::platform::cli::Flags;
use server::platform::config::{self, Config, Service};
use server::platform::http::server::{self as sockets, Drain};
use server::platform::http::{self, Routes, Stack};
use server::platform::logging::{Logging, MemoryLog};
use server::platform::services::Services;
use tokio::task::JoinHandle;

/// The app under test, as `main` hands it to the platform.
const SERVICE: Service = Service { name: "test", version: "0.0.0", defaults: app::DEFAULTS };

/// A server without a socket.
pub struct TestApp {
    stack: Arc<Stack>,
    log: MemoryLog,
    settings: http::Settings,
}

impl TestApp {
    /// The app as it is wired, on a store in memory.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The app with variables such as `("SERVER__HTTP__BODY_LIMIT", "1KiB")`.
    pub async fn with(environment: &[(&str, &str)]) -> Self {
        Self::open(app::app(), environment).await
    }

    /// Routes of the test's own in place of the app's.
    pub async fn with_routes(routes: Routes<Services>, environment: &[(&str, &str)]) -> Self {
        let app = App::new(async |services, _| Ok(services), move |_: &app::settings::Settings| routes);
        Self::open(app, environment).await
    }

    /// An app of the test's own.
    pub async fn open<S: Clone + Send + Sync + 'static>(
        app: App<app::settings::Settings, S>,
        environment: &[(&str, &str)],
    ) -> Self {
        let config = configuration(environment);
        let (logging, log) = Logging::to_memory();
        let app = app.open(&config, logging).await.unwrap();
        Self { stack: app.stack(), log, settings: config.http.clone() }
    }

    /// The middleware with all behind it, for a socket of the test's own.
    pub fn stack(&self) -> Arc<Stack> {
        Arc::clone(&self.stack)
    }

    /// Serves on a port that the system gives, as the program does.
    pub async fn listen(&self) -> (SocketAddr, Drain, JoinHandle<std::io::Result<()>>) {
        let listener = sockets::listen("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stack, settings, drain) =
            (self.stack(), self.settings.clone(), Drain::new(self.stack.shutdown().clone()));
        let handle = drain.clone();
        let serving = tokio::spawn(async move { sockets::serve(listener, stack, &settings, handle).await });
        (address, drain, serving)
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| "localhost".parse().unwrap());
        let response = Arc::clone(&self.stack).respond(None, request).await;
        let (parts, body) = response.into_parts();
        let reason = parts.extensions.get::<ReasonPhrase>();
        let reason = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, reason, headers: parts.headers, body }
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.call(Method::POST, path, &FORM, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: impl ToString) -> Answer {
        self.call(Method::PUT, path, &FORM, body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: impl ToString) -> Answer {
        self.call(Method::PATCH, path, &FORM, body.to_string()).await
    }
}

/// What `curl -d` sends: the server reads JSON all the same.
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

fn configuration(environment: &[(&str, &str)]) -> Config<app::settings::Settings> {
    let memory = [("SERVER__STORE__URL", "memory:")];
    let pairs = memory.iter().chain(environment);
    let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::load(&Flags::default(), pairs.collect::<Vec<_>>(), &SERVICE).unwrap().config
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub reason: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status and the reason phrase as they stand on the first line of the answer.
    pub fn status_line(&self) -> String {
        let standard = self.status.canonical_reason().unwrap_or_default();
        format!("{} {}", self.status.as_u16(), self.reason.as_deref().unwrap_or(standard))
    }
}
