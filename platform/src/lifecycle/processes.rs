//! Serves with several processes: what the supervisor needs of the configuration.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::forced_exit::ForcedExit;
use super::https;
use crate::cli::Flags;
use crate::config::{self, Config, Loaded, Service};
use crate::error::StartError;
use crate::http;
use crate::logging::Logging;
use crate::metrics::{self, Recorder, Totals};
use crate::process::{Plan, Supervisor, supervise};
use crate::tls::Tls;

/// How much longer than `linger` and `deadline` the supervisor may wait for its workers before it is ended itself: a bit more
/// than it gives them.
const WORKERS_GRACE: Duration = Duration::from_secs(20);

/// A configuration that can be served with, and the text of its file.
pub(super) struct Source<A> {
    pub(super) loaded: Loaded<A>,
    text: Option<String>,
    /// The pair of HTTPS, where that is on.
    tls: Option<Arc<Tls>>,
}

impl<A: DeserializeOwned> Source<A> {
    /// Reads the configuration and checks it. `before` is the pair that is served with by now.
    pub(super) fn read(
        flags: &Flags,
        service: &Service,
        before: Option<&Arc<Tls>>,
    ) -> Result<Self, StartError> {
        let mut source = Self::with(flags, config::read_file(flags)?, service)?;
        source.tls = https::read(&source.loaded.config.server, before)?;
        Ok(source)
    }

    /// The configuration with this text instead of that of the file.
    pub(super) fn with(flags: &Flags, text: Option<String>, service: &Service) -> Result<Self, StartError> {
        let loaded = config::load_with(flags, text.as_deref(), std::env::vars_os(), service)?;
        loaded.check_servable()?;
        Ok(Self { loaded, text, tls: None })
    }

    fn plan(self) -> Plan {
        let server = self.loaded.config.server;
        Plan {
            configuration: self.text,
            handed_over: self.tls.map(https::keep),
            // The setting allows 1,024.
            workers: u16::try_from(server.process_count()).unwrap_or(1_024),
            settings: server.workers,
            linger: server.shutdown.linger.get(),
            deadline: server.shutdown.deadline.get(),
        }
    }
}

/// Listens, starts the workers, and supervises them until a signal.
pub(super) async fn run<A: Clone + DeserializeOwned>(
    service: &Service,
    flags: &Flags,
    source: Source<A>,
    inherited: Option<TcpListener>,
    logging: &Logging,
) -> Result<ExitCode, StartError> {
    let signals = super::take_signals()?;
    super::survive_large_files()?;
    let forced_exit = ForcedExit::start(logging)?;
    let config = source.loaded.config.clone();
    let mut tls = source.tls.clone();
    if let Some(tls) = &tls {
        tls.log();
    }
    let listener = match inherited {
        Some(listener) => listener,
        None => listen(&config).await?,
    };
    let port = listener.local_addr().map_or(0, |address| address.port());
    let totals = Arc::new(Mutex::new(Totals::default()));
    if config.metrics.is_on() {
        report(service, &config, Arc::clone(&totals))?;
    }
    let supervisor = Supervisor {
        listener,
        plan: allowed(&forced_exit, source.plan()),
        load: || {
            let source = Source::<A>::read(flags, service, tls.as_ref())?;
            tls.clone_from(&source.tls);
            let server = &source.loaded.config.server;
            if (&server.host, server.port) != (&config.server.host, config.server.port) {
                tracing::warn!(target: "server", "server.host and server.port do not change before a restart");
            }
            Ok(allowed(&forced_exit, source.plan()))
        },
        reported: Arc::new(move |process, page| {
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            match page {
                Some(page) => totals.update(process, page),
                None => totals.end(process),
            }
        }),
        announce: |workers: usize| {
            super::log_listening(service, &config, port, Some(workers));
        },
    };
    let ended = supervise(supervisor, signals).await;
    match &ended {
        Ok(code) => tracing::info!(target: "server", code, "stopped, and all workers"),
        Err(error) => tracing::error!(target: "server", %error, "stopped, and all workers"),
    }
    logging.finish(super::FLUSH_DEADLINE);
    ended.map(ExitCode::from)
}

/// Allows the supervisor to wait for the workers of a plan.
fn allowed(forced_exit: &ForcedExit, plan: Plan) -> Plan {
    forced_exit.allow(plan.linger + plan.deadline + WORKERS_GRACE);
    plan
}

/// Serves what all workers and this process have counted.
fn report<A>(service: &Service, config: &Config<A>, totals: Arc<Mutex<Totals>>) -> Result<(), StartError> {
    let recorder = Recorder::install(&config.metrics)?;
    metrics::begin_supervisor();
    let once = metrics::once(&config.server.name, service.version, SystemTime::now());
    let page = move || {
        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.update(std::process::id(), &recorder.page());
        totals.page() + &once
    };
    let bind = |address| http::server::bind_to(address, config.http.backlog(), false);
    metrics::serve(&config.metrics, bind, Arc::new(page))
}

async fn listen<A>(config: &Config<A>) -> Result<TcpListener, StartError> {
    let port = u16::try_from(config.server.port.get()).unwrap_or_default();
    let listener = http::server::listen(config.server.host.as_str(), port, &config.http).await?;
    listener.into_std().map_err(|error| StartError::failed(format!("cannot listen: {error}")))
}
