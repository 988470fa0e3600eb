//! The calls of a store with a server: how long one may take, and the log of an outage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::settings::{Settings, StoreUrl};
use crate::error::{Error, Kind, Result};

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
        let result = tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|_| Err(Error::unavailable(format!("no response within {:?}", self.timeout))));
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
