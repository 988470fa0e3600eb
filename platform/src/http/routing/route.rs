//! One route: a path, its handlers, and what each asks of the middleware.

use std::any::type_name;
use std::fmt::{self, Display};
use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, Uri};

use super::callers;
use super::cors::Cors;
use super::endpoint::{Check, Endpoint};
use super::layer::{HandlerLayer, SharedLayer};
use super::limits::{Limits, Rate};
use crate::error::StartError;
use crate::schema::Schema;

/// What `Allow` says of a route that takes any method.
const ANY: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What the middleware knows of a route.
#[expect(clippy::struct_excessive_bools, reason = "switches that do not depend on each other")]
pub struct RouteInfo {
    /// The path as it was written, with `{names}` for its parameters.
    pub template: String,
    /// The value of `Allow`.
    pub allow: HeaderValue,
    /// Whether pages of other sites may call it.
    pub cors: Option<Cors>,
    /// False for a route that is called too often to be worth a line in the log, unless it fails.
    pub logged: bool,
    /// Why forms of other sites may change something on it, see [`Route::cross_site`].
    pub cross_site: Option<&'static str>,
    /// True for a route whose request bodies are left as they were sent, compressed or not.
    pub(crate) as_sent: bool,
    /// True for a route that machines ask whether the server is well: allowed hosts and limits are not for it.
    pub(crate) probe: bool,
    /// True for a mounted router: its error responses are left as they are.
    pub(crate) mounted: bool,
    /// True where handlers see the address of the client as axum's `ConnectInfo`.
    pub(crate) connect_info: bool,
    pub(crate) rate: Option<Rate>,
    handlers: Vec<MethodInfo>,
}

/// A method of a route: its handler and its limits.
pub(crate) struct MethodInfo {
    /// `None` for the handler of every method that has none of its own.
    method: Option<Method>,
    /// What its JSON bodies must meet.
    pub(crate) schema: Option<Schema>,
    /// Its own body limit in bytes, instead of `http.body_limit`.
    pub(crate) body_limit: Option<u64>,
    /// Its own time limit, instead of `http.request_timeout`.
    pub(crate) timeout: Option<Duration>,
    /// Its own minimum of bytes a second, instead of `http.body_min_rate`.
    pub(crate) body_min_rate: Option<u64>,
    pub(crate) endpoint: Endpoint,
}

impl MethodInfo {
    /// Whether it is the handler of every method without one of its own.
    pub(crate) fn is_any(&self) -> bool {
        self.method.is_none()
    }
}

/// A handler that waits for all paths of its route, its state and its layers.
type Stateless<S> = Box<dyn FnOnce(Vec<String>, S, &[SharedLayer]) -> Endpoint + Send>;

/// A handler of a method, or of all others, and the names of the types of its arguments.
type Unbuilt<S> = (Option<Method>, Stateless<S>, &'static str);

/// One path and its handlers.
#[expect(clippy::struct_excessive_bools, reason = "switches that do not depend on each other")]
pub struct Route<S> {
    path: String,
    handlers: Vec<Unbuilt<S>>,
    /// What is asked before its handlers, the first one first, and the names of those that ask who calls.
    pub(super) checks: Vec<Check<S>>,
    pub(super) guards: Vec<&'static str>,
    cors: Option<Cors>,
    limits: Limits,
    limits_of: Vec<(Method, Limits)>,
    layers: Vec<SharedLayer>,
    logged: bool,
    cross_site: Option<&'static str>,
    as_sent: bool,
    probe: bool,
    mounted: bool,
    fallback: bool,
    connect_info: bool,
    rate: Option<Rate>,
    /// The upstream that it forwards to.
    upstream: Option<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// A route at this path; a parameter is written `{name}`, the rest of a path `{*name}`.
    pub fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            handlers: Vec::new(),
            checks: Vec::new(),
            guards: Vec::new(),
            cors: None,
            limits: Limits::default(),
            limits_of: Vec::new(),
            layers: Vec::new(),
            logged: true,
            cross_site: None,
            as_sent: false,
            probe: false,
            mounted: false,
            fallback: false,
            connect_info: false,
            rate: None,
            upstream: None,
        }
    }

    /// A router of axum's at this path and everything below it, see [`Routes::mount`](crate::http::Routes::mount). As a route it
    /// can have limits, layers and [`Route::cross_site`].
    pub fn mount(path: &str, router: Router) -> Self {
        let mut route = Self::at(path);
        let nest: Stateless<S> = Box::new(move |paths, _, layers| {
            let prefix = paths.first().map_or("/", String::as_str);
            let nested = if prefix == "/" { router } else { Router::new().nest_service(prefix, router) };
            Endpoint::mounted(nested, layers)
        });
        route.handlers.push((None, nest, ""));
        (route.mounted, route.connect_info) = (true, true);
        route
    }

    /// A route of this path and everything below it that forwards to an upstream, by an endpoint that is made of its paths, the
    /// state and its layers.
    pub(crate) fn forwarding(
        path: &str,
        upstream: &'static str,
        endpoint: impl FnOnce(Vec<String>, S, &[SharedLayer]) -> Endpoint + Send + 'static,
    ) -> Self {
        let mut route = Self { upstream: Some(upstream), ..Self::at(path).as_sent() };
        route.handlers.push((None, Box::new(endpoint), ""));
        route
    }

    /// The upstream that it forwards to, if it does.
    pub(crate) fn upstream(&self) -> Option<&'static str> {
        self.upstream
    }

    /// Whether it is found below its path too.
    fn is_tree(&self) -> bool {
        self.mounted || self.fallback || self.upstream.is_some()
    }

    /// A handler of what no other route matches at this path and below it.
    pub(crate) fn fallback<T: 'static>(handler: impl Handler<T, S>) -> Self {
        Self { fallback: true, ..Self::at("/").any(handler) }
    }

    /// Puts the route below this path.
    pub(crate) fn nest(mut self, prefix: &str) -> Self {
        let below = if self.path == "/" { "" } else { &self.path };
        self.path = format!("{}{below}", prefix.trim_end_matches('/'));
        self
    }

    pub(crate) fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// Answers GET, and HEAD.
    pub fn get<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Some(Method::GET), handler)
    }

    /// Answers POST.
    pub fn post<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Some(Method::POST), handler)
    }

    /// Answers PUT.
    pub fn put<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Some(Method::PUT), handler)
    }

    /// Answers PATCH.
    pub fn patch<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Some(Method::PATCH), handler)
    }

    /// Answers DELETE.
    pub fn delete<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(Some(Method::DELETE), handler)
    }

    /// Answers every method that has no handler of its own: HEAD and OPTIONS too, but for the preflight of a route
    /// with [`Route::cors`].
    pub fn any<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.on(None, handler)
    }

    fn on<T: 'static>(mut self, method: Option<Method>, handler: impl Handler<T, S>) -> Self {
        let endpoint: Stateless<S> =
            Box::new(move |paths, state, layers| Endpoint::new(paths, handler, state, layers));
        self.handlers.push((method, endpoint, type_name::<T>()));
        self
    }

    /// Puts a tower layer around all handlers of the route. It is built once, at start, and sees a request after the
    /// body limit and the decompression, and a response before its headers, `ETag` and compression are added. Its
    /// errors become 503. A later layer is outside of an earlier one. A layer that makes a request of its own gives it the
    /// extensions of the one that it got.
    pub fn layer(self, layer: impl HandlerLayer) -> Self {
        self.with_layer(SharedLayer::new(layer))
    }

    pub(crate) fn with_layer(mut self, layer: SharedLayer) -> Self {
        self.layers.push(layer);
        self.connect_info = true;
        self
    }

    /// Lets pages of other sites call the route.
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// The JSON Schema (draft-07) that a body read by the [`Json`](crate::http::Json) extractor must meet.
    pub fn schema(mut self, name: &'static str, text: &'static str) -> Self {
        self.limits = self.limits.schema(name, text);
        self
    }

    /// Leaves the route out of the request log, but for a response of 5xx.
    pub fn unlogged(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Lets forms and WebSockets of pages of any other site in, with the cookies of the user, and says why. Without it, a method
    /// that changes something and an upgrade are 403 when the request comes from such a page; [`Route::cors`] lets pages in
    /// without cookies, or only those of some origins. For a route that takes no cookie for a permission, such as one to which
    /// an identity provider sends its form.
    pub fn cross_site(mut self, why: &'static str) -> Self {
        self.cross_site = Some(why);
        self
    }

    /// Leaves the body of a request as it was sent: its handlers get a compressed one compressed, in any encoding. For what
    /// passes it on, such as [`ConnectorTo::forward`](crate::http::ConnectorTo::forward): the headers of the connection are gone,
    /// and what the client claims about itself (`X-Forwarded-*`).
    pub fn as_sent(mut self) -> Self {
        self.as_sent = true;
        self
    }

    /// Says that machines ask here whether the server is well, as at `/live`: by its address, and also when it is busy.
    /// `http.allowed_hosts`, `http.rate_limit` and `http.max_in_flight` do not hold for it, so it has to be cheap.
    pub fn probe(mut self) -> Self {
        self.probe = true;
        self
    }

    /// The largest body in bytes, instead of `http.body_limit`.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.limits = self.limits.body_limit(bytes);
        self
    }

    /// How long its handlers may take, instead of `http.request_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits = self.limits.timeout(timeout);
        self
    }

    /// The bytes a second that a body must reach after `http.body_grace`, instead of `http.body_min_rate`; 0 for no minimum: for
    /// clients that are slow, or that send when they have something.
    pub fn body_min_rate(mut self, bytes_per_second: u64) -> Self {
        self.limits = self.limits.body_min_rate(bytes_per_second);
        self
    }

    /// How many requests one client may send to this route in a minute, and at once: one more gets 429 with `Retry-After`.
    /// Clients are told apart as by `http.rate_limit`, which holds too, and each process counts for itself.
    pub fn rate_limit(mut self, per_minute: u32, burst: u32) -> Self {
        self.rate = Some(Rate { per_minute, burst });
        self
    }

    /// What its group has, where it has none of its own.
    pub(crate) fn or(mut self, cors: Option<&Cors>, limits: Limits) -> Self {
        self.cors = self.cors.or_else(|| cors.cloned());
        self.limits = self.limits.or(limits);
        self
    }

    /// Limits of one method, in place of those of the route.
    pub fn limits(mut self, method: Method, limits: Limits) -> Self {
        self.limits_of.push((method, limits));
        self
    }

    /// Gives handlers axum's `ConnectInfo<SocketAddr>`. It costs an allocation a request, so a route asks for it; routes
    /// with a layer, and mounted routers, have it. [`Context::peer`](crate::http::Context::peer) costs nothing.
    pub fn connect_info(mut self) -> Self {
        self.connect_info = true;
        self
    }

    /// All paths at which the route is found, its own first. A fallback gives way where they are taken.
    pub(crate) fn paths(&self) -> Vec<String> {
        if !self.is_tree() {
            return spellings(&self.path);
        }
        let prefix = self.path.trim_end_matches('/');
        let mut paths = vec![self.path.clone(), format!("{prefix}/{{*below}}")];
        paths.extend((!prefix.is_empty()).then(|| format!("{prefix}/")));
        paths
    }

    /// Rejects paths that would panic in axum or that no request can match.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !self.path.starts_with('/') {
            return Err(self.wrong("a path begins with a slash"));
        }
        if self.path.contains("/:") || self.path.contains("/*") {
            return Err(self.wrong("a parameter is written {name}, the rest of a path {*name}"));
        }
        let is_tree = self.is_tree() && !self.fallback;
        if is_tree && (self.path.contains('{') || (self.path.len() > 1 && self.path.ends_with('/'))) {
            return Err(self.wrong("a path with all below it has no parameters, and no slash at its end"));
        }
        if self.rate.is_some_and(|rate| rate.per_minute == 0 || rate.burst == 0) {
            return Err(self.wrong("a rate limit allows at least one request a minute, and one at once"));
        }
        // matchit takes any text between the slashes.
        let is_of_a_url = |path: &str| Uri::try_from(path).is_ok_and(|uri| uri.path() == path);
        if !self.path.contains('{') && !is_of_a_url(&self.path) {
            return Err(self.wrong("is not the path of a URL"));
        }
        for (index, (method, ..)) in self.handlers.iter().enumerate() {
            if self.handlers[..index].iter().any(|(earlier, ..)| earlier == method) {
                let method = method.as_ref().map_or("any method", Method::as_str);
                return Err(self.wrong(format!("has two handlers for {method}")));
            }
        }
        for (method, _) in &self.limits_of {
            if !self.handlers.iter().any(|(known, ..)| known.as_ref() == Some(method)) {
                return Err(self.wrong(format!("has limits for {method} and no handler for it")));
            }
        }
        Ok(())
    }

    pub(crate) fn wrong(&self, why: impl Display) -> StartError {
        StartError::failed(format!("route {}: {why}", self.path))
    }

    pub(crate) fn into_info(self, state: &S) -> Result<RouteInfo, StartError> {
        let allow = self.allow().map_err(|error| self.wrong(error))?;
        let (template, paths) = (self.template(), self.paths());
        let mut handlers = Vec::with_capacity(self.handlers.len());
        for (method, handler, _) in self.handlers {
            let own = self.limits_of.iter().find(|(of, _)| Some(of) == method.as_ref());
            let limits = own.map_or(self.limits, |(_, limits)| limits.or(self.limits));
            handlers.push(MethodInfo {
                method,
                schema: limits.schema.map(|(name, text)| Schema::parse(name, text)).transpose()?,
                body_limit: limits.body_limit,
                body_min_rate: limits.body_min_rate,
                timeout: limits.timeout,
                endpoint: self
                    .checks
                    .iter()
                    .fold(handler(paths.clone(), state.clone(), &self.layers), |inner, check| {
                        inner.behind(check, state)
                    }),
            });
        }
        Ok(RouteInfo {
            template,
            allow,
            cross_site: self.cross_site,
            cors: self.cors,
            logged: self.logged,
            as_sent: self.as_sent,
            probe: self.probe,
            mounted: self.mounted,
            connect_info: self.connect_info,
            rate: self.rate,
            handlers,
        })
    }

    /// What `server routes` prints.
    pub(crate) fn line(&self) -> String {
        let allow = self.allow();
        let allow = allow.as_ref().map_or("", |allow| allow.to_str().unwrap_or_default());
        let cors = if self.cors.is_some() { "  cors" } else { "" };
        let cross_site = self.cross_site.map_or_else(String::new, |why| format!("  cross-site: {why}"));
        format!("{:<24} {allow}{cors}{cross_site}{}", self.template(), self.callers())
    }

    /// Who may call which of its handlers; nothing where everybody may call all.
    fn callers(&self) -> String {
        let of_group = self.guards.iter().find_map(|guard| callers::of(guard));
        let who = |arguments: &str| callers::of(arguments).or_else(|| of_group.clone());
        let lines = self.handlers.iter().filter_map(|(method, _, arguments)| {
            let method = method.as_ref().map_or("any", Method::as_str);
            Some(format!("{method} {}", who(arguments)?))
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { String::new() } else { format!("  callers: {}", lines.join("; ")) }
    }

    fn template(&self) -> String {
        if self.is_tree() { format!("{}/*", self.path.trim_end_matches('/')) } else { self.path.clone() }
    }

    fn allow(&self) -> Result<HeaderValue, axum::http::header::InvalidHeaderValue> {
        if self.handlers.iter().any(|(method, ..)| method.is_none()) {
            return Ok(HeaderValue::from_static(ANY));
        }
        let mut names: Vec<&str> =
            self.handlers.iter().filter_map(|(method, ..)| method.as_ref().map(Method::as_str)).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.push("OPTIONS");
        HeaderValue::try_from(names.join(", "))
    }
}

impl RouteInfo {
    /// The methods it has handlers for, without `HEAD` and `OPTIONS`, which every route has.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.handlers.iter().filter_map(|handler| handler.method.as_ref())
    }

    /// The handler of a method.
    pub(crate) fn handler(&self, method: &Method) -> Option<&MethodInfo> {
        let own = self.handlers.iter().find(|handler| handler.method.as_ref() == Some(method));
        own.or_else(|| self.handlers.iter().find(|handler| handler.is_any()))
    }
}

impl fmt::Debug for RouteInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.allow.to_str().unwrap_or_default(), self.template)
    }
}

/// The path, and the path with a slash at its end.
fn spellings(path: &str) -> Vec<String> {
    if path.ends_with('/') || path.contains("{*") {
        return vec![path.to_owned()];
    }
    vec![path.to_owned(), format!("{path}/")]
}
