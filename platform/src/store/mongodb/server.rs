//! The MongoDB server, or servers: the connections to it, how long a call may take, and what its errors mean.
//!
//! Nothing is connected when the store is opened, so that the process starts while MongoDB is down. The driver connects
//! again by itself.

use std::future::IntoFuture as _;

use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};
use mongodb::options::{ClientOptions, ConnectionString, WriteConcern};
use mongodb::{Client, Database};
use tokio::sync::OnceCell;

use super::super::calls::{Calls, Unanswered};
use super::super::mongodb_url::DEFAULT_NAME;
use super::super::settings::Settings;
use crate::error::{Error, Kind, Result};

/// The code of a write that breaks a unique index.
const DUPLICATE_KEY: i32 = 11_000;

/// The database of a URL, and whether it responds.
pub(super) struct Server {
    calls: Calls,
    url: ConnectionString,
    connections: u32,
    database: OnceCell<Database>,
}

impl Server {
    pub(super) fn new(url: ConnectionString, settings: &Settings) -> Self {
        Self {
            calls: Calls::new(settings),
            url,
            connections: u32::try_from(settings.mongodb.connections.get()).unwrap_or(u32::MAX),
            database: OnceCell::new(),
        }
    }

    /// The database. Only a `mongodb+srv:` URL needs the network for it: the hosts are in DNS.
    pub(super) async fn database(&self) -> Result<&Database> {
        self.database.get_or_try_init(|| self.connect()).await.map_err(store_error)
    }

    async fn connect(&self) -> Result<Database, DriverError> {
        let mut options = ClientOptions::parse(self.url.clone()).await?;
        // A bit less than the caller waits: the driver's own error says what is wrong with which host.
        let patience = self.calls.timeout().mul_f32(0.9);
        options.server_selection_timeout = Some(patience);
        options.connect_timeout = Some(patience);
        options.max_pool_size = options.max_pool_size.or(Some(self.connections));
        // A write that has returned is on the disk of most members. With less, a failover could undo it. What the URL
        // says goes first.
        let concern = options.write_concern.get_or_insert_default();
        if *concern == WriteConcern::default() {
            *concern = WriteConcern::majority();
        }
        concern.journal = concern.journal.or(Some(true));
        // Reads are from the primary, whatever the URL says: a secondary may not have the writes before a read yet.
        options.selection_criteria = None;
        let database = options.default_database.clone();
        let client = Client::with_options(options)?;
        Ok(client.database(database.as_deref().unwrap_or(DEFAULT_NAME)))
    }

    /// Waits for a call no longer than the timeout.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.call(call).await
    }

    /// The same for a write.
    pub(super) async fn write<T>(&self, write: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.write(write).await
    }

    /// Closes the connections when the calls on them have ended.
    pub(super) async fn close(&self) {
        if let Some(database) = self.database.get() {
            // A server that does not respond must not hold up the end of this process.
            drop(
                tokio::time::timeout(
                    self.calls.timeout(),
                    database.client().clone().shutdown().into_future(),
                )
                .await,
            );
        }
    }
}

/// Whether a call failed because of a unique index, of the ids or of values.
pub(super) fn is_duplicate(error: &DriverError) -> bool {
    duplicate_message(error).is_some()
}

/// What MongoDB says of a unique index that a call has broken; `None` for any other error. It has the value: it must not
/// be logged.
pub(super) fn duplicate_message(error: &DriverError) -> Option<&str> {
    let (code, message) = match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => (error.code, &error.message),
        ErrorKind::Command(error) => (error.code, &error.message),
        ErrorKind::InsertMany(error) => {
            let errors = error.write_errors.as_deref().unwrap_or_default();
            let error = errors.iter().find(|error| error.code == DUPLICATE_KEY)?;
            (error.code, &error.message)
        }
        _ => return None,
    };
    (code == DUPLICATE_KEY).then_some(message)
}

/// An error of the driver as an error of the store. The driver shows no password in its errors. Its own text has the
/// whole response of the server, so only the kind is taken.
pub(in super::super) fn store_error(error: DriverError) -> Error {
    let kind = kind_of(&error);
    match (kind, &*error.kind) {
        (
            Kind::Unavailable,
            ErrorKind::Io(_)
            | ErrorKind::Write(WriteFailure::WriteConcernError(_))
            | ErrorKind::InsertMany(_),
        ) => Error::unavailable(Unanswered(error.kind.to_string())),
        _ => Error::of_dependency(kind, error.kind.to_string()),
    }
}

fn kind_of(error: &DriverError) -> Kind {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Authentication { .. }
        | ErrorKind::IncompatibleServer { .. }
        | ErrorKind::Shutdown
        // It was written, but perhaps not on most members.
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => Kind::Unavailable,
        ErrorKind::Command(error) if passes(error.code) => Kind::Unavailable,
        ErrorKind::Write(WriteFailure::WriteError(error)) if passes(error.code) => Kind::Unavailable,
        ErrorKind::InsertMany(error) if error.write_concern_error.is_some() => Kind::Unavailable,
        _ if error.contains_label("RetryableWriteError") => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

/// Whether a code means that the server cannot do it now: it is no primary, is going down, has no disk space, or has
/// interrupted the call
/// (<https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>).
fn passes(code: i32) -> bool {
    matches!(
        code,
        6 | 7
            | 24
            | 50
            | 64
            | 89
            | 91
            | 112
            | 133
            | 189
            | 262
            | 9001
            | 10_107
            | 11_600
            | 11_601
            | 11_602
            | 13_435
            | 13_436
            | 14_031
    )
}
