//! The connection to etcd: each call has a deadline, a connection that fails is replaced, and an outage is logged once.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error as EtcdError, Identity, TlsOptions};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::lease::LeaseLost;
use super::super::settings::{Settings, TlsSettings};
use crate::error::{Error, Result, StartError};

/// How long a call pauses before it tries another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// gRPC's status for what does not exist. Of all that this module names, only a lease can be missing.
const NOT_FOUND: i32 = 5;

/// The members of a cluster, or the one server.
pub(super) struct Server {
    endpoints: Vec<String>,
    options: ConnectOptions,
    timeout: Duration,
    /// A connection to one member; after a failure, to the next one. The driver could have a connection to all of them, but
    /// would go on to ask one that is silent.
    connection: Mutex<Option<Connection>>,
    /// The number of the connection that counts now.
    current: watch::Sender<u64>,
    /// Whether the last call was answered; a change is logged once.
    responds: AtomicBool,
}

/// A connection with its number.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    number: u64,
}

/// Why a call failed.
pub(super) enum Failure {
    /// The lease has ended.
    LeaseLost,
    /// etcd does not respond, or refuses.
    Unavailable(Error),
}

impl Failure {
    /// The error for who wants the lock of this name.
    pub(super) fn into_error(self, name: &str) -> Error {
        match self {
            Self::LeaseLost => LeaseLost::error(name),
            Self::Unavailable(error) => error,
        }
    }
}

impl Server {
    pub(super) fn open(settings: &Settings) -> Result<Self, StartError> {
        let etcd = &settings.etcd;
        let scheme = if etcd.tls.enabled { "https" } else { "http" };
        let endpoints = match &etcd.endpoints[..] {
            [] => vec![format!("{scheme}://{}:{}", settings.host.in_url(), settings.port.get())],
            endpoints => endpoints.to_vec(),
        };
        let mut options = ConnectOptions::new().with_connect_timeout(settings.timeout.get());
        if endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            options = options.with_tls(tls(&etcd.tls)?);
        }
        if !etcd.user.is_empty() {
            // etcd forgets a log-in after five minutes without a call.
            options = options.with_user(&etcd.user, etcd.password.expose()).with_auto_token_refresh(true);
        }
        Ok(Self {
            endpoints,
            options,
            timeout: settings.timeout.get(),
            connection: Mutex::default(),
            current: watch::Sender::new(0),
            responds: AtomicBool::new(true),
        })
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Calls etcd until it responds, at most until the deadline. The call may be executed more than once.
    pub(super) async fn call<T, F>(&self, deadline: Instant, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        // Of several members, one that is silent may not use up the time of all.
        let members = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / members;
        for _ in 0..members {
            let until = deadline.min(Instant::now() + share);
            // A server that was restarted has closed its connections: the second attempt finds it.
            for _ in 0..2 {
                let failure = match self.attempt(until, &call).await {
                    Err(failure @ Failure::Unavailable(_)) => failure,
                    outcome => return outcome,
                };
                if Instant::now() + PAUSE >= deadline {
                    return Err(failure);
                }
                if Instant::now() >= until {
                    break;
                }
                sleep_until(Instant::now() + PAUSE).await;
            }
        }
        self.attempt(deadline, &call).await
    }

    async fn attempt<T, F>(&self, until: Instant, call: &impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let connection = self.connection(until).await?;
        let outcome = timeout_at(until, call(connection.client.clone())).await;
        self.note(
            &connection,
            outcome.unwrap_or_else(|_| Err(EtcdError::EndpointError("no response in time".to_owned()))),
        )
    }

    /// The connection that counts now.
    pub(super) async fn connection(&self, until: Instant) -> Result<Connection, Failure> {
        let asked = *self.current.borrow();
        let connected = timeout_at(until, async {
            let mut open = self.connection.lock().await;
            let number = *self.current.borrow();
            if let Some(connection) = open.as_ref().filter(|connection| connection.number == number) {
                return Ok(connection.clone());
            }
            let endpoint = &self.endpoints[member(number, self.endpoints.len())];
            // Waits for nothing, unless there is a user to log in.
            let client = Client::connect([endpoint], Some(self.options.clone())).await;
            if client.is_err() {
                self.replace(number);
            }
            let connection = Connection { client: client?, number };
            *open = Some(connection.clone());
            Ok(connection)
        });
        let connected = connected.await.unwrap_or_else(|_| {
            // A member that is silent when a user logs in.
            self.replace(asked);
            Err(EtcdError::EndpointError("no connection in time".to_owned()))
        });
        connected.map_err(|error| self.failed(&error))
    }

    /// Takes note of how a call on a connection ended.
    pub(super) fn note<T>(
        &self,
        connection: &Connection,
        outcome: Result<T, EtcdError>,
    ) -> Result<T, Failure> {
        match outcome {
            Err(error) if !is_lease_lost(&error) => {
                self.replace(connection.number);
                Err(self.failed(&error))
            }
            outcome => {
                if !self.responds.load(Ordering::Relaxed) && !self.responds.swap(true, Ordering::Relaxed) {
                    tracing::info!(target: "server", server = self.name(), "etcd responds again");
                }
                outcome.map_err(|_| Failure::LeaseLost)
            }
        }
    }

    /// Waits until a connection no longer counts.
    pub(super) async fn replaced(&self, connection: &Connection) {
        // There is no error while `self` holds the sender.
        let _ = self.current.subscribe().wait_for(|current| *current != connection.number).await;
    }

    fn replace(&self, number: u64) {
        let is_current = |current: &mut u64| {
            let is_current = *current == number;
            *current += u64::from(is_current);
            is_current
        };
        self.current.send_if_modified(is_current);
    }

    fn failed(&self, error: &EtcdError) -> Failure {
        let cause = format!("etcd {}: {error}", self.name());
        if self.responds.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                target: "server",
                cause,
                "etcd does not respond; what needs a lock fails with 503 until it does"
            );
        }
        Failure::Unavailable(Error::unavailable(cause))
    }

    fn name(&self) -> String {
        self.endpoints.join(",")
    }
}

/// The member to which the connection of this number leads.
fn member(number: u64, members: usize) -> usize {
    usize::try_from(number % members.max(1) as u64).unwrap_or_default()
}

fn is_lease_lost(error: &EtcdError) -> bool {
    match error {
        EtcdError::LeaseKeepAliveError(_) => true,
        EtcdError::GRpcStatus(status) => i32::from(status.code()) == NOT_FOUND,
        _ => false,
    }
}

fn tls(settings: &TlsSettings) -> Result<TlsOptions, StartError> {
    let read = |key: &str, path: &Path| {
        fs::read(path)
            .map_err(|error| StartError::config(format!("lock.etcd.tls.{key} {}: {error}", path.display())))
    };
    let mut options = TlsOptions::new();
    options = if settings.ca.as_os_str().is_empty() {
        options.with_native_roots()
    } else {
        options.ca_certificate(Certificate::from_pem(read("ca", &settings.ca)?))
    };
    if !settings.certificate.as_os_str().is_empty() {
        let certificate = read("certificate", &settings.certificate)?;
        options = options.identity(Identity::from_pem(certificate, read("key", &settings.key)?));
    }
    Ok(options)
}
