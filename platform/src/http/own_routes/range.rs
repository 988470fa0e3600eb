//! Which `Range` of a request a static file is asked for (RFC 9110, sections 13.1.5 and 14.2). tower-http responds 416 to every
//! range that it does not serve, and does not know `If-Range`; the standard has such headers ignored.

use axum::http::header::{ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use axum::http::{HeaderMap, HeaderValue};

/// Whether what a file is now has to be known: only for these requests is it asked for.
pub(crate) fn needs_file(request: &HeaderMap) -> bool {
    request.contains_key(RANGE)
}

/// Changes the header `Range` to one that tower-http serves as the standard wants it, or removes it. `file` are the headers
/// of the response without a range, and `length` its length.
pub(crate) fn settle(request: &mut HeaderMap, file: &HeaderMap, length: u64) {
    let condition = request.remove(IF_RANGE);
    let fresh = condition.is_none_or(|condition| is_fresh(&condition, file));
    let range = request.remove(RANGE).filter(|_| fresh);
    if let Some(range) = range.and_then(|range| served(&range, length)) {
        request.insert(RANGE, range);
    }
}

/// The tag or the date of the response that the client has a part of: a part of another one must not be added to it. A weak tag
/// says too little.
fn is_fresh(condition: &HeaderValue, file: &HeaderMap) -> bool {
    let is_tag = condition.as_bytes().starts_with(b"\"");
    let current = file.get(if is_tag { ETAG } else { LAST_MODIFIED });
    !condition.as_bytes().starts_with(b"W/") && current == Some(condition)
}

/// A range of bytes; `None` for what is none, for several, and for one of an empty file, which a server may ignore (section 14.2).
fn served(range: &HeaderValue, length: u64) -> Option<HeaderValue> {
    let (unit, spec) = range.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || length == 0 {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    // A number that is too large is beyond every file.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let text = match (first, last) {
        ("", last) => {
            let last = number(last)?;
            if last >= length && last > 0 { "bytes=0-".to_owned() } else { format!("bytes=-{last}") }
        }
        (first, "") => format!("bytes={}-", number(first)?),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            format!("bytes={first}-{}", last.min(length.saturating_sub(1).max(first)))
        }
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_served_or_ignored_as_the_standard_says() {
        for (sent, expected) in [
            ("bytes=0-9", Some("bytes=0-9")),
            ("Bytes=5-", Some("bytes=5-")),
            ("bytes=0-1000", Some("bytes=0-99")),
            ("bytes=0-99999999999999999999999", Some("bytes=0-99")),
            ("bytes=-5", Some("bytes=-5")),
            ("bytes=-5000", Some("bytes=0-")),
            ("bytes=-100", Some("bytes=0-")),
            ("bytes=100-", Some("bytes=100-")),
            ("bytes=-0", Some("bytes=-0")),
            ("bytes=9-0", None),
            ("bytes=0-9,20-29", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("items=0-5", None),
            ("0-5", None),
        ] {
            let range = served(&HeaderValue::from_static(sent), 100);
            assert_eq!(range.as_ref().map(|range| range.to_str().unwrap()), expected, "{sent}");
            assert_eq!(served(&HeaderValue::from_static(sent), 0), None, "{sent} of an empty file");
        }
    }
}
