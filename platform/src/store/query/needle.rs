//! A text to look for in other texts.

use crate::error::{Error, Result};

/// The most bytes of a text to look for. MongoDB takes a regular expression of 32 KiB, and one without regard to case has
/// up to four letters for each.
pub const MAX_NEEDLE: usize = 1_024;

/// A text to look for in other texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    text: String,
    ignores_case: bool,
}

impl Needle {
    /// Found where it is, byte by byte.
    pub fn exact(text: impl Into<String>) -> Self {
        Self { text: text.into(), ignores_case: false }
    }

    /// Found also where letters have the other case, in any language: `é` finds `É`. Only pairs of single letters count,
    /// as Unicode has them in `UnicodeData.txt`: `ß` does not find `SS`.
    pub fn ignoring_case(text: impl Into<String>) -> Self {
        Self { text: text.into(), ignores_case: true }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the case of letters is ignored.
    pub fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// `BadRequest` when it is longer than [`MAX_NEEDLE`].
    pub(super) fn check(&self) -> Result<()> {
        if self.text.len() > MAX_NEEDLE { Err(Error::bad_request("Text To Find Too Long")) } else { Ok(()) }
    }

    /// For each of its letters the letters that it finds, itself included. Engines make a pattern of them.
    pub(in super::super) fn letters(&self) -> impl Iterator<Item = Vec<char>> {
        self.text.chars().map(|letter| if self.ignores_case { cases(letter) } else { vec![letter] })
    }

    /// Whether it is in a text. This defines what it finds.
    pub(super) fn is_in(&self, text: &str) -> bool {
        if !self.ignores_case {
            return text.contains(&self.text);
        }
        let letters: Vec<Vec<char>> = self.letters().collect();
        let begins = |start: usize| {
            let mut found = text[start..].chars();
            letters.iter().all(|cases| found.next().is_some_and(|letter| cases.contains(&letter)))
        };
        letters.is_empty() || text.char_indices().any(|(start, _)| begins(start))
    }
}

/// A letter in all its cases. Some letters have three: `σ`, `ς` and `Σ`.
fn cases(letter: char) -> Vec<char> {
    let one =
        |mut letters: Box<dyn Iterator<Item = char>>| letters.next().filter(|_| letters.next().is_none());
    let lower = |letter: char| one(Box::new(letter.to_lowercase())).unwrap_or(letter);
    let upper = |letter: char| one(Box::new(letter.to_uppercase())).unwrap_or(letter);
    let mut cases = vec![letter];
    for case in [lower(letter), upper(letter), upper(lower(letter)), lower(upper(letter))] {
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

/// A regular expression that finds it, in the syntax that PostgreSQL and PCRE share: classes of letters, and a backslash
/// before what has a meaning.
#[cfg(any(feature = "mongodb", feature = "postgres"))]
pub(in super::super) fn regex(needle: &Needle) -> String {
    let mut pattern = String::new();
    for cases in needle.letters() {
        if let [letter] = cases[..] {
            if letter.is_ascii_punctuation() {
                pattern.push('\\');
            }
            pattern.push(letter);
        } else {
            pattern.push('[');
            pattern.extend(cases);
            pattern.push(']');
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_both_cases_where_letters_are_pairs() {
        for (needle, text, found) in [
            ("rust", "In RUST we trust", true),
            ("RuSt", "rusty", true),
            ("", "", true),
            ("é", "CAFÉ", true),
            ("ДА", "да", true),
            ("ς", "ΛΌΓΟΣ", true),
            ("k", "\u{212a}", false),
            ("\u{212a}", "k", true),
            ("ß", "SS", false),
            ("ab", "a b", false),
            ("aab", "AAAB", true),
        ] {
            assert_eq!(Needle::ignoring_case(needle).is_in(text), found, "{needle} in {text}");
        }
        assert!(!Needle::exact("rust").is_in("In RUST we go"));
        assert!(Needle::exact("we t").is_in("In RUST we trust"));
    }

    #[cfg(any(feature = "mongodb", feature = "postgres"))]
    #[test]
    fn a_pattern_is_made_of_classes_and_escaped_letters() {
        assert_eq!(regex(&Needle::ignoring_case("a.1 é")), r"[aA]\.1 [éÉ]");
        assert_eq!(regex(&Needle::exact("a[b]-_")), r"a\[b\]\-\_");
    }
}
