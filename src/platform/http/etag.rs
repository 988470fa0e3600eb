//! `ETag` and `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1.2) for answers whose body is at hand.
//!
//! The tag is the XXH3 hash of the body with 128 bits: 32 hexadecimal digits. It names the content, not its
//! encoding: an answer that is compressed carries the same tag as a weak one.

use axum::http::HeaderValue;
use twox_hash::XxHash3_128;
use uuid::Uuid;

/// The strong tag of a body.
pub(super) fn of(body: &[u8]) -> HeaderValue {
    let mut tag = [b'"'; 34];
    Uuid::from_u128(XxHash3_128::oneshot(body)).simple().encode_lower(&mut tag[1..33]);
    HeaderValue::from_bytes(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The tag of an empty body, so that an answer without one costs no hash.
pub(super) const EMPTY: HeaderValue = HeaderValue::from_static("\"99aa06d3014798d86001c324468d497f\"");

/// The weak form of a tag.
pub(super) fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    if tag.as_bytes().starts_with(b"W/") {
        return None;
    }
    let mut weak = b"W/".to_vec();
    weak.extend_from_slice(tag.as_bytes());
    HeaderValue::from_bytes(&weak).ok()
}

/// Whether the client already has what the tag names: the weak comparison, as for every GET.
pub(super) fn matches(if_none_match: &HeaderValue, tag: &HeaderValue) -> bool {
    let tag = opaque(tag.as_bytes());
    let list = if_none_match.as_bytes();
    list.trim_ascii() == b"*" || list.split(|byte| *byte == b',').any(|one| opaque(one.trim_ascii()) == tag)
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_depends_on_the_content_alone() {
        assert_eq!(of(b"a"), of(b"a"));
        assert_ne!(of(b"a"), of(b"b"));
        assert_eq!(of(b"a").len(), 34);
        assert_eq!(of(b""), EMPTY);
    }

    #[test]
    fn if_none_match_takes_a_list_a_star_and_weak_tags() {
        let tag = of(b"a");
        let text = tag.to_str().unwrap();
        for header in [text.to_owned(), format!("W/{text}"), format!("\"x\", {text}"), "*".to_owned()] {
            assert!(matches(&HeaderValue::try_from(&header).unwrap(), &tag), "{header}");
        }
        assert!(!matches(&HeaderValue::from_static("\"x\""), &tag));
        assert!(!matches(&HeaderValue::from_static(""), &tag));
    }
}
