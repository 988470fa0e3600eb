//! The request headers that the middleware needs, and the rules for which a request is refused.
//!
//! They are found in one pass over all headers. One lookup by name takes as long as that pass, for a client that is no
//! browser.

use axum::extract::Request;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, HOST, IF_NONE_MATCH, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Version};

use super::request_id::REQUEST_ID;
use super::settings::Settings;
use crate::error::{Error, Kind};

/// The request headers that the middleware needs.
#[derive(Default)]
pub(super) struct RequestHeaders<'a> {
    pub(super) accept: FieldLines<'a>,
    pub(super) accept_encoding: FieldLines<'a>,
    host: FieldLines<'a>,
    pub(super) if_none_match: FieldLines<'a>,
    pub(super) origin: FieldLines<'a>,
    pub(super) request_id: FieldLines<'a>,
    transfer_encoding: FieldLines<'a>,
}

impl<'a> RequestHeaders<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let lines = if name == ACCEPT {
                &mut found.accept
            } else if name == ACCEPT_ENCODING {
                &mut found.accept_encoding
            } else if name == HOST {
                &mut found.host
            } else if name == IF_NONE_MATCH {
                &mut found.if_none_match
            } else if name == ORIGIN {
                &mut found.origin
            } else if name == REQUEST_ID {
                &mut found.request_id
            } else if name == TRANSFER_ENCODING {
                &mut found.transfer_encoding
            } else {
                continue;
            };
            lines.push(value);
        }
        found
    }

    /// Refuses headers that are too many, too large, or ambiguous.
    pub(super) fn check(&self, request: &Request, settings: &Settings) -> Result<(), Error> {
        let headers = request.headers();
        if headers.len() > settings.max_headers.as_usize() {
            let message = format!("The request has more than {} headers", settings.max_headers.get());
            return Err(Error::new(Kind::HeadersTooLarge).with_message(message));
        }
        // For HTTP/1, hyper limits the size while it reads. For HTTP/2, h2 allows twice this size (`server.rs`).
        if request.version() == Version::HTTP_2 && header_list_size(headers) > settings.max_header_size.get()
        {
            return Err(too_large(settings));
        }
        check_host(request, &self.host)?;
        // RFC 9112, section 6.1: an unknown transfer coding is 501. hyper decodes only `chunked`.
        if self.transfer_encoding.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Error::new(Kind::Other(501)).with_reason("Transfer Coding Not Implemented"));
        }
        Ok(())
    }
}

/// The field lines of one header, in order (RFC 9110, section 5.2). Nearly always there is one at most.
#[derive(Default)]
pub(super) struct FieldLines<'a> {
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

    pub(super) fn first(&self) -> Option<&'a HeaderValue> {
        self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a HeaderValue> {
        self.first.into_iter().chain(self.more.iter().copied())
    }

    /// Whether there is more than one line.
    fn are_several(&self) -> bool {
        !self.more.is_empty()
    }

    /// The complete value of a header that is a list. Several lines mean the same as one line with commas (RFC 9110,
    /// section 5.3).
    pub(super) fn joined(&self) -> Option<HeaderValue> {
        if !self.are_several() {
            return self.first.cloned();
        }
        let lines: Vec<_> = self.iter().map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
    }
}

fn too_large(settings: &Settings) -> Error {
    let message = format!("The headers are larger than {} bytes", settings.max_header_size.get());
    Error::new(Kind::HeadersTooLarge).with_message(message)
}

/// Refuses a request without `Host`, with two, or with one that is not a host (RFC 9112, section 3.2). Also refuses a
/// target in absolute form whose host differs from `Host`: a proxy and the server could disagree about which one
/// counts.
fn check_host(request: &Request, hosts: &FieldLines<'_>) -> Result<(), Error> {
    if request.version() > Version::HTTP_11 {
        return Ok(());
    }
    let host = hosts.first().map(HeaderValue::as_bytes);
    let missing = host.is_none() && request.version() == Version::HTTP_11;
    let differs = host
        .zip(request.uri().authority())
        .is_some_and(|(host, target)| !host.eq_ignore_ascii_case(target.as_str().as_bytes()));
    if missing
        || hosts.are_several()
        || differs
        || !host.is_none_or(|host| host.iter().copied().all(is_host_byte))
    {
        return Err(Error::bad_request("Invalid Host Header"));
    }
    Ok(())
}

/// Whether a host with a port may contain this byte (RFC 3986, section 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// The size of all headers as RFC 9113, section 6.5.2 counts it.
fn header_list_size(headers: &HeaderMap) -> u64 {
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    u64::try_from(sizes.sum::<usize>()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_found_with_all_its_lines_in_their_order() {
        let mut headers = HeaderMap::new();
        for (index, name) in
            [ACCEPT, ACCEPT_ENCODING, HOST, IF_NONE_MATCH, ORIGIN, REQUEST_ID, TRANSFER_ENCODING]
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
            &found.if_none_match,
            &found.origin,
            &found.request_id,
            &found.transfer_encoding,
        ];
        let joined = all.map(|lines| lines.joined().unwrap());
        assert_eq!(joined, ["0, later", "1", "2", "3", "4", "5", "6"]);
        assert!(found.accept.are_several() && !found.host.are_several());
        assert_eq!(found.accept.first().unwrap(), "0");
        assert_eq!(found.accept.iter().count(), 2);
        assert!(RequestHeaders::of(&HeaderMap::new()).host.joined().is_none());
    }
}
