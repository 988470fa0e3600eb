//! The router table: which paths exist, which methods each takes, and what each asks of the middleware.
//!
//! axum's router finds the handler, but does not tell which methods a path has. The table does: it answers
//! `OPTIONS`, 404 and 405, prints `server routes`, and gives the log its route template. Every path is also
//! accepted with a trailing slash.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::cors::Cors;
use crate::platform::error::StartError;
use crate::platform::schema::Schema;

/// What the middleware knows of a route.
#[derive(Debug)]
pub struct RouteInfo {
    /// The path as it was written, with `{names}` for its parameters.
    pub template: String,
    /// The methods it takes, without `HEAD` and `OPTIONS`, which every route has.
    pub methods: Vec<Method>,
    /// The value of `Allow`.
    pub allow: HeaderValue,
    /// Whether other sites' pages may call it.
    pub cors: Option<Cors>,
    /// What its JSON bodies must meet.
    pub schema: Option<Schema>,
    /// False for a route that is called too often to be worth a line.
    pub logged: bool,
    /// True for a route that recognises its caller by a cookie: it says so, or its CORS lets cookies in.
    pub cookies: bool,
    /// Its own body limit in bytes, instead of `http.body_limit`.
    pub body_limit: Option<u64>,
    /// Its own time limit, instead of `http.request_timeout`.
    pub timeout: Option<Duration>,
}

/// One path and its handlers.
pub struct Route<S> {
    path: &'static str,
    handlers: MethodRouter<S>,
    methods: Vec<Method>,
    cors: Option<Cors>,
    schema: Option<(&'static str, &'static str)>,
    logged: bool,
    cookies: bool,
    body_limit: Option<u64>,
    timeout: Option<Duration>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// A route at this path; a parameter is written `{name}`, the rest of a path `{*name}`.
    pub fn at(path: &'static str) -> Self {
        Self {
            path,
            handlers: MethodRouter::new(),
            methods: Vec::new(),
            cors: None,
            schema: None,
            logged: true,
            cookies: false,
            body_limit: None,
            timeout: None,
        }
    }

    /// Answers GET, and HEAD.
    pub fn get<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::GET, MethodFilter::GET, handler)
    }

    /// Answers POST.
    pub fn post<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::POST, MethodFilter::POST, handler)
    }

    /// Answers PUT.
    pub fn put<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::PUT, MethodFilter::PUT, handler)
    }

    /// Answers PATCH.
    pub fn patch<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::PATCH, MethodFilter::PATCH, handler)
    }

    /// Answers DELETE.
    pub fn delete<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::DELETE, MethodFilter::DELETE, handler)
    }

    fn on<T: 'static>(mut self, method: Method, filter: MethodFilter, handler: impl Handler<T, S>) -> Self {
        self.handlers = self.handlers.merge(on(filter, handler));
        self.methods.push(method);
        self
    }

    /// Lets pages of other sites call the route.
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// The JSON Schema (draft-07) that a body read by the [`Json`](super::Json) extractor must meet.
    pub fn schema(mut self, name: &'static str, text: &'static str) -> Self {
        self.schema = Some((name, text));
        self
    }

    /// Leaves the route out of the request log.
    pub fn unlogged(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Says that the route recognises its caller by a cookie: a method that changes something is then refused
    /// when the request comes from a page of another site.
    pub fn cookies(mut self) -> Self {
        self.cookies = true;
        self
    }

    /// The largest body in bytes, instead of `http.body_limit`.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = Some(bytes);
        self
    }

    /// How long its handlers may take, instead of `http.request_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn into_info(self) -> Result<(RouteInfo, MethodRouter<S>), StartError> {
        let mut names: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.push("OPTIONS");
        let allow = HeaderValue::try_from(names.join(", "))
            .map_err(|error| StartError::failed(format!("route {}: {error}", self.path)))?;
        let schema = self.schema.map(|(name, text)| Schema::parse(name, text)).transpose()?;
        let info = RouteInfo {
            template: self.path.to_owned(),
            methods: self.methods,
            allow,
            cookies: self.cookies || self.cors.as_ref().is_some_and(Cors::takes_cookies),
            cors: self.cors,
            schema,
            logged: self.logged,
            body_limit: self.body_limit,
            timeout: self.timeout,
        };
        Ok((info, self.handlers))
    }
}

/// The routes of a slice, or of the whole app.
pub struct Routes<S> {
    routes: Vec<Route<S>>,
}

impl<S> Default for Routes<S> {
    fn default() -> Self {
        Self { routes: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one route.
    pub fn route(mut self, route: Route<S>) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds the routes of a slice.
    pub fn merge(mut self, slice: Self) -> Self {
        self.routes.extend(slice.routes);
        self
    }

    /// The table and axum's router for it. Refuses two routes that match the same paths, a malformed path and
    /// a broken schema.
    pub(super) fn build(self, state: S) -> Result<(RouteTable, Router), StartError> {
        let mut table = RouteTable { paths: matchit::Router::new(), routes: Vec::new() };
        let mut router = Router::new();
        for route in self.routes {
            let (info, handlers) = route.into_info()?;
            let info = Arc::new(info);
            for path in spellings(&info.template) {
                table
                    .paths
                    .insert(path.clone(), Arc::clone(&info))
                    .map_err(|error| StartError::failed(format!("route {}: {error}", info.template)))?;
                router = router.route(&path, handlers.clone());
            }
            table.routes.push(info);
        }
        Ok((table, router.with_state(state)))
    }
}

/// The path, and the path with a slash at its end.
fn spellings(path: &str) -> Vec<String> {
    if path.ends_with('/') || path.contains("{*") {
        return vec![path.to_owned()];
    }
    vec![path.to_owned(), format!("{path}/")]
}

/// All routes, by path.
pub struct RouteTable {
    paths: matchit::Router<Arc<RouteInfo>>,
    routes: Vec<Arc<RouteInfo>>,
}

impl RouteTable {
    /// The route of a path (still percent-encoded, without the query).
    pub(super) fn find(&self, path: &str) -> Option<&Arc<RouteInfo>> {
        self.paths.at(path).ok().map(|found| found.value)
    }

    /// All routes in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing() {}

    #[test]
    fn a_path_is_found_with_and_without_its_trailing_slash() {
        let routes = Routes::<()>::new().route(Route::at("/tasks/{id}").get(nothing).delete(nothing));
        let (table, _) = routes.build(()).unwrap();
        for path in ["/tasks/1", "/tasks/1/"] {
            let route = table.find(path).unwrap();
            assert_eq!(route.template, "/tasks/{id}");
            assert_eq!(route.allow, "GET, DELETE, HEAD, OPTIONS");
        }
        assert!(table.find("/tasks").is_none());
        assert!(table.find("/tasks/1/2").is_none());
    }

    #[test]
    fn two_routes_with_the_same_path_are_refused_at_start() {
        let routes = Routes::<()>::new()
            .route(Route::at("/tasks/{id}").get(nothing))
            .route(Route::at("/tasks/{name}").get(nothing));
        let error = routes.build(()).err().unwrap().to_string();
        assert!(error.starts_with("route /tasks/{name}: "), "{error}");
    }
}
