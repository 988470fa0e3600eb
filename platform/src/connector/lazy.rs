//! The clients, and the TLS that they share. They are made when they are first needed, because that reads the roots of the
//! operating system; on a thread of its own, because that blocks.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::sync::OnceCell;

/// TLS with the roots of the operating system, read once.
pub(super) struct Tls {
    read: Arc<dyn Fn() -> Result<ClientConfig, String> + Send + Sync>,
    config: OnceCell<Result<ClientConfig, String>>,
}

impl Tls {
    pub(super) fn new(read: impl Fn() -> Result<ClientConfig, String> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { read: Arc::new(read), config: OnceCell::new() })
    }

    async fn get(&self) -> Result<ClientConfig, String> {
        let read = async || {
            let read = Arc::clone(&self.read);
            tokio::task::spawn_blocking(move || read()).await.unwrap_or_else(|error| Err(error.to_string()))
        };
        self.config.get_or_init(read).await.clone()
    }
}

/// A client, or why there is none.
pub(super) struct Lazy<C> {
    tls: Arc<Tls>,
    make: Box<dyn Fn(ClientConfig) -> Result<C, String> + Send + Sync>,
    made: OnceCell<Result<C, String>>,
}

impl<C> Lazy<C> {
    pub(super) fn new(
        tls: &Arc<Tls>,
        make: impl Fn(ClientConfig) -> Result<C, String> + Send + Sync + 'static,
    ) -> Self {
        Self { tls: Arc::clone(tls), make: Box::new(make), made: OnceCell::new() }
    }

    pub(super) async fn get(&self) -> Result<&C, &str> {
        let make = async || (self.make)(self.tls.get().await?);
        self.made.get_or_init(make).await.as_ref().map_err(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn roots_that_are_slow_to_read_keep_nothing_else_waiting() {
        let (allow, allowed) = channel();
        let allowed = Mutex::new(allowed);
        // They are there when another task has run on the same thread.
        let tls = Tls::new(move || {
            let waited = allowed.lock().unwrap().recv_timeout(Duration::from_secs(20));
            waited.map_err(|error| error.to_string()).and_then(|()| super::super::tls())
        });
        let lazy = Lazy::new(&tls, Ok);
        let (made, _) = tokio::join!(lazy.get(), async { allow.send(()) });
        assert!(made.is_ok(), "{:?}", made.err());
        // Once for all.
        assert!(Lazy::new(&tls, Ok).get().await.is_ok());
    }
}
