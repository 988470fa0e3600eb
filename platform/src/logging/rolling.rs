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

pub(super) use tracing_appender::rolling::Rotation as Period;

pub(super) struct RollingFile {
    folder: PathBuf,
    builder: Builder,
}

impl RollingFile {
    /// A file is called `name`, a dot and its hour or day. `max_files` older files are kept.
    pub(super) fn new(folder: &Path, name: &str, period: Period, max_files: usize) -> Self {
        // The crate counts the current file too: with 1 it would remove the current file each time it opens it.
        let builder = RollingFileAppender::builder()
            .rotation(period)
            .filename_prefix(name)
            .max_log_files(max_files + 1);
        Self { folder: folder.to_owned(), builder }
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // Done first, because the crate prints to standard error when it cannot read the folder.
        fs::create_dir_all(&self.folder)?;
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
    use crate::logging::level::Level;

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
