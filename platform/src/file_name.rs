//! File names for texts that somebody else chose: the id of a document, the name of a lock.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// A file name, without an extension: the text itself if that is a safe file name, else `~` and a hash of the text.
///
/// Safe is `[a-z0-9_-]{1,64}`: no separator, no dot, one letter case and one Unicode form. So two texts never share a
/// file, also on file systems that ignore case or normalise names. No safe text begins with `~`.
pub fn safe(text: &str) -> String {
    let is_safe = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if is_safe {
        return text.to_owned();
    }
    let mut name = String::from("~");
    for byte in Sha256::digest(text.as_bytes()) {
        // A write to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_file_name_is_safe_and_unique() {
        assert_eq!(safe("0190a-b_c"), "0190a-b_c");
        let long = "x".repeat(300);
        let texts =
            ["", "../x", "a/b", "a\0b", "A", "a", "é", "e\u{301}", ".", "..", ".lock", "~a", "x.json", &long];
        let names: HashSet<String> = texts.iter().map(|text| safe(text)).collect();
        assert_eq!(names.len(), texts.len());
        for name in names {
            assert!(name.len() <= 65 && !name.starts_with('.'), "{name}");
            assert!(
                name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'~')),
                "{name}"
            );
        }
    }
}
