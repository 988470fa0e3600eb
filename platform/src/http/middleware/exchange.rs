//! One request and its response, from the request head to the log line.
//!
//! The line is written exactly once: when the response is complete, when its body has been sent or dropped, when an
//! upgraded connection ends, or when the client disconnects before there is a response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::connector::Tally;
use crate::error::Error;
use crate::http::request::context::Context;
use crate::http::request::info::RequestInfo;
use crate::http::request::peer::{InFlight, Peer};
use crate::logging::{self, Canonical, Logging, Value, level_of};

/// The status that nginx logs when a client closes its connection before there is a response.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request, and what becomes of it.
pub(crate) struct Exchange {
    pub(crate) context: Context,
    logging: Logging,
    peer: Option<InFlight>,
    outcome: Outcome,
}

/// What has become of a request.
struct Outcome {
    status: u16,
    /// How much of the body has been sent.
    bytes: u64,
    /// The response is not complete.
    aborted: bool,
    error: Option<Arc<Error>>,
    /// The line has been written.
    written: bool,
}

impl Exchange {
    pub(crate) fn begin(context: Context, peer: Option<Peer>, logging: Logging) -> Self {
        context.measure_begin();
        let outcome =
            Outcome { status: CLIENT_CLOSED_REQUEST, bytes: 0, aborted: true, error: None, written: false };
        Self { context, logging, peer: peer.map(Peer::begin), outcome }
    }

    /// What the request is.
    pub(crate) fn request(&self) -> &RequestInfo {
        self.context.info()
    }

    /// The other end of the connection.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref().map(InFlight::peer)
    }

    /// Sees to it that a response of HTTP/1 after which the connection is closed says so (RFC 9112, section 9.6): some of the
    /// request body has not been read, or cannot be.
    pub(crate) async fn announce_close(&self, response: &mut Response) {
        let Some(peer) = self.peer().filter(|peer| peer.has_unread_body()) else { return };
        if peer.has_broken_body() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else {
            // Nobody will read the rest. With one more turn, hyper tries to, before it writes the head of the response: either
            // it finds the end, or the head says that the connection will be closed.
            tokio::task::yield_now().await;
        }
    }

    /// Keeps the error for the log line. A second one is a consequence of the first.
    pub(crate) fn set_error(&mut self, error: Arc<Error>) {
        self.outcome.error.get_or_insert(error);
    }

    /// Keeps status and size of the response for the log line. True when the body is complete: then the line can be
    /// written now.
    pub(crate) fn record_response(&mut self, response: &Response) -> bool {
        let body = response.body();
        // hyper never asks a body that is at its end for more of it.
        let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        self.outcome.status = response.status().as_u16();
        self.outcome.bytes = length.unwrap_or(0);
        self.outcome.aborted = length.is_none();
        !self.outcome.aborted
    }

    /// Writes the line when the upgraded connection ends, or at the deadline of a drain: a handler that does not read
    /// does not notice either. A request without a socket has no connection: its line is written now.
    pub(crate) fn log_at_upgrade_end(self) {
        let Some(peer) = self.peer().cloned() else { return };
        let (deadline, ended) = (self.context.shutdown().deadline(), CancellationToken::new());
        peer.upgrade((self, ended.clone().drop_guard()));
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = deadline.cancelled() => peer.disconnected(),
            }
        });
    }

    /// Writes the line at the end of a body whose length is not known yet.
    pub(crate) fn log_at_body_end(self, response: Response) -> Response {
        let declared =
            response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|body| Body::new(LoggedBody { inner: body, declared, exchange: self }))
    }

    fn write_line(&mut self) {
        if std::mem::replace(&mut self.outcome.written, true) {
            return;
        }
        let (request, outcome) = (self.context.info(), &self.outcome);
        self.context.measure_end(outcome.status);
        let route = self.context.route();
        // Also a route that is called too often for a line has something to say when it fails, and not only drains.
        let fails = outcome.status >= 500 && !self.context.shutdown().is_announced();
        if !fails && !route.is_none_or(|route| route.logged) {
            return;
        }
        self.context.record_span(outcome.status);
        let mut fields = self.context.take_fields();
        if let Some(trace) = self.context.trace_id() {
            fields.push(("trace_id".into(), Value::from(trace)));
        }
        if let Some((calls @ 1.., time, retries)) = self.context.existing_tally().map(Tally::read) {
            fields.push(("out_n".into(), Value::from(calls)));
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            fields.push(("out_ms".into(), Value::from(millis)));
            fields.push(("out_retries".into(), Value::from(retries)));
        }
        if outcome.aborted {
            fields.push(("aborted".into(), Value::Bool(true)));
        }
        let error = outcome.error.as_deref().map(for_log);
        let forwarded = request.client.forwarded.map(|address| address.to_string());
        self.logging.canonical(&Canonical {
            level: level_of(outcome.status),
            request_id: self.context.request_id(),
            method: request.method.as_str(),
            route: route.map_or("", |route| &route.template),
            path: request.path(),
            status: outcome.status,
            bytes: outcome.bytes,
            duration: request.started.elapsed(),
            peer: forwarded.as_deref().or(self.peer().map(Peer::as_str)),
            error: error.as_deref(),
            fields: &fields,
            message: None,
        });
    }
}

/// How many of the refused fields the log line names.
const MAX_NAMED_FIELDS: usize = 3;

/// The error for the log: its message, and its causes or the fields that were refused. Only the pointer of a field is
/// logged: its message may quote the value, which can be personal.
fn for_log(error: &Error) -> String {
    let cause = error.cause();
    if !cause.is_empty() {
        return format!("{error}: {cause}");
    }
    let mut text = error.message().to_owned();
    let fields = error.errors().iter().filter(|field| !field.pointer.is_empty());
    for (index, field) in fields.clone().take(MAX_NAMED_FIELDS).enumerate() {
        text.push_str(if index == 0 { ": " } else { ", " });
        text.push_str(&field.pointer);
    }
    match fields.count().saturating_sub(MAX_NAMED_FIELDS) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.write_line();
    }
}

/// A body that is sent in several frames. The log line is written after the last one.
struct LoggedBody {
    inner: Body,
    /// `Content-Length`. hyper does not poll a body again once it has this many bytes.
    declared: Option<u64>,
    exchange: Exchange,
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let labels = self.exchange.context.labels();
        let frame = ready!(logging::enter(labels, || Pin::new(&mut self.inner).poll_frame(task)));
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
                let is_last = self.inner.is_end_stream();
                let (declared, outcome) = (self.declared, &mut self.exchange.outcome);
                outcome.bytes += sent;
                outcome.aborted = !(is_last || declared == Some(outcome.bytes));
            }
            Some(Err(error)) => self.exchange.set_error(Arc::new(Error::internal(error.to_string()))),
            None => {
                self.exchange.outcome.aborted = false;
                self.exchange.write_line();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
