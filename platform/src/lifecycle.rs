//! The life of the program: command line, configuration, listening, signals, drain, end.

mod forced_exit;
mod https;
mod open_files;
mod processes;
mod shutdown_trigger;
mod store;

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::metrics::gauge;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::app::App;
#[cfg(feature = "auth")]
use super::auth;
use super::cli::{Command, Flags, Invocation};
use super::config::{self, Config, Loaded, Service};
use super::connector;
use super::doctor;
use super::error::StartError;
use super::http;
use super::http::server::Drain;
use super::logging::{self, Identity, Level, Logging, Threshold};
use super::metrics::{self, Recorder};
use super::process::Worker;
use super::process::manager::{self, Told};
use super::shutdown::{self, Signals, exit};
use super::tls;
use forced_exit::ForcedExit;
use processes::Source;
use shutdown_trigger::ShutdownTrigger;

/// How long work that blocks a thread gets at the end of the program.
const BLOCKED_GRACE: Duration = Duration::from_secs(1);

/// How long the log sinks get at the end; a dead one must not keep the process.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// How much longer than its deadlines a stop may take before the process is ended from outside of its runtime: connections
/// and tasks that are cut, the log, and what still blocks a thread have some seconds together.
const END_GRACE: Duration = Duration::from_secs(8);

/// The whole program: what `main` returns.
pub fn main<A, S>(service: &Service, app: App<A, S>) -> ExitCode
where
    A: Clone + DeserializeOwned + Serialize + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    connector::install_tls_provider();
    dispatch(service, app).unwrap_or_else(|error| {
        eprintln!("{}: {error}", service.name);
        ExitCode::from(error.exit_code)
    })
}

fn dispatch<A, S>(service: &Service, mut app: App<A, S>) -> Result<ExitCode, StartError>
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
            Some(Command::Keys { overwrite }) => {
                let done = tls::write_pair(&load(&cli.flags)?.config.server.tls, overwrite)?;
                printed(writeln!(io::stdout().lock(), "{done}"))
            }
            #[cfg(feature = "auth")]
            Some(Command::Secrets) => printed(writeln!(io::stdout().lock(), "{}", auth::new_key()?)),
            Some(Command::Routes) => print_routes(&load(&cli.flags)?.config, app),
            Some(Command::Healthcheck) => healthcheck(load(&cli.flags)),
            Some(Command::Doctor) => {
                let loaded = load(&cli.flags)?;
                loaded.check_servable()?;
                let findings = block_on(async { Ok(doctor::examine(&loaded.config).await) })?;
                printed(doctor::write(&findings, &mut io::stdout().lock()))?;
                Ok(ExitCode::from(u8::from(findings.iter().any(doctor::Finding::has_failed))))
            }
            Some(Command::Store(command)) => {
                let config = load(&cli.flags)?.config;
                block_on(async {
                    let logging = start_logging(service, &config, &mut app, None)?;
                    let declared = app.into_entities(&config.app);
                    let result = store::run(command, &config.store, &declared).await;
                    logging.finish(FLUSH_DEADLINE);
                    result
                })
            }
            None => match cli.worker {
                Some(number) => {
                    let mut worker = Worker::join(number, service.name)?;
                    let source = Source::with(&cli.flags, worker.configuration.take(), service)?;
                    let listener = worker.take_listener();
                    let launch = Launch { listener, worker: Some(worker), read_again: None };
                    let threads = source.loaded.config.server.threads();
                    block_on_threads(threads, run(service, source.loaded.config, app, launch))
                }
                None => serve(service, &cli.flags, app),
            },
        },
        Invocation::App { flags, name, matches } => {
            let loaded = load(&flags)?;
            loaded.check_servable()?;
            block_on(async {
                let logging = start_logging(service, &loaded.config, &mut app, None)?;
                let result = app.run_command(&name, matches, &loaded.config).await;
                logging.finish(FLUSH_DEADLINE);
                result.map(|()| ExitCode::SUCCESS)
            })
        }
    }
}

/// Asks the running server. Whatever is wrong is exit code 1: Docker reserves 2.
fn healthcheck<A>(loaded: Result<Loaded<A>, StartError>) -> Result<ExitCode, StartError> {
    let asked = loaded.and_then(|loaded| block_on(doctor::healthcheck(&loaded.config)));
    let answer = asked.map_err(|error| StartError::failed(error.to_string()))?;
    printed(writeln!(io::stdout().lock(), "{answer}"))
}

/// Serves: with this process, or with several of which it is the supervisor.
fn serve<A, S>(service: &Service, flags: &Flags, mut app: App<A, S>) -> Result<ExitCode, StartError>
where
    A: Clone + DeserializeOwned + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    // Before there is a second thread: this changes the environment.
    let listener = manager::take_listener()?;
    let mut flags = flags.clone();
    if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
        // As if the address had been given: the log has it, and `--debug` is refused on one that others reach.
        (flags.host, flags.port) = (Some(address.ip().to_string()), Some(address.port().to_string()));
    }
    let source = Source::<A>::read(&flags, service, None)?;
    if source.loaded.config.server.process_count() == 1 {
        let read_again = || Ok(sinks(service, &Source::<A>::read(&flags, service, None)?.loaded.config));
        let launch = Launch { listener, worker: None, read_again: Some(&read_again) };
        return block_on(run(service, source.loaded.config, app, launch));
    }
    // It waits most of the time: one thread is enough.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| StartError::failed(format!("cannot start the runtime: {error}")))?;
    let logging = start_logging(service, &source.loaded.config, &mut app, None)?;
    runtime.block_on(processes::run(service, &flags, source, listener, &logging))
}

/// Runs the future on a new runtime. What still blocks a thread after it does not keep the program.
fn block_on<T>(future: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    block_on_threads(None, future)
}

/// [`block_on`] with so many threads, or with as many as tokio takes.
fn block_on_threads<T>(
    threads: Option<usize>,
    future: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build();
    let runtime =
        runtime.map_err(|error| StartError::failed(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(async {
        survive_large_files()?;
        future.await
    });
    runtime.shutdown_timeout(BLOCKED_GRACE);
    result
}

fn survive_large_files() -> Result<(), StartError> {
    shutdown::survive_large_files()
        .map_err(|error| StartError::failed(format!("cannot take signals: {error}")))
}

/// Starts the log, for `tracing` and for panics too.
fn start_logging<A, S>(
    service: &Service,
    config: &Config<A>,
    app: &mut App<A, S>,
    worker: Option<u16>,
) -> Result<Logging, StartError>
where
    A: Clone + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let identity = Identity { service: config.server.name.clone(), worker };
    let logging = Logging::start(&sinks(service, config), &identity)?;
    logging.install(app.take_tracing_layers(&config.app))?;
    log_panics();
    Ok(logging)
}

/// The settings of the log.
fn sinks<A>(service: &Service, config: &Config<A>) -> logging::Settings {
    let mut sinks = config.logging.clone();
    if config.server.debug.is_on() {
        // The platform and the app only: the libraries below write several lines for each request at this level.
        for logger in ["server", "platform", service.name] {
            sinks.levels.entry(logger.replace('-', "_")).or_insert(Threshold::at(Level::Debug));
        }
    }
    sinks
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

/// What a serving process is started with.
struct Launch<'a> {
    /// The listening socket that another process has handed over.
    listener: Option<TcpListener>,
    worker: Option<Worker>,
    /// Reads the settings of the log anew, where this process itself is told to.
    read_again: Option<&'a ReadAgain<'a>>,
}

/// Reads the configuration, and gives the settings of the log.
type ReadAgain<'a> = dyn Fn() -> Result<logging::Settings, StartError> + Sync + 'a;

async fn run<A, S>(
    service: &Service,
    mut config: Config<A>,
    mut app: App<A, S>,
    Launch { listener: inherited, mut worker, read_again }: Launch<'_>,
) -> Result<ExitCode, StartError>
where
    A: Clone + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let signals = take_signals()?;
    let (number, is_worker) = (worker.as_ref().map(|worker| worker.number), worker.is_some());
    let logging = start_logging(service, &config, &mut app, number)?;
    let forced_exit = ForcedExit::start(&logging)?;
    open_files::fit(&mut config.http);
    let port = u16::try_from(config.server.port.get()).unwrap_or_default();
    match &worker {
        Some(worker) => worker.start_heartbeat(),
        None => manager::start_watchdog(),
    }
    let recorder = if config.metrics.is_on() { Some(Recorder::install(&config.metrics)?) } else { None };
    let set_levels = read_again.map(|read| shutdown_trigger::Reload { read, logging: logging.clone() });
    let handed_over = worker.as_mut().and_then(|worker| worker.handed_over.take());
    let mut trigger = ShutdownTrigger::new(signals, worker, set_levels);
    let starting = async {
        let app = app.open(&config, logging.clone()).await?;
        let listener = match inherited {
            Some(listener) => adopt(listener)?,
            None => http::server::listen(config.server.host.as_str(), port, &config.http).await?,
        };
        let port = listener.local_addr().map_or(port, |address| address.port());
        let backlog = config.http.backlog();
        let https = https::open(&config.server, backlog, port, is_worker, handed_over.as_deref()).await?;
        Ok::<_, StartError>((app, listener, port, https))
    };
    let (mut app, listener, port, https) = tokio::select! {
        started = starting => started?,
        cause = trigger.cause() => {
            tracing::info!(target: "server", signal = cause.name, "stopped before it listened");
            logging.finish(FLUSH_DEADLINE);
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Some(recorder) = recorder {
        report(service, &config, recorder, &logging, trigger.worker.as_mut())?;
    }
    let (linger, deadline) = (config.server.shutdown.linger.get(), config.server.shutdown.deadline.get());
    let after_drain = app.time_to_close() + END_GRACE;
    forced_exit.allow(linger + deadline + after_drain);
    let (stack, shutdown) = (app.stack(), app.stack().shutdown().clone());
    let drain = Drain::new(shutdown.clone());
    let tasks = app.start_tasks();
    let serving = tokio::spawn({
        let (settings, drain) = (config.http.clone(), drain.clone());
        async move { http::server::serve_with(listener, https, stack, &settings, drain).await }
    });
    match &trigger.worker {
        None => {
            log_listening(service, &config, port, None);
            trigger.tell_ready();
        }
        Some(worker) => {
            tracing::info!(target: "server", pid = std::process::id(), "serving");
            worker.is_ready();
        }
    }
    let cause = trigger.cause().await;
    shutdown.announce();
    if trigger.worker.is_none() {
        manager::tell(Told::Stopping);
    }
    let (linger, deadline) = (cause.linger(linger), cause.deadline(deadline));
    forced_exit.ends_within(linger + cause.retire_time().unwrap_or_default() + deadline + after_drain);
    let connections = drain.connections();
    tracing::info!(target: "server", signal = cause.name, connections, deadline = ?deadline, "draining");
    let drained = async {
        drain.part();
        tokio::time::sleep(linger).await;
        if let Some(time) = cause.retire_time() {
            drain.retire(time).await;
        }
        let begun = tokio::time::Instant::now();
        drain.start(deadline);
        let served = serving.await;
        let joined = tasks.join(deadline.saturating_sub(begun.elapsed())).await;
        let closed = app.close(deadline.saturating_sub(begun.elapsed())).await;
        (served, drain.cut() == 0 && joined && closed)
    };
    let complete = tokio::select! {
        (signal, code) = trigger.at_once() => {
            tracing::warn!(target: "server", signal, "stopped at once");
            logging.finish(FLUSH_DEADLINE);
            // Returning would wait for blocking work of the runtime; a second signal means now.
            std::process::exit(i32::from(code));
        }
        (served, complete) = drained => {
            match served {
                Ok(Ok(())) => tracing::info!(target: "server", cut = drain.cut(), "stopped"),
                Ok(Err(error)) => tracing::error!(target: "server", %error, "the server stopped with an error"),
                Err(error) => tracing::error!(target: "server", %error, "the server task failed"),
            }
            complete
        }
    };
    if let Some(worker) = &trigger.worker {
        worker.report_last();
    }
    logging.finish(FLUSH_DEADLINE);
    Ok(ExitCode::from(if complete { exit::CLEAN } else { exit::CUT }))
}

fn take_signals() -> Result<Signals, StartError> {
    Signals::take().map_err(|error| StartError::failed(format!("cannot take signals: {error}")))
}

/// Serves what is counted, or hands it to the supervisor.
fn report<A>(
    service: &Service,
    config: &Config<A>,
    recorder: Recorder,
    logging: &Logging,
    worker: Option<&mut Worker>,
) -> Result<(), StartError> {
    if worker.is_none() {
        // A worker does it with each of its reports.
        recorder.add_up_in_background();
    }
    let logging = logging.clone();
    let page = move || {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        gauge!("log_dropped_records").set(logging.dropped() as f64);
        recorder.page()
    };
    if let Some(worker) = worker {
        worker.start_reports(page);
        return Ok(());
    }
    let once = metrics::once(&config.server.name, service.version, SystemTime::now());
    let bind = |address| http::server::bind_to(address, config.http.backlog(), false);
    metrics::serve(&config.metrics, bind, Arc::new(move || page() + &once))
}

/// A listening socket of another process, for this runtime.
fn adopt(listener: TcpListener) -> Result<tokio::net::TcpListener, StartError> {
    let adopted = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    adopted
        .map_err(|error| StartError::failed(format!("cannot use the socket that was handed over: {error}")))
}

/// The line that says that the server can be reached. `workers` is their number, when there are several processes.
fn log_listening<A>(service: &Service, config: &Config<A>, port: u16, workers: Option<usize>) {
    let scheme = if config.server.ssl { "https" } else { "http" };
    tracing::info!(
        target: "server",
        url = %format_args!("{scheme}://{}:{port}", config.server.host.in_url()),
        name = config.server.name,
        version = service.version,
        store = %config.store.url,
        workers,
        "listening"
    );
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
