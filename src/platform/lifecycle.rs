//! The life of the server: configuration, services, listening, signals, draining, the end.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cli::{Cli, Command};
use super::config::server::DebugMode;
use super::config::{self, Config, Loaded, Service};
use super::error::StartError;
use super::http::{self, Routes, Stack};
use super::logging::{Identity, Level, Logging, Threshold};
use super::services::{self, Services};
use super::shutdown::Signals;
use super::store::StoreUrl;

/// An app, ready to be served: its routes with their state.
pub struct App(Box<IntoStack>);

type IntoStack = dyn FnOnce(&http::Settings, Logging, bool) -> Result<Stack, StartError>;

impl App {
    /// Joins routes and state.
    pub fn new<S: Clone + Send + Sync + 'static>(routes: Routes<S>, state: S) -> Self {
        Self(Box::new(move |settings, logging, debug| Stack::new(routes, &state, settings, logging, debug)))
    }

    /// Puts the middleware around the routes.
    pub fn into_stack(
        self,
        settings: &http::Settings,
        logging: Logging,
        debug: bool,
    ) -> Result<Stack, StartError> {
        self.0(settings, logging, debug)
    }
}

/// How an app is built from the services and its own section of the configuration.
pub type Build<A> = fn(Services, A) -> Result<App, StartError>;

/// The whole program: what `main` returns.
pub fn main<A: Clone + DeserializeOwned + Serialize>(service: &Service, build: Build<A>) -> ExitCode {
    let run = || {
        let cli = Cli::read(service.name, service.version, &config::flag_defaults(service)?);
        if cli.command == Some(Command::Config { manual: true }) {
            return printed(config::write_manual(service, &mut io::stdout().lock()));
        }
        let loaded = config::load::<A>(&cli.flags, std::env::vars_os(), service)?;
        match cli.command {
            Some(Command::Config { .. }) => print_config(&loaded),
            Some(Command::Routes) => runtime()?.block_on(print_routes(loaded.config, build)),
            None => {
                loaded.check_servable()?;
                runtime()?.block_on(run(loaded.config, service.version, build))
            }
        }
    };
    run().unwrap_or_else(|error: StartError| {
        eprintln!("{}: {error}", service.name);
        ExitCode::from(error.exit_code)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| StartError::failed(format!("cannot start the runtime: {error}")))
}

fn print_config<A: Serialize>(loaded: &Loaded<A>) -> Result<ExitCode, StartError> {
    printed(loaded.print(&mut io::stdout().lock()))
}

async fn print_routes<A>(mut config: Config<A>, build: Build<A>) -> Result<ExitCode, StartError> {
    // The table does not depend on the store, and looking at it must not make one.
    config.store.url = StoreUrl::new("memory:");
    let services = open_services(&config, 1).await?;
    let stack = build(services, config.app)?.into_stack(&config.http, Logging::discard(), false)?;
    let mut out = io::stdout().lock();
    printed(stack.routes().iter().try_for_each(|route| {
        let allow = route.allow.to_str().unwrap_or_default();
        let cors = if route.cors.is_some() { "  cors" } else { "" };
        writeln!(out, "{:<24} {allow}{cors}", route.template)
    }))
}

/// A reader that has gone (`server config | head`) is no failure.
fn printed(result: io::Result<()>) -> Result<ExitCode, StartError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(StartError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn open_services<A>(config: &Config<A>, processes: u64) -> Result<Services, StartError> {
    Services::open(services::Settings {
        name: &config.server.name,
        debug: config.server.debug != DebugMode::Off,
        processes,
        store: &config.store,
        views: &config.views,
    })
    .await
}

async fn run<A: Clone>(config: Config<A>, version: &str, build: Build<A>) -> Result<ExitCode, StartError> {
    let mut signals =
        Signals::take().map_err(|error| StartError::failed(format!("cannot take signals: {error}")))?;
    let debug = config.server.debug != DebugMode::Off;
    let mut sinks = config.logging.clone();
    if debug {
        // Ours only: the libraries below write several lines for each request at this level.
        sinks.levels.entry("server".to_owned()).or_insert(Threshold::at(Level::Debug));
    }
    let logging = Logging::start(&sinks, &Identity { service: config.server.name.clone() })?;
    logging.install()?;
    log_panics();
    let services = open_services(&config, config.server.process_count()).await?;
    let app = build(services.clone(), config.app.clone())?;
    let stack = Arc::new(app.into_stack(&config.http, logging.clone(), debug)?);
    let host = &config.server.host;
    let port = u16::try_from(config.server.port.get()).unwrap_or_default();
    let listener = http::server::listen(host.as_str(), port).await?;
    let port = listener.local_addr().map_or(port, |address| address.port());
    tracing::info!(
        target: "server",
        url = %format_args!("http://{}:{port}", host.in_url()),
        name = config.server.name,
        version,
        store = %config.store.url,
        "listening"
    );

    let drain = http::server::Drain::default();
    let serving = tokio::spawn({
        let (settings, drain) = (config.http.clone(), drain.clone());
        async move { http::server::serve(listener, stack, &settings, drain).await }
    });
    let (signal, _) = signals.next().await;
    let deadline = config.server.shutdown.deadline.get();
    let connections = drain.connections();
    tracing::info!(target: "server", signal, connections, deadline = ?deadline, "draining");
    let drained = async {
        tokio::time::sleep(config.server.shutdown.linger.get()).await;
        drain.start(deadline);
        let served = serving.await;
        drain.ended().await;
        services.close().await;
        served
    };
    tokio::select! {
        (signal, code) = signals.next() => {
            tracing::warn!(target: "server", signal, "stopped at once by a second signal");
            logging.finish(FLUSH_DEADLINE);
            // Returning would wait for blocking work of the runtime; a second signal means now.
            std::process::exit(i32::from(code));
        }
        served = drained => match served {
            Ok(Ok(())) => tracing::info!(target: "server", "stopped"),
            Ok(Err(error)) => tracing::error!(target: "server", %error, "the server stopped with an error"),
            Err(error) => tracing::error!(target: "server", %error, "the server task failed"),
        }
    }
    logging.finish(FLUSH_DEADLINE);
    Ok(ExitCode::SUCCESS)
}

/// How long the log sinks get at the end; a dead one must not keep the process.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// A panic gets a line in the log, with its place; without this it would go to standard error alone.
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("of no known type");
        tracing::error!(target: "server.panic", place, message, "panic");
        if io::stderr().is_terminal() {
            default(panic);
        }
    }));
}
