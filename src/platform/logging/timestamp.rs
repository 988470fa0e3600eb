//! The time of a record: UTC, RFC 3339, milliseconds. Written by hand, as it is needed for every request.

use std::time::{Duration, SystemTime};

/// Length of `2026-11-21T05:53:00.123Z`.
const LENGTH: usize = 24;

/// Appends the time; what is before 1970 becomes 1970.
pub(super) fn write(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], second / 3_600);
    digits(&mut text[14..16], second / 60 % 60);
    digits(&mut text[17..19], second % 60);
    digits(&mut text[20..LENGTH - 1], u64::from(since.subsec_millis()));
    out.extend_from_slice(&text);
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

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
    }
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
