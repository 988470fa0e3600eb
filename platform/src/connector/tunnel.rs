//! The bytes of a WebSocket that is passed on, in both directions.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::sync::CancellationToken;

/// What ends a tunnel besides its two sides. The connection of the client has the same bounds, but it keeps them only while
/// it is read: not when the client has ended its side, nor while the upstream takes nothing.
#[derive(Clone, Debug)]
pub struct TunnelBounds {
    /// How long nothing may pass. A tunnel ends after this time, and at twice of it at the latest.
    pub idle: Duration,
    /// The end of a drain.
    pub deadline: CancellationToken,
}

/// Copies until one side breaks, both have ended, or a bound is reached.
pub(super) async fn run<C, S>(mut client: C, server: S, bounds: Option<TunnelBounds>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let passed = Arc::new(AtomicU64::new(0));
    let mut server = Counted { stream: server, passed: Arc::clone(&passed) };
    let bound = async {
        let Some(TunnelBounds { idle, deadline }) = bounds else { return std::future::pending().await };
        let silence = async {
            let mut before = None;
            while before.replace(passed.load(Ordering::Relaxed)) != Some(passed.load(Ordering::Relaxed)) {
                tokio::time::sleep(idle).await;
            }
        };
        tokio::select! {
            () = silence => {}
            () = deadline.cancelled() => {}
        }
    };
    tokio::select! {
        // Either side may just go away.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        () = bound => {}
    }
}

/// Counts what passes.
struct Counted<S> {
    stream: S,
    passed: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    fn count(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(task, buffer);
        self.count(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        if let Poll::Ready(Ok(bytes)) = written {
            self.count(bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const IDLE: Duration = Duration::from_mins(1);

    /// The two outer ends of a tunnel, and its run.
    fn tunnel(deadline: &CancellationToken) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let ((client, inner), (outer, server)) = (duplex(1_024), duplex(1_024));
        let bounds = TunnelBounds { idle: IDLE, deadline: deadline.clone() };
        (client, server, tokio::spawn(run(inner, outer, Some(bounds))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_ended_its_side_does_not_keep_a_silent_upstream() {
        let (mut client, mut server, run) = tunnel(&CancellationToken::new());
        client.write_all(b"a").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'a');
        let start = Instant::now();
        run.await.unwrap();
        assert!(start.elapsed() <= IDLE * 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_takes_nothing_does_not_keep_its_client() {
        let (mut client, _server, run) = tunnel(&CancellationToken::new());
        let sending = tokio::spawn(async move {
            // More than all buffers hold.
            client.write_all(&vec![0; 100_000]).await
        });
        let start = Instant::now();
        run.await.unwrap();
        assert!(start.elapsed() <= IDLE * 2, "{:?}", start.elapsed());
        assert!(sending.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_lasts_while_something_passes_and_ends_at_the_deadline() {
        let deadline = CancellationToken::new();
        let (mut client, mut server, run) = tunnel(&deadline);
        for _ in 0..10 {
            tokio::time::sleep(IDLE / 2).await;
            server.write_all(b"b").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'b');
        }
        assert!(!run.is_finished());
        deadline.cancel();
        run.await.unwrap();
    }
}
