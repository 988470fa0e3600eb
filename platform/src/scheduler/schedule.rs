//! When a job runs. It reads no clock.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::civil::{DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// The times at which a job runs.
#[derive(Clone, Debug)]
pub struct Schedule(Result<Kind, String>);

#[derive(Clone, Debug)]
enum Kind {
    Every(i128),
    After(SignedDuration),
    Cron(Box<Cron>, TimeZone),
}

/// Every so often, at the multiples of the period since 1970: `every(1 h)` is at each full hour UTC, in every process. So
/// it does not drift, and does not begin anew with the server. A period is at least a millisecond.
pub fn every(period: Duration) -> Schedule {
    let nanoseconds = i128::try_from(period.as_nanos()).unwrap_or(i128::MAX);
    Schedule(if nanoseconds < 1_000_000 {
        Err(format!("a period of {period:?} is shorter than a millisecond"))
    } else {
        Ok(Kind::Every(nanoseconds))
    })
}

/// Once, so long after the start of the process; with no delay, at the start. With several processes it is once in each, and
/// again after a reload, so it does not go with [`single_process`](super::Job::single_process).
pub fn after(delay: Duration) -> Schedule {
    // A run is due after the start, not at it.
    let delay = delay.max(Duration::from_nanos(1));
    Schedule(SignedDuration::try_from(delay).map(Kind::After).map_err(|error| error.to_string()))
}

/// Each day at a time such as `02:30` or `02:30:15`, in a time zone of IANA such as `Europe/Berlin` or `UTC`. Where the
/// clocks skip that time, it is when they have done so; where they show it twice, it is the first one.
pub fn daily_at(time: &str, zone: &str) -> Schedule {
    // A time with a date could be parsed too.
    let is_time = time.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    match time.parse::<Time>() {
        Ok(at) if is_time => cron(&format!("{} {} {} * * *", at.second(), at.minute(), at.hour()), zone),
        _ => Schedule(Err(format!("'{time}' is no time of the day such as 02:30"))),
    }
}

/// At the times of a cron expression such as `*/15 8-18 * * MON-FRI`, in a time zone. A sixth field, in front, is seconds.
/// What is skipped or shown twice when clocks change is as for [`daily_at`]: all that is skipped is one run. Where each of the 24
/// hours is meant, nothing is made up for and each hour that is shown counts: it is once in every hour that passes.
pub fn cron(expression: &str, zone: &str) -> Schedule {
    let kind = || {
        let cron = CronParser::builder()
            .year(Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|error| format!("'{expression}' is no cron expression: {error}"))?;
        let is_never =
            cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), true).is_err();
        if is_never {
            return Err(format!("'{expression}' names a day that no year has"));
        }
        Ok(Kind::Cron(Box::new(cron), time_zone(zone)?))
    };
    Schedule(kind())
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("'{name}' is no time zone such as Europe/Berlin or UTC"))
}

impl Schedule {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), &str> {
        self.0.as_ref().map(drop).map_err(String::as_str)
    }

    /// Whether it is a single time, which counts from the start of the process.
    pub(super) fn is_once(&self) -> bool {
        matches!(self.0, Ok(Kind::After(_)))
    }

    /// The first time after this one, of a server that was started at `start`.
    pub fn next(&self, start: Timestamp, after: Timestamp) -> Option<Timestamp> {
        match self.0.as_ref().ok()? {
            Kind::Every(period) => {
                let next = after.as_nanosecond().div_euclid(*period).checked_add(1)?.checked_mul(*period)?;
                Timestamp::from_nanosecond(next).ok()
            }
            Kind::After(delay) => start.checked_add(*delay).ok().filter(|time| *time > after),
            Kind::Cron(cron, zone) if cron.pattern.hours.values().len() == 24 => {
                let next = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
            Kind::Cron(cron, zone) => {
                // UTC changes no clocks: these are the times that a clock on the wall shows.
                let mut shown = after.to_zoned(zone.clone()).datetime().to_zoned(TimeZone::UTC).ok()?;
                loop {
                    shown = cron.find_next_occurrence(&shown, false).ok()?;
                    let next = first(shown.datetime(), zone)?;
                    if next > after {
                        return Some(next);
                    }
                }
            }
        }
    }
}

/// When the clocks show this time first; where they skip it, when they have done so.
fn first(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    if let AmbiguousOffset::Gap { .. } = ambiguous.offset() {
        let before = ambiguous.earlier().ok()?;
        return zone.following(before).next().map(|change| change.timestamp());
    }
    ambiguous.compatible().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next times after this one, on one line.
    fn times(schedule: &Schedule, after: &str, count: usize) -> String {
        let start = time(after);
        let mut times = Vec::new();
        let mut now = start;
        while let Some(next) = schedule.next(start, now).filter(|_| times.len() < count) {
            times.push(next.to_string());
            now = next;
        }
        times.join(" ")
    }

    #[test]
    fn a_period_has_the_same_times_in_every_process() {
        let every = every(Duration::from_mins(1));
        assert_eq!(times(&every, "2026-03-01T10:00:30.5Z", 2), "2026-03-01T10:01:00Z 2026-03-01T10:02:00Z");
        assert_eq!(times(&every, "2026-03-01T10:01:00Z", 1), "2026-03-01T10:02:00Z");
        assert_eq!(times(&every, "1969-12-31T23:59:30Z", 1), "1970-01-01T00:00:00Z");
        assert!(super::every(Duration::ZERO).check().unwrap_err().contains("shorter than a millisecond"));
    }

    #[test]
    fn a_delay_is_once() {
        assert_eq!(times(&after(Duration::from_secs(5)), "2026-03-01T10:00:00Z", 3), "2026-03-01T10:00:05Z");
        assert_ne!(times(&after(Duration::ZERO), "2026-03-01T10:00:00Z", 3), "");
    }

    #[test]
    fn a_time_of_the_day_is_once_a_day_also_when_the_clocks_change() {
        // On 2026-03-29, Berlin skips 02:00 to 03:00; on 2026-10-25, it shows them twice.
        for schedule in [daily_at("02:30", "Europe/Berlin"), cron("30 2 * * *", "Europe/Berlin")] {
            let spring = times(&schedule, "2026-03-27T12:00:00Z", 3);
            let [before, skipped, next] = spring.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{spring}")
            };
            assert_eq!((before, next), ("2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"));
            assert_eq!(skipped, "2026-03-29T01:00:00Z", "03:00 of summer time");
            let autumn = times(&schedule, "2026-10-24T12:00:00Z", 2);
            assert_eq!(autumn, "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z");
        }
        for hourly in ["0 * * * *", "0 0-23 * * *", "0 */1 * * *"].map(|hourly| cron(hourly, "Europe/Berlin"))
        {
            assert_eq!(
                times(&hourly, "2026-10-24T23:30:00Z", 4),
                "2026-10-25T00:00:00Z 2026-10-25T01:00:00Z 2026-10-25T02:00:00Z 2026-10-25T03:00:00Z"
            );
        }
    }

    #[test]
    fn lists_ranges_and_steps_have_the_same_rule_when_the_clocks_change() {
        for (expression, spring, autumn) in [
            ("0 2,14 * * *", "01:00 12:00", "00:00 13:00"),
            ("30 2,14 * * *", "01:00 12:30", "00:30 13:30"),
            ("0 2-3 * * *", "01:00", "00:00 02:00"),
            ("0,30 2 * * *", "01:00", "00:00 00:30"),
            ("*/30 2 * * *", "01:00", "00:00 00:30"),
            ("*/40 0 1-23/13 * * *", "00:00 00:00:40 12:00 12:00:40", "23:00 23:00:40 13:00 13:00:40"),
            // The control: what is not in the hour that changes.
            ("0 4,14 * * *", "02:00 12:00", "03:00 13:00"),
        ] {
            let schedule = cron(expression, "Europe/Berlin");
            let of = |after: &str, expected: &str| {
                let times = times(&schedule, after, expected.split(' ').count());
                let clock = |time: &str| time[11..19].trim_end_matches('Z').to_owned();
                let times: Vec<_> = times.split(' ').map(clock).collect();
                let expected: Vec<_> =
                    expected.split(' ').map(|time| format!("{time}:00")[..8].to_owned()).collect();
                assert_eq!(times, expected, "{expression} after {after}");
            };
            // From midnight on, without it.
            of("2026-03-28T23:00:00Z", spring);
            of("2026-10-24T22:00:00Z", autumn);
        }
        // Between 02:00 and 03:00 that are shown the second time.
        let schedule = cron("30 2,14 * * *", "Europe/Berlin");
        assert_eq!(times(&schedule, "2026-10-25T01:10:00Z", 1), "2026-10-25T13:30:00Z");
    }

    #[test]
    fn a_cron_expression_may_have_seconds() {
        assert_eq!(
            times(&cron("*/30 59 23 31 12 *", "UTC"), "2026-03-01T00:00:00Z", 2),
            "2026-12-31T23:59:00Z 2026-12-31T23:59:30Z"
        );
    }

    #[test]
    fn what_is_no_schedule_says_what_it_should_be() {
        for (schedule, why) in [
            (daily_at("25:00", "UTC"), "'25:00' is no time of the day such as 02:30"),
            (daily_at("2026-01-01T02:30", "UTC"), "is no time of the day such as 02:30"),
            (daily_at("02:30:00.5", "UTC"), "is no time of the day such as 02:30"),
            (cron("0 0 30 2 *", "UTC"), "'0 0 30 2 *' names a day that no year has"),
            (cron("0 0 0 1 1 * 2020", "UTC"), "is no cron expression"),
            (daily_at("02:30", "Berlin"), "'Berlin' is no time zone such as Europe/Berlin or UTC"),
            (cron("* * *", "UTC"), "'* * *' is no cron expression"),
        ] {
            let error = schedule.check().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
