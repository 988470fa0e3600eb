//! Paths that lead out of where they seem to be.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Whether some server would read `..` in this path: escaped, with `\` for `/`, or with a parameter (`..;x`).
pub(crate) fn leads_upwards(path: &str) -> bool {
    let plain: Cow<'_, [u8]> = percent_decode_str(path).into();
    let mut segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| segment.split(|byte| *byte == b';').next() == Some(b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_upwards_is_recognised_in_every_spelling() {
        for path in [
            "/..",
            "/../x",
            "/a/..",
            "/a/../b",
            "/%2e%2E/x",
            "/.%2e",
            "/a%2f..%2fb",
            "/..%5cx",
            "/..\\x",
            "/..;x=1/y",
        ] {
            assert!(leads_upwards(path), "{path}");
        }
        for path in ["/", "/a/b", "/...", "/a..b", "/..a", "/%252e%252e", "/%", "/%2", "/a;..", "/%+2e"] {
            assert!(!leads_upwards(path), "{path}");
        }
    }
}
