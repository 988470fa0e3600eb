//! The time of a record: UTC, RFC 3339, with milliseconds.
//!
//! `jiff` writes the date and the time to the second, once a second. The milliseconds are appended by hand, because
//! every request needs them.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// A time to the second: `2026-11-21T05:53:00`.
type Seconds = [u8; 19];

const EPOCH: Seconds = *b"1970-01-01T00:00:00";

thread_local! {
    /// The last second and its text: a busy server writes many lines in one second.
    static LAST: Cell<(u64, Seconds)> = const { Cell::new((0, EPOCH)) };
}

/// Appends the time; a time before 1970 is written as the first second of 1970.
pub(super) fn write(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (second, mut text) = LAST.get();
    if second != since.as_secs() {
        text = to_the_second(since.as_secs());
        LAST.set((since.as_secs(), text));
    }
    let millis = u64::from(since.subsec_millis());
    out.extend_from_slice(&text);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

/// jiff writes whole seconds as `2026-11-21T05:53:00Z`. What is after its last second, in 9999, becomes that one.
fn to_the_second(since_epoch: u64) -> Seconds {
    let second = i64::try_from(since_epoch).ok().and_then(|second| Timestamp::from_second(second).ok());
    let text = second.unwrap_or(Timestamp::MAX).to_string();
    text.as_bytes().first_chunk().copied().unwrap_or(EPOCH)
}

/// The last decimal digit of a number, as ASCII.
pub(super) fn digit(number: u64) -> u8 {
    b'0' + (number % 10).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(millis: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_time_is_written_in_full_with_its_milliseconds() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_164_800_007, "2024-02-29T00:00:00.007Z"),
            // The same second, whose text is kept, and then an earlier one.
            (1_709_164_800_999, "2024-02-29T00:00:00.999Z"),
            (1_709_164_799_000, "2024-02-28T23:59:59.000Z"),
            (1_798_761_599_120, "2026-12-31T23:59:59.120Z"),
            (1_798_761_600_000, "2027-01-01T00:00:00.000Z"),
            // 2100 is no leap year.
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (253_402_207_199_999, "9999-12-30T21:59:59.999Z"),
        ] {
            assert_eq!(written(millis), expected);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_gives_the_first_or_the_last_second() {
        let mut out = Vec::new();
        write(&mut out, SystemTime::UNIX_EPOCH - Duration::from_hours(1));
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
        assert_eq!(written(u64::from(u32::MAX) * 1_000_000), "9999-12-30T22:00:00.000Z");
    }
}
