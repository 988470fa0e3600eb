//! When a job runs. It reads no clock.

use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The times at which a job runs.
#[derive(Clone, Debug)]
pub struct Schedule(Result<Kind, String>);

#[derive(Clone, Debug)]
enum Kind {
    Every(i128),
    After(SignedDuration),
    Daily(Time, TimeZone),
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
/// clocks skip that time, it is as much later; where they show it twice, it is the first one.
pub fn daily_at(time: &str, zone: &str) -> Schedule {
    let kind = || {
        let parsed = time.parse().map_err(|_| format!("'{time}' is no time of the day such as 02:30"))?;
        Ok(Kind::Daily(parsed, time_zone(zone)?))
    };
    Schedule(kind())
}

/// At the times of a cron expression such as `*/15 8-18 * * MON-FRI`, in a time zone. A sixth field, in front, is seconds.
/// What is skipped or shown twice when clocks change is as for [`daily_at`], where the expression names a time; with
/// `*` or `*/` in the hours or minutes it follows the clock.
pub fn cron(expression: &str, zone: &str) -> Schedule {
    let kind = || {
        let cron = Cron::from_str(expression)
            .map_err(|error| format!("'{expression}' is no cron expression: {error}"))?;
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
            Kind::Daily(time, zone) => {
                let mut date = after.to_zoned(zone.clone()).date();
                loop {
                    let next = date.to_datetime(*time).to_zoned(zone.clone()).ok()?.timestamp();
                    if next > after {
                        return Some(next);
                    }
                    date = date.tomorrow().ok()?;
                }
            }
            Kind::Cron(cron, zone) => {
                let next = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
        }
    }
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
            // 03:00 or 03:30 of summer time.
            assert!(["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"].contains(&skipped), "{skipped}");
            let autumn = times(&schedule, "2026-10-24T12:00:00Z", 2);
            assert_eq!(autumn, "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z");
        }
        let hourly = cron("0 * * * *", "Europe/Berlin");
        assert_eq!(
            times(&hourly, "2026-10-24T23:30:00Z", 4),
            "2026-10-25T00:00:00Z 2026-10-25T01:00:00Z 2026-10-25T02:00:00Z 2026-10-25T03:00:00Z"
        );
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
            (daily_at("02:30", "Berlin"), "'Berlin' is no time zone such as Europe/Berlin or UTC"),
            (cron("* * *", "UTC"), "'* * *' is no cron expression"),
        ] {
            let error = schedule.check().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
