//! A TCP proxy in front of a server, to cut and to freeze its connections without a signal to the server itself, which
//! other tests use.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(super) struct TcpProxy {
    pub(super) address: SocketAddr,
    server: String,
    frozen: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
}

impl TcpProxy {
    /// A proxy with an address of its own, at which nothing listens yet.
    pub(super) async fn stopped(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, server: server.to_owned(), frozen: watch::Sender::new(false), running: None }
    }

    pub(super) async fn started(server: &str) -> Self {
        let mut proxy = Self::stopped(server).await;
        proxy.start().await;
        proxy
    }

    pub(super) async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (server, frozen) = (self.server.clone(), self.frozen.subscribe());
        self.running = Some(tokio::spawn(async move {
            // Aborted with this task, which closes the connections.
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, frozen) = (server.clone(), frozen.clone());
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = copy(from_client, to_server, frozen.clone()) => {}
                        () = copy(from_server, to_client, frozen) => {}
                    }
                });
            }
        }));
    }

    /// Closes the connections, and refuses new ones.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            assert!(running.await.is_err());
        }
    }

    /// Keeps the connections open and accepts new ones, but no byte arrives until it is called with `false`.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
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
    frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 1 << 16];
    let mut frozen = frozen;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
