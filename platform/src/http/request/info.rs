//! What a request is: read once from its head, and the same from then on.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method};

use super::arrival::Arrival;
use super::peer::Peer;
use super::request_headers::{InvalidHost, RequestHeaders};
use super::request_id::RequestId;
use super::trace::TraceParent;
use crate::http::settings::request_host::RequestHost;
use crate::http::settings::trusted_proxies::TrustedProxies;
use crate::tls::ClientCertificate;
use crate::traces::{SpanContext, Traces};

/// The head of a request, as far as anyone asks for it later: its handler takes the request itself.
pub(crate) struct RequestInfo {
    pub(crate) id: RequestId,
    /// What came, or where spans are recorded, what is passed on.
    pub(crate) trace: Option<TraceParent>,
    /// Its trace and its span, where spans are recorded.
    pub(crate) span_context: Option<SpanContext>,
    /// The method that the client has sent.
    pub(crate) method: Method,
    /// The request target. `None` when the request could not be read.
    target: Option<PathAndQuery>,
    host: Result<Option<RequestHost>, InvalidHost>,
    pub(crate) client: Client,
    /// The index of its route in the table.
    pub(crate) route: Option<usize>,
    /// When the request head was read.
    pub(crate) started: Instant,
    /// How long the caller waits, where it says so (`X-Request-Timeout-Ms`).
    pub(crate) caller_waits: Option<Duration>,
    pub(crate) accept_encoding: Option<HeaderValue>,
    pub(crate) if_match: Option<HeaderValue>,
    pub(crate) if_none_match: Option<HeaderValue>,
    pub(crate) origin: Option<HeaderValue>,
    /// The client accepts `application/problem+json`.
    pub(crate) problem: bool,
}

/// Who sent a request, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// The other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// The client that a trusted proxy names.
    pub(crate) forwarded: Option<IpAddr>,
    /// It has used HTTPS, with this server or with a trusted proxy.
    pub(crate) secure: bool,
    /// The certificate that it has shown to this server.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl RequestInfo {
    /// A request with this route. `traces` is where spans are recorded, if they are.
    pub(crate) fn new(
        request: &Request,
        headers: &RequestHeaders<'_>,
        client: Client,
        route: Option<usize>,
        traces: Option<&Traces>,
    ) -> Self {
        let received = TraceParent::read(headers.trace_parent.iter());
        let caller = received.as_ref().and_then(TraceParent::caller);
        let span_context = traces.map(|traces| traces.begin(caller));
        Self {
            id: RequestId::new(headers.request_id.first()),
            trace: span_context.and_then(TraceParent::at).or(received),
            span_context,
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            host: headers.host(request),
            client,
            route,
            started: Instant::now(),
            caller_waits: headers.timeout().unwrap_or_default(),
            accept_encoding: headers.accept_encoding.joined(),
            if_match: headers.if_match.joined(),
            if_none_match: headers.if_none_match.joined(),
            origin: headers.origin.first().cloned(),
            problem: headers.accept.iter().any(accepts_problem),
        }
    }

    /// A request that could not be read, or does not exist: it has neither method nor path.
    pub(crate) fn unreadable(client: Client, traces: Option<&Traces>) -> Self {
        let headers = RequestHeaders::default();
        let info = Self::new(&Request::default(), &headers, client, None, traces);
        Self { method: Method::from_bytes(b"-").unwrap_or_default(), target: None, ..info }
    }

    /// The method whose handler is called: GET for HEAD.
    pub(crate) fn handler_method(&self) -> &Method {
        if self.method == Method::HEAD { &Method::GET } else { &self.method }
    }

    /// Whether its trace has begun before it.
    pub(crate) fn continues_a_trace(&self) -> bool {
        self.span_context.map_or(self.trace.is_some(), |context| context.parent != 0)
    }

    /// Whether it names a host, or need not.
    pub(crate) fn check_host(&self) -> Result<(), InvalidHost> {
        self.host.as_ref().map(drop).map_err(|invalid| *invalid)
    }

    /// The host that it is for, where it names a valid one.
    pub(crate) fn host(&self) -> Option<&RequestHost> {
        self.host.as_ref().ok()?.as_ref()
    }

    /// The path of the request, without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.as_ref().map_or("-", PathAndQuery::path)
    }
}

impl Client {
    /// What is known of a client by its connection alone.
    pub(crate) fn direct(peer: &Peer) -> Self {
        let (secure, certificate) = match peer.arrival() {
            Some(Arrival::Tls(certificate)) => (true, certificate.clone()),
            _ => (false, None),
        };
        Self { peer: Some(peer.address()), forwarded: None, secure, certificate }
    }

    /// Who sent a request: the peer, and the client that it names where it is a trusted proxy.
    pub(crate) fn of(peer: &Peer, proxies: &TrustedProxies, headers: &HeaderMap) -> Self {
        let mut client = Self::direct(peer);
        let address = peer.address().ip();
        if !proxies.is_empty() {
            client.forwarded = proxies.client(address, headers);
            client.secure |= proxies.say_https(address, headers);
        }
        client
    }
}

const PROBLEM: &str = "application/problem+json";

/// Whether `Accept` names this media type with a weight above 0 (RFC 9110, section 12.5.1).
fn accepts_problem(accept: &HeaderValue) -> bool {
    if accept.len() < PROBLEM.len() {
        return false;
    }
    let mut types = accept.to_str().unwrap_or_default().split(',');
    types.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(PROBLEM))
            && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}
