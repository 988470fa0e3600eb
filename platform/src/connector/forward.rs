//! Forwards a request to an upstream as it came: bytes of the path, bodies in both directions while they arrive, WebSockets.
//! It goes through the same breaker, budget and limit of concurrency as a call. What it must not do: change a body.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::call::{MARGIN, TIMEOUT_HEADER};
use super::error::{CallError, Cause};
use super::framing;
use super::hop_by_hop;
use super::permits::Permit;
use super::tunnel;
use super::upload::Upload;
use super::upstream::{Connector, Recorder};

/// What is sent with each attempt.
struct Outgoing {
    head: Request<()>,
    upload: Arc<Upload>,
    /// The client's side of a WebSocket that the request asks for.
    upgrade: Option<OnUpgrade>,
}

impl Connector {
    /// Forwards a request, and gives the response while its body still comes. `path` is appended to that of the upstream's
    /// URL as it is; that it does not lead out of it is up to the caller. The headers of the connection are taken away in
    /// both directions, `Host` becomes that of the upstream (`forward.keep_host`), and the headers of the request at hand are set.
    ///
    /// A silence of the upstream of `forward.idle_timeout` ends it, before the response and in its body. It is repeated only
    /// where the method is idempotent, no response has come, and nothing of the body has been sent. Every status is a
    /// response, and no error.
    pub async fn forward(
        &self,
        request: Request<Body>,
        path: &PathAndQuery,
    ) -> Result<Response<Body>, CallError> {
        let upstream = &*self.upstream;
        let mut recorder = self.recorder();
        let method = request.method().clone();
        let result = async {
            let Some(permit) = upstream.permits.take() else {
                return Err(CallError::new(&upstream.name, Cause::Overloaded, ""));
            };
            let outgoing = self.outgoing(request, path)?;
            upstream.budget.deposit();
            let response = self.forward_attempts(&outgoing, &mut recorder).await?;
            self.relay(response, outgoing.upgrade, permit)
        };
        let result = result.await;
        self.log_forwarded(
            &method,
            path,
            &recorder,
            result.as_ref().map(|response| response.status().as_u16()),
        );
        result
    }

    fn outgoing(&self, request: Request<Body>, path: &PathAndQuery) -> Result<Outgoing, CallError> {
        let (mut head, body) = request.into_parts();
        let websocket = hop_by_hop::asks_for_websocket(&head.headers);
        let upgrade = head.extensions.remove::<OnUpgrade>().filter(|_| websocket);
        head.uri = self.forwarded_uri(path)?;
        hop_by_hop::remove(&mut head.headers);
        if !self.upstream.settings.forward.keep_host {
            // The client sets it by the URL.
            head.headers.remove(HOST);
        }
        let is_sized = body.size_hint().exact().is_some() || head.headers.contains_key(CONTENT_LENGTH);
        if !body.is_end_stream() && !is_sized {
            // Without it hyper would send no body with methods that seldom have one, such as GET.
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(incoming) = &self.incoming {
            // Of a trace that is continued, it is among them.
            head.headers.remove("tracestate");
            for (name, value) in &incoming.headers {
                head.headers.insert(name, value.clone());
            }
        }
        if let Some(authorization) = &self.upstream.authorization {
            head.headers.insert(AUTHORIZATION, authorization.clone());
        }
        if upgrade.is_some() {
            hop_by_hop::set_websocket(&mut head.headers);
        }
        let mut bare = Request::new(());
        *bare.method_mut() = head.method;
        *bare.uri_mut() = head.uri;
        *bare.headers_mut() = head.headers;
        Ok(Outgoing { head: bare, upload: Upload::new(body), upgrade })
    }

    fn forwarded_uri(&self, path: &PathAndQuery) -> Result<Uri, CallError> {
        let wrong = |why: String| CallError::new(&self.upstream.name, Cause::InvalidCall, why);
        let Some(base) = &self.upstream.base else {
            return Err(wrong("only an upstream of the configuration can be forwarded to".to_owned()));
        };
        let scheme = if base.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP };
        let host = base.host_str().unwrap_or_default();
        let authority = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let authority: Authority = authority.parse().map_err(|error| wrong(format!("{error}")))?;
        let prefix = base.path().trim_end_matches('/');
        let path = if prefix.is_empty() {
            path.clone()
        } else {
            format!("{prefix}{path}").parse().map_err(|error| wrong(format!("{error}")))?
        };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        uri.map_err(|error| wrong(error.to_string()))
    }

    async fn forward_attempts(
        &self,
        outgoing: &Outgoing,
        recorder: &mut Recorder,
    ) -> Result<Response<Begun>, CallError> {
        let upstream = &*self.upstream;
        loop {
            let number = recorder.retries + 1;
            let error = match self.forward_guarded(outgoing, number).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let repeatable = outgoing.head.method().is_idempotent()
                && outgoing.upload.is_untouched()
                && matches!(error.cause(), Cause::Refused | Cause::Broken);
            if !repeatable || number >= upstream.policy.attempts() {
                return Err(error);
            }
            let wait = upstream.policy.wait(number);
            let too_late = self.request_deadline().is_some_and(|(end, _)| Instant::now() + wait >= end);
            if too_late || !upstream.budget.withdraw() {
                return Err(error);
            }
            tracing::info!(
                target: "server.outbound", request_id = self.request_id(), upstream = &*upstream.name,
                attempt = number, error = error.to_string(), "attempt failed"
            );
            sleep(wait).await;
            recorder.retries += 1;
        }
    }

    /// One attempt, if the breaker lets it through.
    async fn forward_guarded(&self, outgoing: &Outgoing, number: u32) -> Result<Response<Begun>, CallError> {
        let upstream = &*self.upstream;
        let pass = upstream.pass()?;
        let result = self.forward_once(outgoing, number).await;
        let failed = match &result {
            // A 500 may be the fault of one URL, which anybody can ask for.
            Ok(response) => Some(matches!(response.status().as_u16(), 502..=504)),
            // A client that breaks off its body says nothing about the upstream.
            Err(_) if outgoing.upload.has_failed() => None,
            // The time of the request is over, and it was not the client's alone.
            Err(error) if error.cause() == (Cause::TimedOut { by_request: true }) => {
                outgoing.upload.is_silent_for(upstream.settings.attempt_timeout.get()).then_some(true)
            }
            Err(error) => error.counts(),
        };
        upstream.settle(pass, failed);
        result
    }

    async fn forward_once(&self, outgoing: &Outgoing, number: u32) -> Result<Response<Begun>, CallError> {
        let upstream = &*self.upstream;
        let failed = |cause, detail: String| CallError::new(&upstream.name, cause, detail);
        let client = upstream.forwarder.get().await;
        let client = client.map_err(|why| failed(Cause::InvalidCall, why.to_owned()))?;
        let mut request = Request::new(outgoing.upload.for_attempt(number));
        *request.method_mut() = outgoing.head.method().clone();
        *request.uri_mut() = outgoing.head.uri().clone();
        *request.headers_mut() = outgoing.head.headers().clone();
        let deadline = self.request_deadline();
        if let Some((_, left)) = deadline {
            request.headers_mut().insert(TIMEOUT_HEADER, HeaderValue::from(left));
        }
        remove_twins(request.headers_mut());
        let silent = outgoing.upload.silence(upstream.settings.forward.idle_timeout.get());
        let over = async {
            match deadline {
                Some((end, _)) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let exchange = async {
            let response = client.request(request).await;
            let response = response.map_err(|error| failed(cause_of(&error), chain(&error)))?;
            outgoing.upload.touch();
            let (mut head, mut rest) = response.into_parts();
            framing::settle(&mut head).map_err(|why| failed(Cause::Broken, why.to_owned()))?;
            // Of a length that is known the begin is waited for: an upstream that breaks before it has not responded.
            let is_sized = rest.size_hint().exact().is_some_and(|length| length > 0);
            let first = if is_sized { rest.frame().await.transpose() } else { Ok(None) };
            let first = first.map_err(|error| failed(Cause::Broken, chain(&error)))?;
            Ok(Response::from_parts(head, Begun { first, rest }))
        };
        tokio::select! {
            biased;
            response = exchange => response,
            () = silent => Err(failed(Cause::TimedOut { by_request: false }, String::new())),
            () = over => Err(failed(Cause::TimedOut { by_request: true }, String::new())),
        }
    }

    /// When the handler has to respond, so that it still can, and in how many milliseconds that is.
    fn request_deadline(&self) -> Option<(Instant, u64)> {
        let deadline = self.incoming.as_ref()?.deadline?;
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.saturating_sub(MARGIN.min(left / 10));
        Some((Instant::now() + left, u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Makes the response of the upstream one of this server.
    fn relay(
        &self,
        response: Response<Begun>,
        upgrade: Option<OnUpgrade>,
        permit: Permit,
    ) -> Result<Response<Body>, CallError> {
        let (mut head, body) = response.into_parts();
        let websocket = hop_by_hop::asks_for_websocket(&head.headers);
        hop_by_hop::remove(&mut head.headers);
        let mut relayed = Response::new(Body::empty());
        *relayed.status_mut() = head.status;
        *relayed.headers_mut() = head.headers;
        if let Some(reason) = head.extensions.remove::<ReasonPhrase>() {
            relayed.extensions_mut().insert(reason);
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            let limit = self.upstream.settings.forward.idle_timeout.get();
            self.upstream.permits.watch(&permit);
            let relay = Relayed { body, limit, silent: None, permit, is_polled: false, failed: None };
            *relayed.body_mut() = Body::new(relay);
            return Ok(relayed);
        }
        let (Some(client), true, Some(server)) = (upgrade, websocket, head.extensions.remove::<OnUpgrade>())
        else {
            let error = "it switches to a protocol that it was not asked for";
            return Err(CallError::new(&self.upstream.name, Cause::Broken, error));
        };
        hop_by_hop::set_websocket(relayed.headers_mut());
        let bounds = self.incoming.as_ref().map(|incoming| incoming.tunnel.clone());
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
            tunnel::run(TokioIo::new(client), TokioIo::new(server), bounds).await;
            drop(permit);
        });
        Ok(relayed)
    }

    fn log_forwarded(
        &self,
        method: &Method,
        path: &PathAndQuery,
        recorder: &Recorder,
        result: Result<u16, &CallError>,
    ) {
        let (request_id, upstream) = (self.request_id(), &*self.upstream.name);
        recorder.measure(upstream, method, result);
        // The query may hold secrets.
        let (method, path, retries) = (method.as_str(), path.path(), recorder.retries);
        let ms = u64::try_from(recorder.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(status) => {
                tracing::debug!(target: "server.outbound", request_id, upstream, method, path, status, retries, ms, "forwarded");
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(target: "server.outbound", request_id, upstream, method, path, error, retries, ms, "not forwarded");
            }
        }
    }
}

/// Removes each header with `_` in its name beside one with `-` in its place: CGI takes both for one (`HTTP_X_FORWARDED_FOR`).
fn remove_twins(headers: &mut HeaderMap) {
    let twin = |name: &&HeaderName| {
        name.as_str().contains('_') && headers.contains_key(name.as_str().replace('_', "-"))
    };
    let twins: Vec<HeaderName> = headers.keys().filter(twin).cloned().collect();
    for name in twins {
        headers.remove(name);
    }
}

/// Why there is no response.
fn cause_of(error: &legacy::Error) -> Cause {
    match () {
        () if causes(error).any(<dyn Error>::is::<Elapsed>) => Cause::TimedOut { by_request: false },
        () if error.is_connect() => Cause::Refused,
        () => Cause::Broken,
    }
}

/// What has caused an error.
fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| (*error).source())
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The body of a response that has begun: its first piece, where that was waited for, and the rest.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Incoming,
}

/// The body of a response that is passed on. An upstream that is silent for too long breaks it off. Its size is not told:
/// the framing goes by `Content-Length`, and a response to HEAD has one without a body.
struct Relayed {
    body: Begun,
    limit: Duration,
    /// Runs while the upstream is waited for.
    silent: Option<Pin<Box<Sleep>>>,
    permit: Permit,
    is_polled: bool,
    /// An error that is kept back for one turn.
    failed: Option<hyper::Error>,
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let is_first_turn = !std::mem::replace(&mut self.is_polled, true);
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        let begin = self.body.first.take().map(|frame| Poll::Ready(Some(Ok(frame))));
        if let Poll::Ready(frame) = begin.unwrap_or_else(|| Pin::new(&mut self.body.rest).poll_frame(task)) {
            self.silent = None;
            self.permit.note(true);
            return match frame {
                // In its first turn hyper would drop the head too: the client would get nothing.
                Some(Err(error)) if is_first_turn => {
                    self.failed = Some(error);
                    task.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Err(error)) => Poll::Ready(Some(Err(axum::Error::new(error)))),
                frame => Poll::Ready(
                    frame.and_then(Result::ok).map(hop_by_hop::without_forbidden_trailers).map(Ok),
                ),
            };
        }
        self.permit.note(false);
        let limit = self.limit;
        let silent = self.silent.get_or_insert_with(|| Box::pin(sleep(limit)));
        if silent.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the upstream is silent");
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.first.is_none() && self.failed.is_none() && self.body.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
