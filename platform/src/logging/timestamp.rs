//! The time of a record: UTC, RFC 3339, milliseconds. Written by hand, as it is needed for every request.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

/// A time to the second: `2026-11-21T05:53:00`.
type Seconds = [u8; 19];

thread_local! {
    /// The last second and its text: a server that is asked often writes many lines in each.
    static LAST: Cell<(u64, Seconds)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Appends the time; what is before 1970 becomes 1970.
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

fn to_the_second(since: u64) -> Seconds {
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00";
    let pairs = [
        (0, year / 100),
        (2, year),
        (5, month),
        (8, day),
        (11, second / 3_600),
        (14, second / 60 % 60),
        (17, second % 60),
    ];
    for (at, number) in pairs {
        text[at..at + 2].copy_from_slice(&[digit(number / 10), digit(number)]);
    }
    text
}

/// Days since 1970-01-01 as year, month, day: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The last digit of a number.
pub(super) fn digit(number: u64) -> u8 {
    b'0' + (number % 10).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(millis: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_epoch_and_a_leap_day_are_written_in_full() {
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(1_709_164_800_000 - 1), "2024-02-28T23:59:59.999Z");
        assert_eq!(written(1_709_164_800_007), "2024-02-29T00:00:00.007Z");
        // Of the same second, whose text is kept, and of an earlier one.
        assert_eq!(written(1_709_164_800_999), "2024-02-29T00:00:00.999Z");
        assert_eq!(written(1_709_164_799_000), "2024-02-28T23:59:59.000Z");
    }

    proptest! {
        /// Up to the year 9999, where four digits end.
        #[test]
        fn every_time_is_the_one_that_jiff_writes(millis in 0_i64..253_402_207_200_000) {
            let expected = jiff::Timestamp::from_millisecond(millis).unwrap();
            prop_assert_eq!(written(millis.unsigned_abs()), format!("{expected:.3}"));
        }
    }
}
