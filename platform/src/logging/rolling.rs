//! One log file for each hour or day: `tracing-appender` names the files, creates them and removes the oldest.
//!
//! The file is opened for each batch, so a deleted file is created again. Each batch is appended with one system call,
//! which keeps the lines of several processes complete on a local file system.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing_appender::rolling::{Builder, RollingFileAppender};

use super::batch::Batch;
use super::sink::{Failure, Output};
use crate::new_file;

pub(super) use tracing_appender::rolling::Rotation as Period;

pub(super) struct RollingFile {
    folder: PathBuf,
    name: String,
    period: Period,
    builder: Builder,
}

impl RollingFile {
    /// A file is called `name`, a dot and its hour or day. `max_files` older files are kept.
    pub(super) fn new(folder: &Path, name: &str, period: Period, max_files: usize) -> Self {
        // The crate counts the current file too: with 1 it would remove the current file each time it opens it.
        let builder = RollingFileAppender::builder()
            .rotation(period.clone())
            .filename_prefix(name)
            .max_log_files(max_files + 1);
        Self { folder: folder.to_owned(), name: name.to_owned(), period, builder }
    }

    /// The name that the crate gives the file at this time.
    fn file_name(&self) -> String {
        let format = if self.period == Period::HOURLY { "%Y-%m-%d-%H" } else { "%Y-%m-%d" };
        format!("{}.{}", self.name, jiff::Timestamp::now().strftime(format))
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // Done first, because the crate prints to standard error when it cannot read the folder.
        fs::create_dir_all(&self.folder)?;
        // And the file, which the crate would let everybody read.
        new_file::options().append(true).create(true).open(self.folder.join(self.file_name()))?;
        self.builder.build(&self.folder).map_err(io::Error::other)?.write_all(bytes)
    }
}

impl Output for RollingFile {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.append(batch.bytes()).map_err(|error| Failure { lost: batch.len(), error })
    }

    fn destination(&self) -> String {
        self.folder.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    use crate::logging::level::Level;

    /// A name that is not the crate's would leave a second file, which everybody may read.
    #[test]
    fn of_each_period_there_is_one_file_and_it_is_not_for_everybody() {
        for period in [Period::DAILY, Period::HOURLY] {
            let folder = tempfile::tempdir().unwrap();
            let mut file = RollingFile::new(folder.path(), "server.log", period, 9);
            let mut batch = Batch::default();
            batch.push(Level::Info, b"one\n");
            assert!(file.write(&batch).is_ok());
            let written = |path: PathBuf| fs::read_to_string(path).unwrap() == "one\n";
            let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
            // At the turn of an hour there are two, the older one empty.
            for file in files.iter().filter(|file| files.len() == 1 || written(file.path())) {
                assert!(written(file.path()));
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o137, 0, "{file:?}");
            }
            assert!(files.len() == 1 || files.len() == 2 && files.iter().any(|file| !written(file.path())));
        }
    }

    #[test]
    fn a_file_is_named_by_its_day_created_again_when_deleted_and_only_max_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        for day in 1..=3 {
            fs::write(logs.join(format!("server.log.2020-01-0{day}")), "old\n").unwrap();
        }
        let mut file = RollingFile::new(&logs, "server.log", Period::DAILY, 1);
        let mut batch = Batch::default();
        batch.push(Level::Info, b"one\n");
        for _ in 0..3 {
            assert!(file.write(&batch).is_ok());
        }
        let files: Vec<_> = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().path()).collect();
        let today = files.iter().find(|path| !path.to_string_lossy().contains("2020")).unwrap();
        assert_eq!(fs::read_to_string(today).unwrap(), "one\none\none\n");
        assert!(files.len() <= 2, "{files:?}");

        fs::remove_dir_all(&logs).unwrap();
        assert!(file.write(&batch).is_ok());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 1);
    }
}
