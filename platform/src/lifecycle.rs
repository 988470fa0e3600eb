//! The life of the program: command line, configuration, listening, signals, drain, end.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::app::App;
use super::cli::{Command, Invocation};
use super::config::{self, Config, Loaded, Service};
use super::error::StartError;
use super::http;
use super::http::server::Drain;
use super::logging::{Identity, Level, Logging, Threshold};
use super::shutdown::Signals;

/// How long work that blocks a thread gets at the end of the program.
const BLOCKED_GRACE: Duration = Duration::from_secs(1);

/// How long the log sinks get at the end; a dead one must not keep the process.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// The whole program: what `main` returns.
pub fn main<A, S>(service: &Service, app: App<A, S>) -> ExitCode
where
    A: Clone + DeserializeOwned + Serialize + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    dispatch(service, app).unwrap_or_else(|error| {
        eprintln!("{}: {error}", service.name);
        ExitCode::from(error.exit_code)
    })
}

fn dispatch<A, S>(service: &Service, app: App<A, S>) -> Result<ExitCode, StartError>
where
    A: Clone + DeserializeOwned + Serialize + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let shown = config::flag_defaults(service)?;
    let invocation = Invocation::read(service.name, service.version, &shown, app.commands())?;
    let load = |flags| config::load::<A>(flags, std::env::vars_os(), service);
    match invocation {
        Invocation::Platform(cli) => match cli.command {
            Some(Command::Config { manual: true }) => {
                printed(config::write_manual(service, &mut io::stdout().lock()))
            }
            Some(Command::Config { manual: false }) => print_config(&load(&cli.flags)?),
            Some(Command::Routes) => print_routes(&load(&cli.flags)?.config, app),
            None => {
                let loaded = load(&cli.flags)?;
                loaded.check_servable()?;
                block_on(run(service, loaded.config, app))
            }
        },
        Invocation::App { flags, name, matches } => {
            let loaded = load(&flags)?;
            loaded.check_servable()?;
            block_on(async {
                let logging = start_logging(service, &loaded.config)?;
                let result = app.run_command(&name, matches, &loaded.config).await;
                logging.finish(FLUSH_DEADLINE);
                result.map(|()| ExitCode::SUCCESS)
            })
        }
    }
}

/// Runs the future on a new runtime. What still blocks a thread after it does not keep the program.
fn block_on<T>(future: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| StartError::failed(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(BLOCKED_GRACE);
    result
}

/// Starts the log, for `tracing` and for panics too.
fn start_logging<A>(service: &Service, config: &Config<A>) -> Result<Logging, StartError> {
    let mut sinks = config.logging.clone();
    if config.server.debug.is_on() {
        // The platform and the app only: the libraries below write several lines for each request at this level.
        for logger in ["server", "platform", service.name] {
            sinks.levels.entry(logger.replace('-', "_")).or_insert(Threshold::at(Level::Debug));
        }
    }
    let logging = Logging::start(&sinks, &Identity { service: config.server.name.clone() })?;
    logging.install()?;
    log_panics();
    Ok(logging)
}

fn print_config<A: Serialize>(loaded: &Loaded<A>) -> Result<ExitCode, StartError> {
    printed(loaded.print(&mut io::stdout().lock()))
}

fn print_routes<A, S>(config: &Config<A>, app: App<A, S>) -> Result<ExitCode, StartError>
where
    A: Clone + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let mut out = io::stdout().lock();
    printed(app.routes(&config.app).lines().iter().try_for_each(|line| writeln!(out, "{line}")))
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

async fn run<A, S>(service: &Service, config: Config<A>, app: App<A, S>) -> Result<ExitCode, StartError>
where
    A: Clone + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let mut signals =
        Signals::take().map_err(|error| StartError::failed(format!("cannot take signals: {error}")))?;
    let logging = start_logging(service, &config)?;
    let host = &config.server.host;
    let port = u16::try_from(config.server.port.get()).unwrap_or_default();
    let starting = async {
        let app = app.open(&config, logging.clone()).await?;
        Ok::<_, StartError>((app, http::server::listen(host.as_str(), port).await?))
    };
    let (mut app, listener) = tokio::select! {
        started = starting => started?,
        (signal, _) = signals.next() => {
            tracing::info!(target: "server", signal, "stopped before it listened");
            logging.finish(FLUSH_DEADLINE);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let port = listener.local_addr().map_or(port, |address| address.port());
    tracing::info!(
        target: "server",
        url = %format_args!("http://{}:{port}", host.in_url()),
        name = config.server.name,
        version = service.version,
        store = %config.store.url,
        "listening"
    );

    let stack = app.stack();
    let drain = Drain::new(stack.shutdown().clone());
    let tasks = app.start_tasks();
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
        let begun = tokio::time::Instant::now();
        drain.start(deadline);
        let served = serving.await;
        tasks.join(deadline.saturating_sub(begun.elapsed())).await;
        app.close(deadline.saturating_sub(begun.elapsed())).await;
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

/// A panic gets a line in the log, with its location; without this it would go to standard error alone.
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("of no known type");
        tracing::error!(target: "server.panic", location, message, "panic");
        if io::stderr().is_terminal() {
            default(panic);
        }
    }));
}
