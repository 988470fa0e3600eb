//! The request headers that the middleware needs, and the rules for which a request is refused.
//!
//! They are found in one pass over all headers. One lookup by name takes as long as that pass, for a client that is no
//! browser.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, COOKIE, HOST, IF_MATCH, IF_NONE_MATCH, ORIGIN, TRANSFER_ENCODING,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, Version};

use super::request_id::REQUEST_ID;
use super::trace::TRACEPARENT;
use crate::connector::TIMEOUT_HEADER;
use crate::error::{Error, Kind};
use crate::http::settings::Settings;
use crate::http::settings::request_host::RequestHost;

/// The request headers that the middleware needs.
#[derive(Default)]
pub(crate) struct RequestHeaders<'a> {
    pub(crate) accept: FieldLines<'a>,
    pub(crate) accept_encoding: FieldLines<'a>,
    host: FieldLines<'a>,
    pub(crate) if_match: FieldLines<'a>,
    pub(crate) if_none_match: FieldLines<'a>,
    pub(crate) origin: FieldLines<'a>,
    pub(crate) request_id: FieldLines<'a>,
    timeout: FieldLines<'a>,
    pub(crate) trace_parent: FieldLines<'a>,
    transfer_encoding: FieldLines<'a>,
    /// The length of all names and values.
    length: usize,
}

impl<'a> RequestHeaders<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            found.length += name.as_str().len() + value.len();
            let lines = if name == ACCEPT {
                &mut found.accept
            } else if name == ACCEPT_ENCODING {
                &mut found.accept_encoding
            } else if name == HOST {
                &mut found.host
            } else if name == IF_MATCH {
                &mut found.if_match
            } else if name == IF_NONE_MATCH {
                &mut found.if_none_match
            } else if name == ORIGIN {
                &mut found.origin
            } else if name == REQUEST_ID {
                &mut found.request_id
            } else if name == TIMEOUT_HEADER {
                &mut found.timeout
            } else if name == TRACEPARENT {
                &mut found.trace_parent
            } else if name == TRANSFER_ENCODING {
                &mut found.transfer_encoding
            } else {
                continue;
            };
            lines.push(value);
        }
        found
    }

    /// The host that the request is for: that of its target (RFC 9112, section 3.2.2), which is `:authority` in HTTP/2, else
    /// `Host`. `None` where it has none and need not.
    ///
    /// Both have to be the same where both are there: a proxy and the server could disagree about which one counts (RFC 9112,
    /// section 3.2; RFC 9113, section 8.3.1).
    pub(crate) fn host(&self, request: &Request) -> Result<Option<RequestHost>, InvalidHost> {
        let parse = |host: HeaderValue| RequestHost::parse(host).ok_or(InvalidHost);
        let (uri, version) = (request.uri(), request.version());
        let header = self.host.first().cloned().map(parse).transpose()?;
        // HTTP/2 has no users there; HTTP/1.1 has them, and they are ignored.
        let with_user = || uri.authority().map(Authority::as_str);
        let target = if version > Version::HTTP_11 { with_user() } else { RequestHost::of_target(uri) };
        let differs = |header: &RequestHost| target.is_some_and(|it| !header.is(it, uri.scheme_str()));
        let is_missing = header.is_none() && (version == Version::HTTP_11 || target.is_none());
        if self.host.are_several()
            || header.as_ref().is_some_and(differs)
            || is_missing && version > Version::HTTP_10
        {
            return Err(InvalidHost);
        }
        match target {
            Some(host) => parse(HeaderValue::from_str(host).map_err(|_| InvalidHost)?).map(Some),
            None => Ok(header),
        }
    }

    /// How long the caller waits for its response, in whole milliseconds, as the connector says it to an upstream.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Error> {
        let Some(line) = self.timeout.first() else { return Ok(None) };
        let digits = line.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let millis = digits.and_then(|digits| digits.parse().ok()).map(Duration::from_millis);
        if millis.is_none() || self.timeout.are_several() {
            let message = "X-Request-Timeout-Ms is not one whole number of milliseconds";
            return Err(Error::bad_request("Invalid Request Timeout").with_message(message));
        }
        Ok(millis)
    }

    /// Refuses headers that are too many, too large, or ambiguous.
    pub(crate) fn check(
        &self,
        request: &Request,
        host: Result<(), InvalidHost>,
        settings: &Settings,
    ) -> Result<(), Error> {
        let headers = request.headers();
        if headers.len() > settings.max_headers.as_usize() {
            let message = format!("The request has more than {} headers", settings.max_headers.get());
            return Err(Error::new(Kind::HeadersTooLarge).with_message(message));
        }
        // hyper and h2 limit it while they read, more or less: hyper reads what comes with the last piece too, h2 allows twice
        // this size (`server/mod.rs`).
        let (limit, target) = (settings.max_header_size.as_usize(), target_length(request.uri()));
        if target > limit {
            return Err(target_too_long(settings));
        }
        // RFC 9113, section 6.5.2; a line has `: ` and its end.
        let around = if request.version() > Version::HTTP_11 { 32 } else { 4 };
        if request.method().as_str().len() + target + self.length + headers.len() * around > limit {
            return Err(too_large(settings));
        }
        host?;
        check_transfer_encoding(&self.transfer_encoding)?;
        self.timeout()?;
        Ok(())
    }
}

/// The field lines of one header, in order (RFC 9110, section 5.2). Nearly always there is one at most.
#[derive(Default)]
pub(crate) struct FieldLines<'a> {
    first: Option<&'a HeaderValue>,
    more: Vec<&'a HeaderValue>,
}

impl<'a> FieldLines<'a> {
    fn push(&mut self, line: &'a HeaderValue) {
        if self.first.is_none() {
            self.first = Some(line);
        } else {
            self.more.push(line);
        }
    }

    pub(crate) fn first(&self) -> Option<&'a HeaderValue> {
        self.first
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a HeaderValue> {
        self.first.into_iter().chain(self.more.iter().copied())
    }

    /// Whether there is more than one line.
    fn are_several(&self) -> bool {
        !self.more.is_empty()
    }

    /// The complete value of a header that is a list. Several lines mean the same as one line with commas (RFC 9110,
    /// section 5.3).
    pub(crate) fn joined(&self) -> Option<HeaderValue> {
        if !self.are_several() {
            return self.first.cloned();
        }
        joined(self.iter(), ", ")
    }
}

/// One line of several. `None` when there are none.
pub(crate) fn joined<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
    separator: &str,
) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    let joined = || HeaderValue::from_bytes(&lines.join(separator.as_bytes())).ok();
    if lines.is_empty() { None } else { joined() }
}

fn too_large(settings: &Settings) -> Error {
    let message = format!("The headers are larger than {} bytes", settings.max_header_size.get());
    Error::new(Kind::HeadersTooLarge).with_message(message)
}

/// The error for a target over the limit.
pub(crate) fn target_too_long(settings: &Settings) -> Error {
    let message = format!("The request target is larger than {} bytes", settings.max_header_size.get());
    Error::new(Kind::Other(414)).with_reason("URI Too Long").with_message(message)
}

fn target_length(target: &Uri) -> usize {
    let path = target.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = target.authority().map_or(0, |authority| authority.as_str().len());
    path + authority + target.scheme_str().map_or(0, str::len)
}

/// Makes one line of the cookies that HTTP/2 may have split (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(request: &mut Request) {
    if request.version() <= Version::HTTP_11 {
        return;
    }
    let lines = request.headers().get_all(COOKIE);
    if lines.iter().nth(1).is_some()
        && let Some(joined) = joined(lines.iter(), "; ")
    {
        request.headers_mut().insert(COOKIE, joined);
    }
}

/// A request that names no host, two, or what is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InvalidHost;

impl From<InvalidHost> for Error {
    fn from(_: InvalidHost) -> Self {
        Self::bad_request("Invalid Host Header")
    }
}

/// RFC 9112, section 6.1: `chunked` twice is an error, an unknown transfer coding is 501. hyper decodes only `chunked`, and
/// looks at the last coding only. Who cannot be sure where a message ends closes the connection.
fn check_transfer_encoding(lines: &FieldLines<'_>) -> Result<(), Error> {
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let codings = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let (chunked, all) =
        codings.fold((0, 0), |(chunked, all), coding| (chunked + usize::from(is_chunked(coding)), all + 1));
    match (chunked, all) {
        (_, 0) | (1, 1) => Ok(()),
        (2.., _) => Err(Error::bad_request("Malformed Request").with_header("connection", "close")),
        _ => Err(Error::new(Kind::Other(501)).with_reason("Transfer Coding Not Implemented")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_found_with_all_its_lines_in_their_order() {
        let mut headers = HeaderMap::new();
        for (index, name) in
            [ACCEPT, ACCEPT_ENCODING, HOST, IF_MATCH, IF_NONE_MATCH, ORIGIN, REQUEST_ID, TRANSFER_ENCODING]
                .iter()
                .enumerate()
        {
            headers.append(name, HeaderValue::from(index));
            headers.append("x-other", HeaderValue::from(index));
        }
        headers.append(ACCEPT, HeaderValue::from_static("later"));
        let found = RequestHeaders::of(&headers);
        let all = [
            &found.accept,
            &found.accept_encoding,
            &found.host,
            &found.if_match,
            &found.if_none_match,
            &found.origin,
            &found.request_id,
            &found.transfer_encoding,
        ];
        let joined = all.map(|lines| lines.joined().unwrap());
        assert_eq!(joined, ["0, later", "1", "2", "3", "4", "5", "6", "7"]);
        assert!(found.accept.are_several() && !found.host.are_several());
        assert_eq!(found.accept.first().unwrap(), "0");
        assert_eq!(found.accept.iter().count(), 2);
        assert!(RequestHeaders::of(&HeaderMap::new()).host.joined().is_none());
    }
}
