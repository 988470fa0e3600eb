//! A TCP proxy in front of a server, to cut and to freeze its connections without a signal to the server itself, which
//! other tests use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub struct TcpProxy {
    pub address: SocketAddr,
    server: String,
    state: watch::Sender<State>,
    accepted: Arc<AtomicU64>,
    running: Option<JoinHandle<()>>,
}

/// Which connections no byte goes through.
#[derive(Clone, Copy, Default)]
struct State {
    frozen: bool,
    /// Whether what the server says is lost.
    mute: bool,
    /// The number of the last connection that is lost.
    lost: u64,
}

impl TcpProxy {
    /// A proxy with an address of its own, at which nothing listens yet.
    pub async fn stopped(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, accepted) = (watch::Sender::new(State::default()), Arc::default());
        Self { address, server: server.to_owned(), state, accepted, running: None }
    }

    pub async fn started(server: &str) -> Self {
        let mut proxy = Self::stopped(server).await;
        proxy.start().await;
        proxy
    }

    pub async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (server, state, accepted) =
            (self.server.clone(), self.state.subscribe(), Arc::clone(&self.accepted));
        self.running = Some(tokio::spawn(async move {
            // Aborted with this task, which closes the connections.
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let (server, state) = (server.clone(), state.clone());
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = copy(from_client, to_server, state.clone(), number, false) => {}
                        () = copy(from_server, to_client, state, number, true) => {}
                    }
                });
            }
        }));
    }

    /// Closes the connections, and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            assert!(running.await.is_err());
        }
    }

    /// Keeps the connections open and accepts new ones, but no byte arrives until it is called with `false`.
    pub fn freeze(&self, frozen: bool) {
        self.state.send_modify(|state| state.frozen = frozen);
    }

    /// What the client says arrives, and what the server says is lost, until it is called with `false`.
    #[cfg(feature = "etcd")]
    pub fn mute(&self, mute: bool) {
        self.state.send_modify(|state| state.mute = mute);
    }

    /// Keeps the open connections open, but no byte arrives on them ever again. New ones work.
    #[cfg(feature = "postgres")]
    pub fn lose_connections(&self) {
        self.state.send_modify(|state| state.lost = self.accepted.load(Ordering::SeqCst));
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut state: watch::Receiver<State>,
    number: u64,
    is_answer: bool,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_answer && state.borrow().mute {
            continue;
        }
        let open = state.wait_for(|state| !state.frozen && number > state.lost).await.is_ok();
        if !open || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
