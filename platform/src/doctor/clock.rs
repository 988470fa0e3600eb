//! The clock: whether it shows a time that can be, whether it jumps, and whether others have the same time.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::{Finding, Level, folders};

const SUBJECT: &str = "clock";
const REMEDY: &str =
    "switch on the time synchronisation of the machine (timedatectl set-ntp true, or chrony)";

/// Before this nobody has run this program: 2026-01-01 UTC, in seconds since 1970.
const EARLIEST: u64 = 1_767_225_600;
/// And after this hardly anybody will: 2100-01-01 UTC.
const LATEST: u64 = 4_102_444_800;

/// By how much the clock may move besides the time that passes, while the doctor works.
const JUMP: Duration = Duration::from_millis(500);

/// By how much the clock of a file system or of a database may differ. Leases that are compared between machines bear
/// less than a second well; the file systems of some networks round to two.
const DIFFERENCE: Duration = Duration::from_secs(3);

/// The clock since the doctor began.
pub(super) struct Watch {
    time: SystemTime,
    monotonic: Instant,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self { time: SystemTime::now(), monotonic: Instant::now() }
    }

    /// What the clock has done since then, and what others say. The folders are those that the server writes to.
    pub(super) fn examine(&self, folders: &[PathBuf], store_time: Option<SystemTime>) -> Finding {
        let now = SystemTime::now();
        let year = judge_year(now);
        if year.level == Level::Failed {
            return year;
        }
        let jumped = difference(now, self.time + self.monotonic.elapsed());
        if jumped > JUMP {
            return Finding::failed(SUBJECT, format!("it has jumped by {jumped:.1?} just now"), REMEDY);
        }
        if let Some(time) = store_time {
            // It was asked between the start and now.
            let asked = self.monotonic.elapsed();
            let differs = difference(now, time).saturating_sub(asked);
            if differs > DIFFERENCE {
                return Finding::failed(
                    SUBJECT,
                    format!("that of the store differs by {differs:.1?}"),
                    REMEDY,
                );
            }
        }
        folders.iter().find_map(|folder| judge_files(folder, SystemTime::now())).unwrap_or(year)
    }
}

fn difference(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

fn judge_year(now: SystemTime) -> Finding {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let shown = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let shown = shown.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string());
    if (EARLIEST..LATEST).contains(&seconds) {
        return Finding::ok(SUBJECT, format!("it is {shown}"));
    }
    Finding::failed(SUBJECT, format!("it says {shown}, which cannot be"), REMEDY)
}

/// A finding if the file system of this folder has another time. One that cannot be written is named by others.
fn judge_files(folder: &std::path::Path, now: SystemTime) -> Option<Finding> {
    let written = folders::with_file(folder, |file| {
        std::io::Write::write_all(file, b"doctor")?;
        file.metadata()?.modified()
    });
    let differs = difference(now, written.ok()?);
    (differs > DIFFERENCE).then(|| {
        let text = format!("that of the file system of {} differs by {differs:.1?}", folder.display());
        Finding::failed(SUBJECT, text, REMEDY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_that_cannot_be_is_told() {
        let at = |seconds| judge_year(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (seconds, fails) in [(0, true), (EARLIEST - 1, true), (EARLIEST, false), (LATEST, true)] {
            assert_eq!(at(seconds).has_failed(), fails, "{:?}", at(seconds));
        }
        assert!(at(0).text.contains("1970-01-01"), "{:?}", at(0));
    }

    #[test]
    fn a_jump_and_the_clock_of_a_store_and_of_files_are_told() {
        let hour = Duration::from_hours(1);
        let watch = Watch::start();
        assert_eq!(watch.examine(&[], None).level, Level::Ok);
        assert_eq!(watch.examine(&[], Some(SystemTime::now())).level, Level::Ok);
        let of_store = watch.examine(&[], Some(SystemTime::now() - hour));
        assert!(of_store.has_failed() && of_store.text.contains("of the store"), "{of_store:?}");
        for time in [SystemTime::now() - hour, SystemTime::now() + hour] {
            let jumped = Watch { time, monotonic: Instant::now() }.examine(&[], None);
            assert!(jumped.has_failed() && jumped.text.contains("jumped"), "{jumped:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let of_files = judge_files(folder.path(), SystemTime::now() + hour).unwrap();
        assert!(of_files.text.contains("file system"), "{of_files:?}");
        assert!(judge_files(folder.path(), SystemTime::now()).is_none());
    }
}
