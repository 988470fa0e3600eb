//! A TCP proxy in front of a server, which can be taken away: closed, or frozen, as an outage does it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It passes everything on.
    Open,
    /// It closes all connections, and those that come.
    Closed,
    /// It accepts connections and passes nothing on.
    Frozen,
}

/// A proxy on a port that the system gives.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Starts it in front of a server, such as `127.0.0.1:6379`.
    pub async fn start(server: &str, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, mode) = (Arc::<str>::from(server), watch::Sender::new(mode));
        let modes = mode.subscribe();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, Arc::clone(&server), modes.clone()));
            }
        });
        Self { address, mode }
    }

    /// Changes what it does, from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(client: TcpStream, server: Arc<str>, modes: watch::Receiver<Mode>) {
    let mut closing = modes.clone();
    let passing = async {
        let mut opening = modes.clone();
        let _ = opening.wait_for(|mode| *mode == Mode::Open).await;
        let Ok(server) = TcpStream::connect(&*server).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = pass(from_client, to_server, modes.clone()) => {}
            () = pass(from_server, to_client, modes.clone()) => {}
        }
    };
    tokio::select! {
        _ = closing.wait_for(|mode| *mode == Mode::Closed) => {}
        () = passing => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut piece = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if modes.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
