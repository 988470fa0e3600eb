//! Whether the head of a response says clearly where its body ends.

use axum::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

/// Leaves the one length that the body has, or none. The error says what is wrong.
pub(super) fn settle(head: &mut Parts) -> Result<(), &'static str> {
    check_coding(&head.headers)?;
    let lines = head.headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let Some(length) = lengths.next() else { return Ok(()) };
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) || lengths.any(|other| other != length) {
        return Err("its Content-Length is not one number");
    }
    let length = HeaderValue::from_bytes(length);
    head.headers.remove(CONTENT_LENGTH);
    // RFC 9112, section 6.3, and RFC 9110, section 8.6: beside a transfer coding it counts for nothing, and a 204 has none.
    if let Ok(length) = length
        && head.status != StatusCode::NO_CONTENT
        && !head.headers.contains_key(TRANSFER_ENCODING)
    {
        head.headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

/// hyper decodes `chunked`, and takes what else it is coded with for the body itself.
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_plain && codings.next().is_none() {
        Ok(())
    } else {
        Err("its transfer coding is not chunked alone")
    }
}
