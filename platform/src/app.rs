//! What an app is made of: its state, its routes, and what runs beside and after them.
//!
//! An [`App`] is a description. Nothing of it runs, and no service is opened, before [`App::open`].

mod own_jobs;

use std::any::type_name;
use std::convert::Infallible;
use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use clap::ArgMatches;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::service_fn;
use tracing_subscriber::registry::Registry;

#[cfg(feature = "auth")]
use super::auth::KeyNeed;
use super::cli::Flags;
use super::clock::Clock;
#[cfg(feature = "auth")]
use super::config::server::DebugMode;
use super::config::{self, Config, Service as Described};
use super::error::StartError;
use super::http::{self, ErrorFormat, HandlerLayer, Layers, Parts, Peer, RouteTable, Routes, Stack};
use super::logging::{AppLayer, Identity, Logging};
use super::scheduler::{Job, check_names};
use super::services::{self, Services};
use super::shutdown::Shutdown;
use super::store::{Dao, Declared, Entity};
use super::traces::Traces;

/// How long background tasks get at the end of a drain, besides what is left of its deadline; and how long a dropped one
/// has to be gone. One that blocks its thread never is.
const TASK_GRACE: Duration = Duration::from_millis(100);

/// How long each piece of the app's own work at the end gets at least, and then the services: what was before it may have
/// taken the whole deadline.
const END_GRACE: Duration = Duration::from_secs(1);

type Init<A, S> = Box<dyn FnOnce(Services, A) -> BoxFuture<'static, Result<S, StartError>> + Send>;
type MakeRoutes<A, S> = Box<dyn FnOnce(&A) -> Routes<S> + Send>;
type Task<S> = Box<dyn FnOnce(S, Shutdown) -> BoxFuture<'static, ()> + Send>;
type End<S> = Box<dyn FnOnce(S) -> BoxFuture<'static, ()> + Send>;
type MakeTracingLayer<A> = Box<dyn FnOnce(&A) -> AppLayer + Send>;
type RunCommand<S> = Box<dyn FnOnce(S, ArgMatches) -> BoxFuture<'static, Result<(), StartError>> + Send>;

/// An app, with its settings `A` (section `app` of the configuration) and the state `S` of its handlers.
pub struct App<A, S> {
    init: Init<A, S>,
    routes: MakeRoutes<A, S>,
    layers: Layers,
    tracing_layers: Vec<MakeTracingLayer<A>>,
    error_format: Option<ErrorFormat>,
    tasks: Vec<(&'static str, Task<S>)>,
    ends: Vec<(&'static str, End<S>)>,
    commands: Vec<(clap::Command, RunCommand<S>)>,
    entities: Vec<Declared>,
    jobs: Vec<Job<S>>,
    clock: Clock,
    needs_batches: bool,
}

impl<A, S> App<A, S>
where
    A: Clone + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    /// An app whose state is made by `init`, once, before the server listens, and whose routes may depend on the
    /// settings. An error of `init` is the reason why the server does not start.
    pub fn new<I, F>(init: I, routes: impl FnOnce(&A) -> Routes<S> + Send + 'static) -> Self
    where
        I: FnOnce(Services, A) -> F + Send + 'static,
        F: Future<Output = Result<S, StartError>> + Send + 'static,
    {
        Self {
            init: Box::new(move |services, settings| Box::pin(init(services, settings))),
            routes: Box::new(routes),
            layers: Layers::default(),
            tracing_layers: Vec::new(),
            error_format: None,
            tasks: Vec::new(),
            ends: Vec::new(),
            commands: Vec::new(),
            entities: Vec::new(),
            jobs: Vec::new(),
            clock: Clock::system(),
            needs_batches: false,
        }
    }

    /// Puts a tower layer around everything: all routes, and the responses to requests that no route takes. It is built
    /// once. A later layer is outside of an earlier one. See [`Route::layer`](super::http::Route::layer).
    pub fn layer(mut self, layer: impl HandlerLayer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds a layer of `tracing-subscriber` (Sentry, tokio-console) beside the log. Each process makes it once, of the settings,
    /// before it opens anything. It has its own filter, and without one it sees all events and spans, whatever `logging` says.
    /// Only the program has it: [`App::into_router`] and `TestApp` install no subscriber.
    pub fn tracing_layer<L>(mut self, make: impl FnOnce(&A) -> L + Send + 'static) -> Self
    where
        L: tracing_subscriber::Layer<Registry> + Send + Sync,
    {
        self.tracing_layers.push(Box::new(|settings| make(settings).boxed()));
        self
    }

    /// Names a type that the app stores, where no route does ([`Routes::entity`]). Its collection and its indexes are created at the start, before `init`, and not at
    /// the first call: so an index that cannot be created is the reason why the server does not start. A store that does
    /// not respond at the start delays that to the first call.
    pub fn entity<T: Entity>(mut self) -> Self {
        self.entities.push(Dao::<T>::DECLARED);
        self
    }

    /// Says that the app writes by [`Batch`](super::store::Batch). Then the server does not start with a store that has none:
    /// a stand-alone MongoDB. Where the store does not respond at the start, the commits fail instead.
    pub fn needs_batches(mut self) -> Self {
        self.needs_batches = true;
        self
    }

    /// Reshapes the JSON body of every error response to a form of the app's own.
    pub fn error_body(mut self, format: ErrorFormat) -> Self {
        self.error_format = Some(format);
        self
    }

    /// Runs a task beside the requests, from the moment at which the server listens. It should end soon after
    /// [`Shutdown::begun`]; services are closed when it has ended, or at the deadline of the drain, at which it is
    /// dropped. The log names a task that panics or that ends before the drain; it is not started again.
    pub fn task<T, F>(mut self, name: &'static str, task: T) -> Self
    where
        T: FnOnce(S, Shutdown) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push((name, Box::new(move |state, shutdown| Box::pin(task(state, shutdown)))));
        self
    }

    /// Runs a job at the times of its schedule, beside the requests; see [`scheduler`](crate::scheduler).
    pub fn job(mut self, job: Job<S>) -> Self {
        self.jobs.push(job);
        self
    }

    /// Runs the jobs of a slice.
    pub fn jobs(mut self, jobs: impl IntoIterator<Item = Job<S>>) -> Self {
        self.jobs.extend(jobs);
        self
    }

    /// The clock of jobs, sessions, links and throttles, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs at the end of the server, when all requests and tasks have ended and the services are still open. It has what
    /// is left of the deadline of the drain, and at least a second; then it is dropped, and the log names it.
    pub fn on_shutdown<T, F>(mut self, end: T) -> Self
    where
        T: FnOnce(S) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.ends.push((type_name::<T>(), Box::new(move |state| Box::pin(end(state)))));
        self
    }

    /// Adds a subcommand to the program. It gets the state, and runs instead of the server: nothing listens, no task is
    /// started, and nothing of [`App::on_shutdown`] runs. It logs as the server does. An error is printed, with its exit
    /// code. A name or a flag that the platform has itself is an error at the start.
    pub fn command<T, F>(mut self, command: clap::Command, run: T) -> Self
    where
        T: FnOnce(S, ArgMatches) -> F + Send + 'static,
        F: Future<Output = Result<(), StartError>> + Send + 'static,
    {
        self.commands.push((command, Box::new(move |state, matches| Box::pin(run(state, matches)))));
        self
    }

    /// Makes the layers beside the log. They are made once.
    pub(crate) fn take_tracing_layers(&mut self, settings: &A) -> Vec<AppLayer> {
        self.tracing_layers.drain(..).map(|make| make(settings)).collect()
    }

    /// The subcommands that the app adds.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &clap::Command> {
        self.commands.iter().map(|(command, _)| command)
    }

    /// Returns the routes without opening services.
    pub(crate) fn routes(self, settings: &A) -> Routes<S> {
        (self.routes)(settings)
    }

    /// Returns what the app declares of the types that it stores, without opening services.
    pub(crate) fn into_entities(self, settings: &A) -> Vec<Declared> {
        [self.entities, (self.routes)(settings).entities().to_vec()].concat()
    }

    /// Runs a subcommand of the app.
    pub(crate) async fn run_command(
        self,
        name: &str,
        matches: ArgMatches,
        config: &Config<A>,
    ) -> Result<(), StartError> {
        let Some((_, run)) = self.commands.into_iter().find(|(command, _)| command.get_name() == name) else {
            return Err(StartError::config(format!("there is no subcommand '{name}'")));
        };
        let routes = (self.routes)(&config.app);
        let entities = [&self.entities, routes.entities()].concat();
        let services = open_services(config, self.clock.clone(), routes.needs().keys).await?;
        if self.needs_batches {
            services.check_batches().await?;
        }
        services.prepare(&entities).await?;
        let result = match (self.init)(services.clone(), config.app.clone()).await {
            Ok(state) => run(state, matches).await,
            Err(error) => Err(error),
        };
        services.close().await;
        result
    }

    /// The app as an axum router, for code that expects one: `axum::serve`, a test client, a serverless runtime. The settings
    /// are those of the service, and of these variables (`std::env::vars_os()`). The middleware is in it; what belongs to
    /// the server (the deadlines of connections, the drain) and the background tasks are not.
    pub async fn into_router(
        self,
        service: &Described,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Router, StartError>
    where
        A: DeserializeOwned,
    {
        let loaded = config::load::<A>(&Flags::default(), environment, service)?;
        loaded.check_servable()?;
        let config = loaded.config;
        let identity = Identity { service: config.server.name.clone(), worker: None };
        let logging = Logging::start(&config.logging, &identity)?;
        Ok(self.open(&config, logging).await?.into_router())
    }

    /// Opens the services, makes the state, and builds the routes and the layers.
    pub async fn open(self, config: &Config<A>, logging: Logging) -> Result<OpenApp, StartError> {
        let routes = (self.routes)(&config.app);
        let entities = [&self.entities, routes.entities()].concat();
        let services = open_services(config, self.clock.clone(), routes.needs().keys).await?;
        if self.needs_batches {
            services.check_batches().await?;
        }
        for name in routes.upstreams() {
            services.connector(name)?;
        }
        services.prepare(&entities).await?;
        let state = (self.init)(services.clone(), config.app.clone()).await?;
        let needs = routes.needs();
        let mailer = services.mailer();
        let folder = mailer.folder().filter(|_| needs.mail && services.debug());
        let routes = match folder {
            Some(folder) => routes.merge(http::mails(folder)),
            None => routes,
        };
        let table: RouteTable = routes.build(&state)?;
        let traces = Traces::open(&config.traces, &config.server.name)?.map(Arc::new);
        let parts = Parts {
            table,
            layers: self.layers,
            error_format: self.error_format,
            counts: config.metrics.is_on(),
            traces: traces.clone(),
            public_url: config.server.public_url.clone(),
        };
        let debug = config.server.debug.is_on();
        let stack = Arc::new(Stack::new(parts, &config.http, logging, debug)?);
        let of_state = state.clone();
        let tasks = self.tasks.into_iter().map(|(name, task)| {
            let state = of_state.clone();
            (name, Box::new(move |shutdown| task(state, shutdown)) as OpenTask)
        });
        let mut tasks: Vec<_> = tasks.collect();
        let jobs = self.jobs.into_iter().chain(own_jobs::own_jobs(needs, &services));
        let jobs: Vec<Job<S>> = jobs.collect();
        check_names(jobs.iter().map(Job::name))?;
        for job in jobs.into_iter().filter(|job| job.is_on(&of_state)) {
            let job = job.open(state.clone(), self.clock.clone(), services.locks())?;
            tasks.push((
                job.name,
                Box::new(move |shutdown| Box::pin(job.serve(shutdown)) as BoxFuture<'static, ()>),
            ));
        }
        let ends = self.ends.into_iter().map(|(name, end)| {
            let state = state.clone();
            (name, Box::new(move || end(state)) as OpenEnd)
        });
        Ok(OpenApp { services, stack, traces, tasks, ends: ends.collect() })
    }
}

async fn open_services<A>(
    config: &Config<A>,
    clock: Clock,
    #[cfg_attr(not(feature = "auth"), expect(unused_variables, reason = "there is nothing to sign"))]
    needs_keys: bool,
) -> Result<Services, StartError> {
    Services::open(services::Settings {
        name: &config.server.name,
        env: &config.server.env,
        debug: config.server.debug.is_on(),
        public_url: config.server.public_url(),
        public_url_is_secure: config.server.public_url.is_secure(),
        #[cfg(feature = "auth")]
        key_need: match config.server.debug {
            _ if !needs_keys => KeyNeed::No,
            DebugMode::On => KeyNeed::Development,
            DebugMode::Off | DebugMode::Exposed => KeyNeed::Yes,
        },
        clock,
        #[cfg(feature = "auth")]
        auth: &config.auth,
        mail: &config.mail,
        counts: config.metrics.is_on(),
        processes: config.server.process_count(),
        store: &config.store,
        cache: &config.cache,
        lock: &config.lock,
        connector: &config.connector,
        upstreams: &config.upstreams,
        views: &config.views,
        health: &config.health,
    })
    .await
}

type OpenTask = Box<dyn FnOnce(Shutdown) -> BoxFuture<'static, ()> + Send>;
type OpenEnd = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// An app with its state and its services, ready to respond. Its background tasks do not run yet.
pub struct OpenApp {
    services: Services,
    stack: Arc<Stack>,
    traces: Option<Arc<Traces>>,
    tasks: Vec<(&'static str, OpenTask)>,
    ends: Vec<(&'static str, OpenEnd)>,
}

impl OpenApp {
    /// The middleware with everything behind it.
    pub fn stack(&self) -> Arc<Stack> {
        Arc::clone(&self.stack)
    }

    /// The services.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// How long [`OpenApp::close`] may take with no time left.
    pub(crate) fn time_to_close(&self) -> Duration {
        let (services, traces) = (1, usize::from(self.traces.is_some()));
        (END_GRACE + TASK_GRACE) * u32::try_from(self.ends.len() + services + traces).unwrap_or(u32::MAX)
    }

    /// The app as an axum router, see [`App::into_router`].
    pub fn into_router(self) -> Router {
        let stack = self.stack;
        Router::new().fallback_service(service_fn(move |request: Request| {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| Peer::new(info.0));
            Arc::clone(&stack).respond(peer, request).map(Ok::<_, Infallible>)
        }))
    }

    /// Starts the background tasks.
    pub fn start_tasks(&mut self) -> Tasks {
        let shutdown = self.stack.shutdown();
        let start = |(name, task): (&'static str, OpenTask)| {
            let shutdown = shutdown.clone();
            let running = async move {
                let ended = AssertUnwindSafe(async { task(shutdown.clone()).await }).catch_unwind().await;
                if ended.is_err() {
                    tracing::error!(target: "server", task = name, "a background task panicked");
                } else if !shutdown.has_begun() {
                    tracing::info!(target: "server", task = name, "a background task has ended");
                }
            };
            (name, tokio::spawn(running))
        };
        Tasks(self.tasks.drain(..).map(start).collect())
    }

    /// What the app does at the end, and then the end of the services, all within this time; but each has a second.
    /// Whatever of it panics or takes too long, the rest is done. Returns whether all of it was done.
    pub async fn close(self, time: Duration) -> bool {
        let mut complete = true;
        let deadline = Instant::now() + time;
        let until = || deadline.max(Instant::now() + END_GRACE);
        for (function, end) in self.ends {
            // A task of its own: one that blocks its thread can be left behind.
            let ending = tokio::spawn(async move { end().await });
            let ended = until_dropped(ending, until()).await;
            complete &= ended == Ended::Itself;
            match ended {
                Ended::Itself => {}
                Ended::Panicked => tracing::error!(target: "server", function, "work at the end panicked"),
                Ended::Dropped => {
                    tracing::warn!(target: "server", function, "work at the end was dropped at the deadline");
                }
            }
        }
        if let Some(traces) = self.traces {
            let left = until().saturating_duration_since(Instant::now());
            // It blocks its thread, and ends by itself.
            let _ = tokio::task::spawn_blocking(move || traces.close(left)).await;
        }
        let closing = tokio::spawn(async move { self.services.close().await });
        if until_dropped(closing, until()).await != Ended::Itself {
            tracing::warn!(target: "server", "the services were not closed in time");
            complete = false;
        }
        complete
    }
}

/// The background tasks that run.
pub struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    /// Waits until all have ended; those that have not within this time are dropped, and named in the log. Returns
    /// whether none was dropped.
    pub async fn join(self, time: Duration) -> bool {
        let mut complete = true;
        let until = Instant::now() + time + TASK_GRACE;
        for (task, handle) in self.0 {
            if until_dropped(handle, until).await == Ended::Dropped {
                tracing::warn!(target: "server", task, "a background task was dropped at the deadline");
                complete = false;
            }
        }
        complete
    }
}

/// How a task has ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Itself,
    Panicked,
    Dropped,
}

/// Waits for a task until this time, and drops it then.
async fn until_dropped(mut task: JoinHandle<()>, until: Instant) -> Ended {
    match tokio::time::timeout_at(until, &mut task).await {
        Ok(Ok(())) => Ended::Itself,
        Ok(Err(_)) => Ended::Panicked,
        Err(_) => {
            task.abort();
            // Until it has been dropped it could still use a service.
            let _ = tokio::time::timeout(TASK_GRACE, task).await;
            Ended::Dropped
        }
    }
}
