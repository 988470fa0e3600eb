//! The calls of a store with a server: how long one may take, and the log of an outage.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::settings::{Settings, StoreUrl};
use super::write::outcome_unknown;
use crate::error::{Error, Kind, Result};

/// The cause of a call that the server has perhaps carried out, and has not answered.
#[derive(Debug)]
pub(super) struct Unanswered(pub(super) String);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unanswered {}

/// Bounds the calls of one store, and knows whether its server responds.
pub(super) struct Calls {
    /// The URL, shown without its password, for messages.
    name: StoreUrl,
    timeout: Duration,
    /// Whether the last call was answered; a change is logged once.
    responds: AtomicBool,
}

impl Calls {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { name: settings.url.clone(), timeout: settings.timeout.get(), responds: AtomicBool::new(true) }
    }

    /// The longest time that a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for a call no longer than the timeout.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.reported(self.within_time(call).await)
    }

    /// The same for a write: one that was not answered may have been executed.
    pub(super) async fn write<T>(&self, write: impl Future<Output = Result<T>>) -> Result<T> {
        let result = self.within_time(write).await;
        self.reported(result.map_err(|error| match error.source() {
            Some(cause) if cause.is::<Unanswered>() => outcome_unknown(error.cause()),
            _ => error,
        }))
    }

    async fn within_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Error::unavailable(Unanswered(format!("no response within {:?}", self.timeout))));
        tokio::time::timeout(self.timeout, call).await.unwrap_or_else(late)
    }

    fn reported<T>(&self, result: Result<T>) -> Result<T> {
        let result = result.map_err(|error| error.with_context(format_args!("store {}", self.name)));
        self.note(&result);
        result
    }

    /// Logs that the server has stopped to respond, or responds again.
    fn note<T>(&self, result: &Result<T>) {
        match result {
            Err(error) if error.kind() == Kind::Unavailable => {
                if self.responds.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        target: "server",
                        cause = error.cause(),
                        "the store does not respond; what needs it fails with 503 until it does"
                    );
                }
            }
            // Also a refused write is a response.
            _ => {
                if !self.responds.load(Ordering::Relaxed) && !self.responds.swap(true, Ordering::Relaxed) {
                    tracing::info!(target: "server", store = %self.name, "the store responds again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_write_that_was_not_answered_may_have_been_carried_out() {
        let one = json!({"connections": 1});
        let sqlite = json!({"connections": 1, "queue": 1, "group": 1, "wal_limit": "16MiB"});
        let settings =
            json!({"url": "mongodb://h", "timeout": "3s", "sqlite": sqlite, "mongodb": one, "postgres": one});
        let calls = Calls::new(&serde_json::from_value(settings).unwrap());
        let lost = || async { Err::<(), _>(Error::unavailable(Unanswered("reset by peer".to_owned()))) };
        let is_unknown = |result: Result<()>| {
            let error = result.unwrap_err();
            assert!(error.status() == 503 && error.cause().starts_with("store mongodb://h: "), "{error:?}");
            let is_unknown = error.message() == "It is not known whether this was carried out.";
            assert_eq!(error.headers().is_empty(), is_unknown, "{error:?}");
            is_unknown
        };
        assert!(is_unknown(calls.write(std::future::pending()).await));
        assert!(is_unknown(calls.write(lost()).await));
        // The controls.
        assert!(!is_unknown(calls.write(async { Err(Error::unavailable("no connection")) }).await));
        assert!(!is_unknown(calls.call(std::future::pending()).await));
        assert!(!is_unknown(calls.call(lost()).await));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_connection_that_broke_has_not_answered() {
        let error =
            super::super::postgres::store_error(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        assert!(error.source().is_some_and(<dyn StdError>::is::<Unanswered>));
        let error = super::super::postgres::store_error(sqlx::Error::PoolTimedOut);
        assert!(!error.source().is_some_and(<dyn StdError>::is::<Unanswered>));
    }
}
