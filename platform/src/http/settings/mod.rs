//! The settings of HTTP: the limits of connections, requests and responses.

pub(super) mod allowed_hosts;
pub(super) mod request_host;
pub(super) mod trusted_proxies;

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};

use self::allowed_hosts::AllowedHosts;
use self::trusted_proxies::TrustedProxies;
use crate::setting::{Count, PublicUrl, Size, Span};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const MIB: u64 = 1 << 20;

/// Section `http`; `defaults/http.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The largest request body, as received and again after decompression.
    pub body_limit: Size<0, { 1024 * MIB }>,
    /// How long a handler may take.
    pub request_timeout: Span<1, HOUR>,
    /// How long a new connection may send nothing.
    pub first_byte_timeout: Span<1, HOUR>,
    /// How long a client may take to send a request head; also how long an idle connection is kept.
    pub header_timeout: Span<1, HOUR>,
    /// How long a client may read nothing of its response.
    pub write_timeout: Span<1, HOUR>,
    /// How long an upgraded connection may be silent on both sides.
    pub upgrade_idle_timeout: Span<1, { 24 * HOUR }>,
    /// The most connections that wait to be accepted.
    pub backlog: Count<1, 65_535>,
    /// The most connections that are open at the same time. Further ones wait.
    pub max_connections: Count<1, 1_000_000>,
    /// The file descriptors that connections leave to the rest of the process.
    pub reserved_files: Count<0, 100_000>,
    /// The most requests whose handlers work at the same time. Further ones are refused.
    pub max_in_flight: Count<1, 1_000_000>,
    /// The requests a minute of one client; 0 turns the limit off.
    pub rate_limit: Count<0, 1_000_000>,
    /// The requests that a client may send at once.
    pub rate_limit_burst: Count<1, 1_000_000>,
    /// The clients that are kept in mind.
    pub rate_limit_clients: Count<100, 10_000_000>,
    /// The names under which the server may be asked; all where there are none.
    pub allowed_hosts: AllowedHosts,
    /// How long a body may be slower than `body_min_rate`.
    pub body_grace: Span<0, HOUR>,
    /// The bytes per second that a body must reach after the grace.
    pub body_min_rate: Count<0, 1_000_000_000>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// The origins, besides its own, whose pages may send forms with cookies.
    pub trusted_origins: Vec<PublicUrl>,
    /// The most items in one response of a list.
    pub list_limit: Count<1, 100_000>,
    /// The most headers of a request.
    pub max_headers: Count<8, 1_000>,
    /// The largest request head.
    pub max_header_size: Size<8_192, MIB>,
    /// The most concurrent requests on one HTTP/2 connection.
    pub http2_max_streams: Count<1, 10_000>,
    /// How often an HTTP/2 client is pinged.
    pub http2_ping_interval: Span<SECOND, HOUR>,
    /// Whether responses are compressed for clients that accept it.
    pub compression: bool,
    /// The smallest response body that is compressed.
    pub compression_min_size: Size<0, MIB>,
    /// Whether responses to GET carry an `ETag`.
    pub etag: bool,
    /// Whether a JSON body that is not what its route takes is 422, and not 400.
    pub unprocessable_content: bool,
    /// The headers of every response that is a page. An empty value leaves a header out.
    pub security_headers: BTreeMap<String, HeaderText>,
    /// The headers of every other response.
    pub api_headers: BTreeMap<String, HeaderText>,
}

impl Settings {
    /// How many connections may wait in a listening socket.
    pub(crate) fn backlog(&self) -> u32 {
        u32::try_from(self.backlog.get()).unwrap_or(u32::MAX)
    }

    /// The most connections of a process that may open this many files. Of a limit below twice the reserve they take half.
    pub(crate) fn connections_within(&self, files: u64) -> u64 {
        let left = files.saturating_sub(self.reserved_files.get()).max(files / 2);
        self.max_connections.at_most(left).get()
    }

    /// Lowers `max_connections` to what a process can have that may open this many files.
    pub(crate) fn fit_files(&mut self, files: u64) {
        self.max_connections = self.max_connections.at_most(self.connections_within(files));
    }
}

/// The value of a header: only characters that HTTP allows in it (RFC 9110, section 5.5).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct HeaderText(String);

impl TryFrom<String> for HeaderText {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match HeaderValue::try_from(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err("a header cannot hold line breaks and other control characters"),
        }
    }
}

impl HeaderText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
