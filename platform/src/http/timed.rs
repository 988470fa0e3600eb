//! A stream with deadlines: how long a connection may be idle, and how long a client may take nothing.
//!
//! hyper's own header timeout makes and drops a timer for each request, which costs as much as its routing. A
//! connection here keeps one timer, and looks at it only while it waits. hyper does not time a client that takes
//! nothing of its response at all. Knows nothing of the bytes that pass.

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

use super::peer::Peer;
use super::settings::Settings;

/// How long a client may be silent that should go: one that was refused or sends a body that nobody reads, and, while
/// the server drains, one that has sent half a request head or has no request in flight. Longer than it takes to send
/// a lost packet again.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many bytes are read ahead to see whether the client has closed its side.
const READ_AHEAD: usize = 64;

/// The deadlines of every connection.
#[derive(Clone)]
pub(super) struct Deadlines {
    header_timeout: Duration,
    write_timeout: Duration,
    upgrade_idle_timeout: Duration,
    /// A version that this receiver has not seen means that the server drains.
    draining: watch::Receiver<bool>,
    /// Cancelled at the end of a drain: what is still upgraded is cut.
    cut: CancellationToken,
}

impl Deadlines {
    pub(super) fn new(settings: &Settings, draining: watch::Receiver<bool>, cut: CancellationToken) -> Self {
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

/// A stream of one connection, with its deadlines.
pub struct Timed<S> {
    stream: S,
    peer: Peer,
    deadlines: Deadlines,
    http2: bool,
    /// Bytes that were read before hyper asked for them.
    read_ahead: BytesMut,
    /// The client has closed its side: nothing more comes.
    client_closed: bool,
    /// The client has sent something since the drain began.
    heard_in_drain: bool,
    /// How many requests had their whole response on the way when the last flush was done.
    flushed: u64,
    /// Begins anew with every write: a response of several pieces may look whole before its last one.
    idle: Option<Idle>,
    /// For the deadline of being idle.
    alarm: Option<Alarm>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while a client that has closed its side is sent nothing.
    half_closed: Option<Pin<Box<Sleep>>>,
    /// Runs while a client that should go is silent.
    linger: Option<Pin<Box<Sleep>>>,
    /// Wakes the reader of an upgraded connection at the end of a drain.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// A stretch of time without a request in flight.
struct Idle {
    since: Instant,
    /// When the server was found to drain.
    draining_since: Option<Instant>,
}

/// A timer for a deadline that moves with every request. The timer itself is moved only when it fires too early, and
/// is polled again only once it may be ready. To poll tokio's own each time takes as long as to parse a small head.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Alarm {
    fn at(deadline: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(deadline)), waker: None }
    }

    /// Ready when the deadline is over.
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
        // With tokio's budget for a task, the timer could be pending without having been set.
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
    /// `read_ahead` has come already and is read first.
    pub(super) fn new(
        stream: S,
        peer: Peer,
        deadlines: Deadlines,
        http2: bool,
        read_ahead: BytesMut,
    ) -> Self {
        Self {
            stream,
            peer,
            deadlines,
            http2,
            read_ahead,
            client_closed: false,
            heard_in_drain: false,
            flushed: 0,
            idle: None,
            alarm: None,
            stalled: None,
            half_closed: None,
            linger: None,
            cut: None,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether no request is in flight, so that what comes next is a request head. Of HTTP/2 that is not known: hyper
    /// keeps it alive with pings, and its frames are not looked at.
    pub(super) fn is_idle(&self) -> bool {
        !self.http2 && self.peer.begun() == self.flushed
    }

    /// Whether an HTTP/2 client that was told to go may be gone itself: it has not even acknowledged the ping that
    /// comes with GOAWAY. A client that has is let go by h2 as soon as its responses are sent.
    fn is_unresponsive_in_drain(&self) -> bool {
        let idle = self.http2 && self.stalled.is_none() && self.peer.has_none_in_flight();
        idle && !self.heard_in_drain && self.deadlines.is_draining()
    }

    /// Ready with an error when the next request head is too late.
    fn poll_idle(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        let draining = self.deadlines.is_draining();
        let idle = self.idle.get_or_insert_with(|| Idle { since: Instant::now(), draining_since: None });
        let mut deadline = idle.since + self.deadlines.header_timeout;
        if draining {
            let since = *idle.draining_since.get_or_insert_with(Instant::now);
            deadline = deadline.min(since + LINGER_TIMEOUT);
        }
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(deadline));
        alarm.poll(task, deadline).map(|()| ErrorKind::TimedOut.into())
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
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(deadline));
        alarm.poll(task, deadline).map(|()| ErrorKind::TimedOut.into())
    }

    /// Turns a client that takes nothing for too long into an error.
    fn time_write(
        &mut self,
        task: &mut Task<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            (self.stalled, self.half_closed, self.idle) = (None, None, None);
            if let Some(linger) = &mut self.linger {
                // A client that takes something is not gone. Nothing else would wake the task again.
                linger.as_mut().reset(Instant::now() + LINGER_TIMEOUT);
                let _ = linger.as_mut().poll(task);
            }
            return written;
        }
        let limit = self.deadlines.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(task).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    fn poll_silence(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIMEOUT))).as_mut().poll(task)
    }

    /// Reads and drops what the client is still sending and nobody will read: to close now would reset the connection,
    /// and a response on its way would be lost (RFC 9112, section 9.6).
    fn poll_linger(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut scratch = [0; 4_096];
        loop {
            // A client that goes on sending gets no more time for it.
            if self.poll_silence(task).is_ready() {
                return Poll::Ready(());
            }
            let mut scratch = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(task, &mut scratch));
            if read.is_err() || scratch.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// Looks whether the client has closed its side, which hyper does not do while a request is in flight. Ready with
    /// an error when it has and was sent nothing for too long since: it may be gone altogether, which only a write can
    /// tell.
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

    /// Reads what was read ahead, and after it what the stream has.
    fn poll_read_stream(&mut self, task: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(task, buffer);
        }
        let length = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead[..length]);
        self.read_ahead.advance(length);
        if self.read_ahead.is_empty() {
            // Gives the memory back.
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
            self.heard_in_drain |= self.http2 && self.deadlines.is_draining();
            self.linger = None;
            if self.peer.is_upgraded() {
                self.idle = None;
            }
        } else if self.peer.is_upgraded() {
            return self.poll_upgraded(task).map(Err);
        } else if self.is_idle() {
            return self.poll_idle(task).map(Err);
        } else if self.is_unresponsive_in_drain() {
            return self.poll_silence(task).map(|()| Err(ErrorKind::TimedOut.into()));
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
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, pieces);
        self.time_write(task, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the stream once all that it held is written, and whenever it has been woken. Whether it reads again
    /// after that depends on its settings: so the deadlines are kept here too. An upgraded connection is left alone: its
    /// reader may be another task, and a poll of the read side here would take its wake-up away.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(task))?;
        let begun = self.peer.begun();
        if begun != self.flushed && self.peer.has_none_in_flight() {
            self.flushed = begun;
        }
        let too_late = if self.is_idle() {
            self.poll_idle(task)
        } else if self.http2 || self.peer.is_upgraded() {
            Poll::Pending
        } else {
            self.poll_half_closed(task)
        };
        match too_late {
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
