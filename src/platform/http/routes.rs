//! The router table: which paths exist, which methods each takes, and what each asks of the middleware.
//!
//! axum's router does not tell which methods a path has. The table does: it answers `OPTIONS`, 404 and 405, prints
//! `server routes`, gives the log its route template, and finds the handler. Every path is also accepted with a
//! trailing slash.

use std::fmt::{self, Display};
use std::time::Duration;

use axum::handler::Handler;
use axum::http::{HeaderValue, Method, Uri};

use super::cors::Cors;
use super::endpoint::{Endpoint, endpoint};
use crate::platform::error::StartError;
use crate::platform::schema::Schema;

/// What the middleware knows of a route.
pub struct RouteInfo {
    /// The path as it was written, with `{names}` for its parameters.
    pub template: String,
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
    handlers: Vec<(Method, Endpoint)>,
}

/// A handler that has not been given its state.
type Stateless<S> = Box<dyn FnOnce(S) -> Endpoint + Send>;

/// One path and its handlers.
pub struct Route<S> {
    path: &'static str,
    handlers: Vec<(Method, Stateless<S>)>,
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
            handlers: Vec::new(),
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
        self.on(Method::GET, handler)
    }

    /// Answers POST.
    pub fn post<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::POST, handler)
    }

    /// Answers PUT.
    pub fn put<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::PUT, handler)
    }

    /// Answers PATCH.
    pub fn patch<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::PATCH, handler)
    }

    /// Answers DELETE.
    pub fn delete<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Method::DELETE, handler)
    }

    fn on<T: 'static>(mut self, method: Method, handler: impl Handler<T, S>) -> Self {
        let path = self.path;
        self.handlers.push((method, Box::new(move |state| endpoint(spellings(path), handler, state))));
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

    /// Refuses what axum's router would panic at, and what no request can ask for.
    fn check(&self) -> Result<(), StartError> {
        if !self.path.starts_with('/') {
            return Err(self.wrong("a path begins with a slash"));
        }
        if self.path.contains("/:") || self.path.contains("/*") {
            return Err(self.wrong("a parameter is written {name}, the rest of a path {*name}"));
        }
        // matchit takes any text between the slashes.
        let is_of_a_url = |path: &str| Uri::try_from(path).is_ok_and(|uri| uri.path() == path);
        if !self.path.contains('{') && !is_of_a_url(self.path) {
            return Err(self.wrong("is no path of a URL"));
        }
        for (at, (method, _)) in self.handlers.iter().enumerate() {
            if self.handlers[..at].iter().any(|(earlier, _)| earlier == method) {
                return Err(self.wrong(format!("has two handlers for {method}")));
            }
        }
        Ok(())
    }

    fn wrong(&self, why: impl Display) -> StartError {
        StartError::failed(format!("route {}: {why}", self.path))
    }

    fn into_info(self, state: &S) -> Result<RouteInfo, StartError> {
        let mut names: Vec<&str> = self.handlers.iter().map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.push("OPTIONS");
        let allow = HeaderValue::try_from(names.join(", ")).map_err(|error| self.wrong(error))?;
        let schema = self.schema.map(|(name, text)| Schema::parse(name, text)).transpose()?;
        let handlers = self.handlers.into_iter();
        Ok(RouteInfo {
            template: self.path.to_owned(),
            allow,
            cookies: self.cookies || self.cors.as_ref().is_some_and(Cors::takes_cookies),
            cors: self.cors,
            schema,
            logged: self.logged,
            body_limit: self.body_limit,
            timeout: self.timeout,
            handlers: handlers.map(|(method, handler)| (method, handler(state.clone()))).collect(),
        })
    }
}

impl RouteInfo {
    /// The methods it takes, without `HEAD` and `OPTIONS`, which every route has.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.handlers.iter().map(|(method, _)| method)
    }

    /// The handler of a method.
    pub(super) fn handler(&self, method: &Method) -> Option<&Endpoint> {
        self.handlers.iter().find(|(mine, _)| mine == method).map(|(_, handler)| handler)
    }
}

impl fmt::Debug for RouteInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.allow.to_str().unwrap_or_default(), self.template)
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

    /// The table. Refuses two routes that match the same paths, two handlers for one method, a malformed path and a
    /// broken schema.
    pub(super) fn build(self, state: &S) -> Result<RouteTable, StartError> {
        let mut table = RouteTable { paths: matchit::Router::new(), routes: Vec::new() };
        for route in self.routes {
            route.check()?;
            for path in spellings(route.path) {
                table.paths.insert(path, table.routes.len()).map_err(|error| route.wrong(error))?;
            }
            table.routes.push(route.into_info(state)?);
        }
        Ok(table)
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
    /// To each path the place of its route.
    paths: matchit::Router<usize>,
    routes: Vec<RouteInfo>,
}

impl RouteTable {
    /// The place of the route of a path (still percent-encoded, without the query).
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        self.paths.at(path).ok().map(|found| *found.value)
    }

    /// The route at this place.
    pub(super) fn get(&self, place: usize) -> Option<&RouteInfo> {
        self.routes.get(place)
    }

    /// All routes in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing() {}

    #[test]
    fn a_path_is_found_with_and_without_its_trailing_slash() {
        let routes = Routes::<()>::new().route(Route::at("/tasks/{id}").get(nothing).delete(nothing));
        let table = routes.build(&()).unwrap();
        for path in ["/tasks/1", "/tasks/1/"] {
            let route = table.get(table.find(path).unwrap()).unwrap();
            assert_eq!(route.template, "/tasks/{id}");
            assert_eq!(route.allow, "GET, DELETE, HEAD, OPTIONS");
        }
        assert!(table.find("/tasks").is_none());
        assert!(table.find("/tasks/1/2").is_none());
    }

    #[test]
    fn what_axum_would_panic_at_is_refused_at_start() {
        let refused = |route: Route<()>| {
            let routes = Routes::new().route(Route::at("/tasks/{id}").get(nothing)).route(route);
            routes.build(&()).err().unwrap().to_string()
        };
        let taken = refused(Route::at("/tasks/{name}").get(nothing));
        assert!(taken.starts_with("route /tasks/{name}: "), "{taken}");
        assert!(refused(Route::at("/{tasks").get(nothing)).starts_with("route /{tasks: "));
        assert_eq!(refused(Route::at("here").get(nothing)), "route here: a path begins with a slash");
        let old = refused(Route::at("/lists/:id").get(nothing));
        assert_eq!(old, "route /lists/:id: a parameter is written {name}, the rest of a path {*name}");
        assert_eq!(refused(Route::at("/a b").get(nothing)), "route /a b: is no path of a URL");
        assert_eq!(refused(Route::at("/a?b").get(nothing)), "route /a?b: is no path of a URL");
        let twice = refused(Route::at("/lists").get(nothing).post(nothing).get(nothing));
        assert_eq!(twice, "route /lists: has two handlers for GET");
    }
}
