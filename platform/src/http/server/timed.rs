//! A stream with deadlines: how long a connection may be idle, and how long a client may read nothing of a response.
//!
//! The header timeout of hyper makes and drops a timer for each request, which costs as much as the routing. Here a
//! connection has one timer, and it is polled only while the connection waits. For a client that reads nothing, hyper
//! has no timeout at all. This file does not look at the bytes that pass.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context as Task, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::http::request::peer::Peer;
use crate::http::settings::Settings;

/// How long a connection that should close stays open while its client sends nothing. The client gets this time when
/// its request was refused, when no handler reads its body and, during a drain, when it has sent half a request head or
/// has no request in flight. It is longer than TCP needs to send a lost packet again.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many bytes are read ahead to see whether the client has closed its side.
const READ_AHEAD: usize = 64;

/// The deadlines of every connection.
#[derive(Clone)]
pub(crate) struct Deadlines {
    header_timeout: Duration,
    write_timeout: Duration,
    upgrade_idle_timeout: Duration,
    /// Never marked as seen: a changed value means that the server drains.
    draining: watch::Receiver<bool>,
    /// Cancelled at the end of a drain. Upgraded connections are cut then.
    cut: CancellationToken,
}

impl Deadlines {
    pub(crate) fn new(settings: &Settings, draining: watch::Receiver<bool>, cut: CancellationToken) -> Self {
        Self {
            header_timeout: settings.header_timeout.get(),
            write_timeout: settings.write_timeout.get(),
            upgrade_idle_timeout: settings.upgrade_idle_timeout.get(),
            draining,
            cut,
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.has_changed().unwrap_or(true)
    }
}

/// The stream of one connection, with its deadlines.
pub struct Timed<S> {
    stream: S,
    peer: Peer,
    deadlines: Deadlines,
    http2: bool,
    /// Bytes that were read from the stream before hyper reads them.
    read_ahead: BytesMut,
    /// The client has closed its sending side: there is nothing more to read.
    client_closed: bool,
    /// The client has sent something since the drain began.
    received_in_drain: bool,
    /// The value of [`Peer::begun`] at the last flush without a request in flight.
    flushed: u64,
    /// The current idle time. Every write ends it: a response of several frames may look complete before its last
    /// frame.
    idle: Option<Idle>,
    /// The timer of the idle deadline.
    idle_timer: Option<DeadlineTimer>,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while nothing is written to a client that has closed its sending side.
    half_closed: Option<Pin<Box<Sleep>>>,
    /// Runs during `LINGER_TIMEOUT`.
    linger: Option<Pin<Box<Sleep>>>,
    /// Wakes the reader of an upgraded connection at the end of a drain.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// A time without a request in flight.
struct Idle {
    since: Instant,
    /// When this connection first noticed the drain.
    draining_since: Option<Instant>,
}

/// A timer for a deadline that moves with every request. The timer of tokio inside is reset only when it fires too
/// early, and polled again only when it may be ready: polling it each time costs as much as parsing a small request
/// head.
struct DeadlineTimer {
    sleep: Pin<Box<Sleep>>,
    /// The task that the timer wakes.
    waker: Option<Waker>,
}

impl DeadlineTimer {
    fn at(deadline: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(deadline)), waker: None }
    }

    /// Ready when the deadline has passed.
    fn poll(&mut self, task: &mut Task<'_>, deadline: Instant) -> Poll<()> {
        if self.sleep.deadline() > deadline {
            self.sleep.as_mut().reset(deadline);
            self.waker = None;
        }
        let set = self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker()));
        if set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = None;
        // Without `unconstrained`, tokio's budget of a task could make the timer pending without registering the waker.
        while pin!(unconstrained(self.sleep.as_mut())).poll(task).is_ready() {
            if self.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It was set for an earlier deadline.
            self.sleep.as_mut().reset(deadline);
        }
        self.waker = Some(task.waker().clone());
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Timed<S> {
    /// `read_ahead` has been read from the stream already. It is passed to the reader first.
    pub(crate) fn new(
        stream: S,
        peer: Peer,
        deadlines: Deadlines,
        http2: bool,
        read_ahead: BytesMut,
    ) -> Self {
        peer.connected();
        Self {
            stream,
            peer,
            deadlines,
            http2,
            read_ahead,
            client_closed: false,
            received_in_drain: false,
            flushed: 0,
            idle: None,
            idle_timer: None,
            stalled: None,
            half_closed: None,
            linger: None,
            cut: None,
        }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether no request is in flight, so that the next bytes are a request head. Always false for HTTP/2: its frames
    /// are not parsed here, and hyper checks the client with pings.
    pub(crate) fn is_idle(&self) -> bool {
        !self.http2 && self.peer.begun() == self.flushed
    }

    /// Whether an HTTP/2 client seems to be gone during a drain: it has not even acknowledged the ping that comes with
    /// GOAWAY. For a client that has, h2 closes the connection as soon as the responses are sent.
    fn is_unresponsive_in_drain(&self) -> bool {
        let idle = self.http2 && self.stalled.is_none() && self.peer.has_no_request_in_flight();
        idle && !self.received_in_drain && self.deadlines.is_draining()
    }

    /// Ready with an error when the next request head has not arrived in time.
    fn poll_idle(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        let draining = self.deadlines.is_draining();
        let idle = self.idle.get_or_insert_with(|| Idle { since: Instant::now(), draining_since: None });
        let mut deadline = idle.since + self.deadlines.header_timeout;
        if draining {
            let since = *idle.draining_since.get_or_insert_with(Instant::now);
            deadline = deadline.min(since + LINGER_TIMEOUT);
        }
        let timer = self.idle_timer.get_or_insert_with(|| DeadlineTimer::at(deadline));
        timer.poll(task, deadline).map(|()| ErrorKind::TimedOut.into())
    }

    /// Ready with an error when neither side of an upgraded connection has sent anything for too long, or when the
    /// drain is over.
    fn poll_upgraded(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        let token = &self.deadlines.cut;
        let cut = self.cut.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
        if cut.as_mut().poll(task).is_ready() {
            return Poll::Ready(ErrorKind::ConnectionAborted.into());
        }
        let idle = self.idle.get_or_insert_with(|| Idle { since: Instant::now(), draining_since: None });
        let deadline = idle.since + self.deadlines.upgrade_idle_timeout;
        let timer = self.idle_timer.get_or_insert_with(|| DeadlineTimer::at(deadline));
        timer.poll(task, deadline).map(|()| ErrorKind::TimedOut.into())
    }

    /// Makes an error of a write that has been pending for too long.
    fn time_write(
        &mut self,
        task: &mut Task<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            (self.stalled, self.half_closed, self.idle) = (None, None, None);
            if let Some(linger) = &mut self.linger {
                // A client that reads is not gone. The poll registers the task with the new deadline.
                linger.as_mut().reset(Instant::now() + LINGER_TIMEOUT);
                let _ = linger.as_mut().poll(task);
            }
            return written;
        }
        let limit = self.deadlines.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(task).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    /// Ready when the client has taken nothing of a response over HTTP/2 for too long.
    fn poll_waiting(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let Some(since) = self.peer.waiting_since() else { return Poll::Pending };
        let deadline = since + self.deadlines.write_timeout;
        self.idle_timer.get_or_insert_with(|| DeadlineTimer::at(deadline)).poll(task, deadline)
    }

    fn poll_linger_timeout(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIMEOUT))).as_mut().poll(task)
    }

    /// Reads and drops what the client is still sending. To close at once would reset the connection, and the client
    /// could lose the response (RFC 9112, section 9.6).
    fn poll_linger(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut scratch = [0; 4_096];
        loop {
            // A client that goes on sending gets no extra time.
            if self.poll_linger_timeout(task).is_ready() {
                return Poll::Ready(());
            }
            let mut scratch = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(task, &mut scratch));
            if read.is_err() || scratch.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// Checks whether the client has closed its sending side; hyper does not do so while a request is in flight. Ready
    /// with an error when it has, and nothing has been written to it for too long. Such a client may have closed the
    /// connection completely, and only a write would show it.
    fn poll_half_closed(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        if !self.client_closed {
            if !self.read_ahead.is_empty() {
                return Poll::Pending;
            }
            let mut bytes = [0; READ_AHEAD];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(task, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.client_closed = true,
                Poll::Ready(Ok(())) => {
                    self.read_ahead.extend_from_slice(buffer.filled());
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        let limit = self.deadlines.write_timeout;
        let half_closed = self.half_closed.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        half_closed.as_mut().poll(task).map(|()| ErrorKind::ConnectionAborted.into())
    }

    /// Reads the bytes that were read ahead, and then from the stream.
    fn poll_read_stream(&mut self, task: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(task, buffer);
        }
        let length = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead[..length]);
        self.read_ahead.advance(length);
        if self.read_ahead.is_empty() {
            // Frees the memory.
            self.read_ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_read_stream(task, buffer);
        if read.is_ready() {
            self.received_in_drain |= self.http2 && self.deadlines.is_draining();
            self.linger = None;
            if self.peer.is_upgraded() {
                self.idle = None;
            }
        } else if self.peer.is_upgraded() {
            return self.poll_upgraded(task).map(Err);
        } else if self.is_idle() {
            return self.poll_idle(task).map(Err);
        } else if self.http2 && self.poll_waiting(task).is_ready() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        } else if self.is_unresponsive_in_drain() {
            return self.poll_linger_timeout(task).map(|()| Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.time_write(task, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, slices);
        self.time_write(task, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the stream when all its data is written, and each time it has been woken. It depends on the
    /// settings of hyper whether it reads again after that, so the deadlines are checked here too. But not for an
    /// upgraded connection: another task may be reading, and a read here would replace the waker of that task.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(task))?;
        let begun = self.peer.begun();
        if begun != self.flushed && self.peer.has_no_request_in_flight() {
            self.flushed = begun;
        }
        let expired = if self.is_idle() {
            self.poll_idle(task)
        } else if self.http2 || self.peer.is_upgraded() {
            Poll::Pending
        } else {
            self.poll_half_closed(task)
        };
        match expired {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(task))?;
        if self.peer.has_unread_body() {
            ready!(self.poll_linger(task));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Timed<S> {
    fn drop(&mut self) {
        self.peer.disconnected();
    }
}
