//! One accepted connection, between the socket and hyper: every deadline of it, and the words that hyper lacks.
//!
//! hyper's own header timeout makes and drops a timer for each request, which costs as much as its routing; a
//! connection here keeps one, and looks at it only while it waits. hyper answers what is no HTTP with a bare status
//! and tells nobody; here that becomes the error body and the line in the log that every other request gets.
//! A client that does not take its answer is not timed by hyper at all.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker, ready};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::middleware::Stack;
use super::peer::Peer;
use super::settings::Settings;

/// How long a client may be silent that should go: one that was refused or sends a body that nobody reads, and, while
/// the server drains, one that has sent half a head or has no request under way. Longer than a packet that is lost and
/// sent again.
const PARTING: Duration = Duration::from_secs(2);

/// What holds for every connection.
#[derive(Clone)]
pub(super) struct Terms {
    stack: Arc<Stack>,
    header_timeout: Duration,
    write_timeout: Duration,
    /// A version that nobody has seen means that the server drains.
    draining: watch::Receiver<bool>,
}

impl Terms {
    pub(super) fn new(stack: Arc<Stack>, settings: &Settings, draining: watch::Receiver<bool>) -> Self {
        let (header_timeout, write_timeout) = (settings.header_timeout.get(), settings.write_timeout.get());
        Self { stack, header_timeout, write_timeout, draining }
    }

    fn draining(&self) -> bool {
        self.draining.has_changed().unwrap_or(true)
    }
}

/// A connection as hyper sees it.
pub struct Connection {
    stream: TcpStream,
    peer: Peer,
    terms: Terms,
    http2: bool,
    /// The client has closed its side: nothing more comes.
    closed: bool,
    /// The client has said something since the server drains.
    heard: bool,
    /// How many requests had their whole answer on the way when the last flush was done.
    flushed: u64,
    /// Begins anew with every write: an answer of several pieces may look whole before its last one.
    rest: Option<Rest>,
    /// For the deadline of a rest.
    alarm: Option<Alarm>,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while a client that has closed its side is sent nothing.
    leaving: Option<Pin<Box<Sleep>>>,
    /// Runs while a client that should go is silent.
    parting: Option<Pin<Box<Sleep>>>,
    /// Our words in the place of hyper's, or what is left of them.
    refusal: Option<Bytes>,
    _place: OwnedSemaphorePermit,
}

/// A stretch of time in which no request is under way.
struct Rest {
    since: Instant,
    /// When the server was found to drain.
    draining_since: Option<Instant>,
}

/// A timer for a deadline that is put off with every request: it is moved only when it goes off too early, and asked
/// again only once that may have an answer. To ask tokio's own each time takes as long as to parse a small head.
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
        // tokio's budget for a task would have the timer answer "not yet" without being set.
        while pin!(unconstrained(self.sleep.as_mut())).poll(task).is_ready() {
            if self.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It was set for an earlier one.
            self.sleep.as_mut().reset(deadline);
        }
        self.waker = Some(task.waker().clone());
        Poll::Pending
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: Peer, terms: Terms, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            peer,
            terms,
            http2: false,
            closed: false,
            heard: false,
            flushed: 0,
            rest: None,
            alarm: None,
            stall: None,
            leaving: None,
            parting: None,
            refusal: None,
            _place: place,
        }
    }

    /// The socket, for who must look before hyper does.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Says that HTTP/2 is spoken: hyper keeps that alive with pings, and its frames are none of our business.
    pub(super) fn speaks_http2(&mut self) {
        self.http2 = true;
    }

    /// Whether no request is under way, so that what comes next is a head.
    fn rests(&self) -> bool {
        !self.http2 && self.peer.begun() == self.flushed
    }

    /// Whether a client of HTTP/2 that was told to go may be gone itself: it has not even answered the ping that comes
    /// with the notice. One that has is let go by h2 as soon as its answers are sent.
    fn is_forsaken(&self) -> bool {
        let idle = self.http2 && self.stall.is_none() && self.peer.is_answered();
        idle && !self.heard && self.terms.draining()
    }

    /// Ready with an error when the head of the next request is too late.
    fn poll_rest(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        let draining = self.terms.draining();
        let rest = self.rest.get_or_insert_with(|| Rest { since: Instant::now(), draining_since: None });
        let mut deadline = rest.since + self.terms.header_timeout;
        if draining {
            let since = *rest.draining_since.get_or_insert_with(Instant::now);
            deadline = deadline.min(since + PARTING);
        }
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
            (self.stall, self.leaving, self.rest) = (None, None, None);
            if let Some(parting) = &mut self.parting {
                // Who takes something is not gone. Nothing else would wake the task again.
                parting.as_mut().reset(Instant::now() + PARTING);
                let _ = parting.as_mut().poll(task);
            }
            return written;
        }
        let limit = self.terms.write_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stall.as_mut().poll(task).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    /// Sends what is left of our words.
    fn poll_refusal(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        while let Some(mut rest) = self.refusal.take_if(|rest| !rest.is_empty()) {
            let written = Pin::new(&mut self.stream).poll_write(task, &rest);
            let written = self.time_write(task, written);
            if let Poll::Ready(Ok(length)) = written {
                rest.advance(length);
            }
            self.refusal = Some(rest);
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_silence(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.parting.get_or_insert_with(|| Box::pin(tokio::time::sleep(PARTING))).as_mut().poll(task)
    }

    /// Reads away what the client is still sending and nobody will read: closing on it would reset the connection, and
    /// an answer that is on its way would be lost (RFC 9112, section 9.6).
    fn poll_parting(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut scratch = [0; 4_096];
        loop {
            // One that goes on sending gets no more time for it.
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

    /// Looks whether the client has closed its side, which hyper does not do while a request is under way. Ready with
    /// an error when it has and was sent nothing for too long since: it may be gone altogether, which only a write can
    /// tell.
    fn poll_leaving(&mut self, task: &mut Task<'_>) -> Poll<io::Error> {
        if !self.closed {
            match self.stream.poll_peek(task, &mut ReadBuf::new(&mut [0])) {
                Poll::Ready(Ok(0)) => self.closed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(_)) | Poll::Pending => return Poll::Pending,
            }
        }
        let limit = self.terms.write_timeout;
        let leaving = self.leaving.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        leaving.as_mut().poll(task).map(|()| ErrorKind::ConnectionAborted.into())
    }
}

/// Status and date of a head that hyper wrote by itself. There is no request, so nobody else could have.
fn refused(head: &[u8]) -> Option<(StatusCode, Option<HeaderValue>)> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok()?;
    let date = rest.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"date: "));
    Some((status, date.and_then(|date| HeaderValue::from_bytes(date.trim_ascii_end()).ok())))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(task, buffer);
        if read.is_ready() {
            self.heard |= self.http2 && self.terms.draining();
            self.parting = None;
        } else if self.rests() {
            return self.poll_rest(task).map(Err);
        } else if self.is_forsaken() {
            return self.poll_silence(task).map(|()| Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.rests()
            && let Some((status, date)) = refused(bytes)
        {
            self.refusal = Some(self.terms.stack.refuse(self.peer.clone(), status, date));
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.time_write(task, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // An answer without a body; also the form in which hyper's own come.
        if let [only] = pieces {
            return self.poll_write(task, only);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, pieces);
        self.time_write(task, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the stream once all that it held is written, and whenever it has been woken. Whether it reads again
    /// after that is its own affair, and changes with its settings: so the deadlines are kept here too.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(task))?;
        ready!(Pin::new(&mut self.stream).poll_flush(task))?;
        let begun = self.peer.begun();
        if begun != self.flushed && self.peer.is_answered() {
            self.flushed = begun;
        }
        let too_late = if self.rests() {
            self.poll_rest(task)
        } else if self.http2 {
            Poll::Pending
        } else {
            self.poll_leaving(task)
        };
        match too_late {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(task))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(task))?;
        if self.refusal.is_some() || self.peer.has_unread() {
            ready!(self.poll_parting(task));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_bare_head_is_read_and_nothing_else_is_taken_for_one() {
        let (status, date) =
            refused(b"HTTP/1.1 431 Too Large\r\ndate: Sat, 21 Nov 2026 15:00:00 GMT\r\n\r\n").unwrap();
        assert_eq!((status.as_u16(), date.unwrap().as_bytes()), (431, &b"Sat, 21 Nov 2026 15:00:00 GMT"[..]));
        assert_eq!(refused(b"HTTP/1.0 400 Bad Request\r\n"), Some((StatusCode::BAD_REQUEST, None)));
        // The first frame of HTTP/2, and pieces.
        for other in [&b"\0\0\x12\x04\0\0\0\0\0"[..], b"HTTP/1.1 4", b"HTTP/1.1 abc", b""] {
            assert_eq!(refused(other), None, "{other:?}");
        }
    }
}
