//! The router table: which paths exist, and the route of each.
//!
//! axum's router does not tell which methods a path has. The table does: it answers `OPTIONS`, 404 and 405, prints
//! `server routes`, gives the log its route template, and finds the handler. Every path is also accepted with a
//! trailing slash.

use axum::Router;
use axum::extract::FromRequestParts;
use axum::handler::Handler;

use super::cors::Cors;
use super::layer::{HandlerLayer, SharedLayer};
use super::limits::Limits;
use super::route::{Route, RouteInfo};
#[cfg(feature = "auth")]
use crate::auth::{Account, Bucket, KeptLink, KeptSession, KeptToken};
use crate::connector::Upstream;
use crate::error::StartError;
use crate::mail::KeptMail;
use crate::store::{Dao, Declared, Entity};

/// The routes of a slice, or of the whole app.
#[expect(clippy::struct_field_names, reason = "the routes among what the routes need")]
pub struct Routes<S> {
    routes: Vec<Route<S>>,
    entities: Vec<Declared>,
    upstreams: Vec<&'static str>,
    needs: Needs,
}

/// What the routes need of the platform besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Cookies are signed or encrypted.
    pub(crate) keys: bool,
    /// What has ended of accounts is swept away.
    pub(crate) accounts: bool,
    /// Mails are sent.
    pub(crate) mail: bool,
}

impl Needs {
    fn and(self, other: Self) -> Self {
        Self {
            keys: self.keys || other.keys,
            accounts: self.accounts || other.accounts,
            mail: self.mail || other.mail,
        }
    }
}

impl<S> Default for Routes<S> {
    fn default() -> Self {
        Self { routes: Vec::new(), entities: Vec::new(), upstreams: Vec::new(), needs: Needs::default() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one route.
    pub fn route(mut self, route: Route<S>) -> Self {
        self.upstreams.extend(route.upstream());
        self.routes.push(route);
        self
    }

    /// Names a type that these routes store, see [`App::entity`](crate::App::entity).
    pub fn entity<T: Entity>(mut self) -> Self {
        self.entities.push(Dao::<T>::DECLARED);
        self
    }

    /// Says that people log in by these routes: declares the collections of users, sessions and links, and has a job sweep
    /// away what has ended.
    #[cfg(feature = "auth")]
    pub fn accounts<U: Account>(mut self) -> Self {
        self.needs.accounts = true;
        self.needs.keys = true;
        let routes = self.entity::<U>().entity::<KeptSession>().entity::<KeptLink>();
        routes.entity::<KeptToken>().entity::<Bucket>().mail()
    }

    /// Names a service that these routes call ([`ConnectorTo`](crate::http::ConnectorTo)): where the configuration does not have it,
    /// the server does not start.
    pub fn upstream<U: Upstream>(mut self) -> Self {
        self.upstreams.push(U::NAME);
        self
    }

    /// Says that these routes sign or encrypt cookies. Then the server does not start without keys (`auth.keys`), but with
    /// `--debug` on this machine.
    pub fn needs_keys(mut self) -> Self {
        self.needs.keys = true;
        self
    }

    /// Says that these routes send mails ([`Mailer`](crate::mail::Mailer)): the job `mail` runs, and with `--debug` and
    /// `mail.url: file:…` the mails are at `/debug/mails`.
    pub fn mail(mut self) -> Self {
        self.needs.mail = true;
        self.entity::<KeptMail>()
    }

    /// Adds the routes of a slice.
    pub fn merge(mut self, slice: Self) -> Self {
        self.routes.extend(slice.routes);
        self.entities.extend(slice.entities);
        self.upstreams.extend(slice.upstreams);
        self.needs = self.needs.and(slice.needs);
        self
    }

    /// Adds routes below a path: `/v1` and `/tasks` become `/v1/tasks`. What the group has of its own is said before it is nested:
    /// [`Routes::cors`], [`Routes::limits`], [`Routes::layer`], [`Routes::fallback`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use platform::http::{Cors, Limits, Route, Routes};
    ///
    /// let tasks = Routes::<()>::new()
    ///     .route(Route::at("/tasks").get(async || "all"))
    ///     .fallback(async || "no such path of version 1")
    ///     .cors(Cors::any())
    ///     .limits(Limits::default().timeout(Duration::from_secs(5)));
    /// let all = Routes::new().nest("/v1", tasks);
    /// ```
    pub fn nest(self, prefix: &str, group: Self) -> Self {
        self.merge(group.each(|route| route.nest(prefix)))
    }

    fn each(mut self, change: impl FnMut(Route<S>) -> Route<S>) -> Self {
        self.routes = self.routes.into_iter().map(change).collect();
        self
    }

    /// Lets pages of other sites call the routes added so far that say nothing of it themselves.
    pub fn cors(self, cors: Cors) -> Self {
        self.each(|route| route.or(Some(&cors), Limits::default()))
    }

    /// Lets only those in whom this extractor lets in, on all routes added so far: `guard::<Caller<User>>()`. It is asked
    /// before everything else of a route, and what it has read is not read again by the handler.
    pub fn guard<G: FromRequestParts<S> + 'static>(self) -> Self {
        self.each(Route::guard::<G>)
    }

    /// Limits of the routes added so far, where one has none of its own.
    pub fn limits(self, limits: Limits) -> Self {
        self.each(|route| route.or(None, limits))
    }

    /// Responds where no other route matches, with every method: everywhere, or below the path at which these routes are
    /// nested. The innermost fallback wins.
    pub fn fallback<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
        self.route(Route::fallback(handler))
    }

    /// Puts an axum router at this path and everything below it: a documentation UI, a service of another library. It
    /// gets every method and sees paths without the prefix; its error responses are its own. The request id, the line in
    /// the log, the deadlines and the limits hold as for every route. [`Route::mount`] gives it limits of its own.
    pub fn mount(self, path: &str, router: Router) -> Self {
        self.route(Route::mount(path, router))
    }

    /// Puts a tower layer around all routes added so far. It is built once, at start, and they share it: a limit counts
    /// the requests of all of them. See [`Route::layer`].
    pub fn layer(self, layer: impl HandlerLayer) -> Self {
        let layer = SharedLayer::new(layer);
        self.each(|route| route.with_layer(layer.clone()))
    }

    /// A line for each route: its path, its methods, and whether pages of other sites may call it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.routes.iter().map(Route::line).collect()
    }

    /// The types that the routes store.
    pub(crate) fn entities(&self) -> &[Declared] {
        &self.entities
    }

    /// What the routes need of the platform.
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// The names of the services that the routes call.
    pub(crate) fn upstreams(&self) -> &[&'static str] {
        &self.upstreams
    }

    /// The table. Refuses two routes that match the same paths, two handlers for one method, a malformed path and a
    /// broken schema.
    pub(crate) fn build(self, state: &S) -> Result<RouteTable, StartError> {
        let mut table = RouteTable::default();
        let (fallbacks, routes): (Vec<_>, Vec<_>) = self.routes.into_iter().partition(Route::is_fallback);
        for route in routes.into_iter().chain(fallbacks) {
            route.check()?;
            for path in route.paths() {
                let gives_way = route.is_fallback() && !path.contains("{*");
                let inserted = table.paths.insert(path, table.routes.len());
                inserted.or_else(|error| if gives_way { Ok(()) } else { Err(route.wrong(error)) })?;
            }
            table.routes.push(route.into_info(state)?);
        }
        Ok(table)
    }
}

/// All routes, by path.
#[derive(Default)]
pub struct RouteTable {
    /// For each path the index of its route.
    paths: matchit::Router<usize>,
    routes: Vec<RouteInfo>,
}

impl RouteTable {
    /// The index of the route of a path (still percent-encoded, without the query).
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        self.paths.at(path).ok().map(|found| *found.value)
    }

    /// The route at this index.
    pub(crate) fn get(&self, index: usize) -> Option<&RouteInfo> {
        self.routes.get(index)
    }

    /// All routes in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

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
    fn a_mounted_router_is_found_at_its_prefix_and_below_it() {
        let table = Routes::<()>::new().mount("/docs", Router::new()).build(&()).unwrap();
        for path in ["/docs", "/docs/", "/docs/a/b", "/docs/a/"] {
            assert_eq!(table.get(table.find(path).unwrap()).unwrap().template, "/docs/*", "{path}");
        }
        assert!(table.find("/docsx").is_none() && table.find("/").is_none());
    }

    #[test]
    fn what_axum_would_panic_at_is_refused_at_start() {
        let refused_all = |routes: Routes<()>| {
            let routes = Routes::new().route(Route::at("/tasks/{id}").get(nothing)).merge(routes);
            routes.build(&()).err().unwrap().to_string()
        };
        let refused = |route: Route<()>| refused_all(Routes::new().route(route));
        let taken = refused(Route::at("/tasks/{name}").get(nothing));
        assert!(taken.starts_with("route /tasks/{name}: "), "{taken}");
        assert!(refused(Route::at("/{tasks").get(nothing)).starts_with("route /{tasks: "));
        assert_eq!(refused(Route::at("here").get(nothing)), "route here: a path begins with a slash");
        let old = refused(Route::at("/lists/:id").get(nothing));
        assert_eq!(old, "route /lists/:id: a parameter is written {name}, the rest of a path {*name}");
        assert_eq!(refused(Route::at("/a b").get(nothing)), "route /a b: is not the path of a URL");
        assert_eq!(refused(Route::at("/a?b").get(nothing)), "route /a?b: is not the path of a URL");
        let twice = refused(Route::at("/lists").get(nothing).post(nothing).get(nothing));
        assert_eq!(twice, "route /lists: has two handlers for GET");
        let twice = refused(Route::at("/lists").any(nothing).any(nothing));
        assert_eq!(twice, "route /lists: has two handlers for any method");
        let limits = refused(Route::at("/lists").get(nothing).limits(Method::POST, Limits::default()));
        assert_eq!(limits, "route /lists: has limits for POST and no handler for it");
        for path in ["/docs/", "/{docs}"] {
            let refused = refused_all(Routes::new().mount(path, Router::new()));
            assert!(refused.contains("a path with all below it has no parameters"), "{refused}");
        }
        assert!(refused_all(Routes::new().mount("/tasks", Router::new())).starts_with("route /tasks: "));
    }
}
