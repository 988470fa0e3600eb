//! A log file that is rotated by size and that several processes can write at the same time.
//!
//! Each batch is written under an advisory lock on `<file>.lock`. Under the lock, the path is looked up again: another
//! process may have rotated the file, or somebody may have deleted it. A line is never split: not by another writer,
//! not by a rotation, and not by a disk that is full in the middle of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::batch::Batch;
use super::sink::{Failure, Output};
use crate::new_file;

pub(super) struct SizedFile {
    path: PathBuf,
    lock_path: PathBuf,
    max_size: u64,
    max_files: u64,
    lock: Option<File>,
    file: Option<File>,
}

impl SizedFile {
    /// Opens nothing yet. The first batch opens the file, and its failure is reported like any later one.
    pub(super) fn new(path: &Path, max_size: u64, max_files: u64) -> Self {
        Self {
            path: path.to_owned(),
            lock_path: with_suffix(path, "lock"),
            max_size,
            max_files,
            lock: None,
            file: None,
        }
    }

    /// Writes as many lines as it can and removes them from `rest`.
    fn append(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let lock = self.lock()?;
        while !rest.is_empty() {
            let (mut file, size) = self.current()?;
            let fits = whole_lines(rest, self.max_size.saturating_sub(size));
            let length = match fits {
                0 if size > 0 => {
                    self.rotate()?;
                    continue;
                }
                // A line that is longer than `max_size` gets a file of its own.
                0 => first_line(rest),
                fits => fits,
            };
            if let Err(error) = file.write_all(&rest[..length]) {
                // Removes half a line, so that the next one starts at its beginning. Nobody else has written after
                // `size`: this process holds the lock.
                let _ = file.set_len(size);
                return Err(error);
            }
            *rest = &rest[length..];
            self.file = Some(file);
        }
        lock.unlock()?;
        self.lock = Some(lock);
        Ok(())
    }

    /// Takes the lock; it is held until the file is unlocked or dropped. A lock on a file that is no longer at its path
    /// is worthless: when somebody has deleted the file, another process locks a new one.
    fn lock(&mut self) -> io::Result<File> {
        loop {
            let lock = match self.lock.take() {
                Some(lock) => lock,
                None => open(&self.lock_path)?,
            };
            lock.lock()?;
            if is_at(&lock, &self.lock_path)? {
                return Ok(lock);
            }
        }
    }

    /// The file that is at the path now, and its size.
    fn current(&mut self) -> io::Result<(File, u64)> {
        let file = match self.file.take() {
            Some(file) if is_at(&file, &self.path)? => file,
            _ => open(&self.path)?,
        };
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Renames `.1` to `.2` and so on, overwriting the oldest file, and then the file itself to `.1`.
    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.max_files).rev() {
            let older = with_suffix(&self.path, &(number + 1).to_string());
            match fs::rename(with_suffix(&self.path, &number.to_string()), older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, with_suffix(&self.path, "1"))
    }
}

impl Output for SizedFile {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let mut rest = batch.bytes();
        self.append(&mut rest).map_err(|error| {
            // Dropping the files releases the lock; the next batch opens them again.
            (self.lock, self.file) = (None, None);
            Failure { lost: batch.unwritten(batch.bytes().len() - rest.len()), error }
        })
    }

    fn destination(&self) -> String {
        self.path.display().to_string()
    }
}

/// `server.log` and `1` give `server.log.1`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens the file for appending; creates it and its folder when they are missing.
fn open(path: &Path) -> io::Result<File> {
    let options = || new_file::options().append(true).create(true).open(path);
    match (options(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            options()
        }
        (result, _) => result,
    }
}

/// True when this open file is at `path`. Its inode number is not given to another file while it is open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The length of the first line.
pub(super) fn first_line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// The length of the complete lines within the first `limit` bytes.
pub(super) fn whole_lines(bytes: &[u8], limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match bytes.get(..limit) {
        None => bytes.len(),
        Some(start) => start.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::level::Level;
    use std::collections::BTreeSet;
    use std::process::{Command, Stdio};
    use tempfile::TempDir;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.push(Level::Info, format!("{line}\n").as_bytes());
        }
        batch
    }

    fn read(folder: &TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join(name)).unwrap_or_default()
    }

    #[test]
    fn a_file_never_exceeds_its_size_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        // Two lines of five bytes fit.
        let mut file = SizedFile::new(&folder.path().join("a.log"), 12, 2);
        assert!(file.write(&batch(&["aaaa", "bbbb", "cccc"])).is_ok());
        assert!(file.write(&batch(&["dddd"])).is_ok());
        assert_eq!(
            (read(&folder, "a.log"), read(&folder, "a.log.1")),
            ("cccc\ndddd\n".into(), "aaaa\nbbbb\n".into())
        );
        assert!(file.write(&batch(&["eeee", "a line that is longer than a file may be", "ffff"])).is_ok());
        assert_eq!(read(&folder, "a.log"), "ffff\n");
        assert_eq!(read(&folder, "a.log.1"), "a line that is longer than a file may be\n");
        assert_eq!(read(&folder, "a.log.2"), "eeee\n");
        assert!(!folder.path().join("a.log.3").exists());
    }

    #[test]
    fn a_deleted_file_and_a_deleted_folder_are_created_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("deep/logs");
        let mut file = SizedFile::new(&logs.join("a.log"), 1_000, 2);
        for gone in [&logs.join("a.log"), &logs.join("a.log.lock"), &logs, &folder.path().join("deep")] {
            assert!(file.write(&batch(&["before"])).is_ok());
            let removed = if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) };
            removed.unwrap();
            assert!(file.write(&batch(&["after"])).is_ok());
            assert!(fs::read_to_string(logs.join("a.log")).unwrap().ends_with("after\n"));
        }
    }

    #[test]
    fn a_full_disk_loses_complete_records_and_their_number_is_returned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut file = SizedFile::new(&path, 1_000, 2);
        let failure = file.write(&batch(&["one", "two"])).unwrap_err();
        assert_eq!((failure.lost, failure.error.kind()), (2, io::ErrorKind::StorageFull));
        fs::remove_file(&path).unwrap();
        assert!(file.write(&batch(&["three"])).is_ok());
        assert_eq!(read(&folder, "a.log"), "three\n");
    }

    /// The design that was rejected: each writer keeps the file and the size that it saw when it opened the file.
    struct Naive {
        path: PathBuf,
        file: File,
        size: usize,
    }

    impl Naive {
        fn new(path: &Path) -> Self {
            let file = open(path).unwrap();
            Self {
                path: path.to_owned(),
                size: usize::try_from(file.metadata().unwrap().len()).unwrap(),
                file,
            }
        }
    }

    impl Output for Naive {
        fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
            if self.size + batch.bytes().len() > 10 {
                fs::rename(&self.path, with_suffix(&self.path, "1")).unwrap();
                *self = Self::new(&self.path);
            }
            self.file.write_all(batch.bytes()).unwrap();
            self.size += batch.bytes().len();
            Ok(())
        }

        fn destination(&self) -> String {
            self.path.display().to_string()
        }
    }

    /// Two writers open a full file; the first one rotates it, then the second one writes. No line may be lost.
    fn lines_left(open: impl Fn(&Path) -> Box<dyn Output>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        fs::write(&path, "one1\ntwo2\n").unwrap();
        let (mut first, mut second) = (open(&path), open(&path));
        assert!(first.write(&batch(&["thre"])).is_ok());
        assert!(second.write(&batch(&["four"])).is_ok());
        read(&folder, "a.log.1") + &read(&folder, "a.log")
    }

    #[test]
    fn a_rotation_by_another_writer_is_noticed() {
        assert_eq!(lines_left(|path| Box::new(SizedFile::new(path, 10, 1))), "one1\ntwo2\nthre\nfour\n");
        // The control: without a second look under the lock, the second rotation overwrites the file of the first one.
        assert_eq!(lines_left(|path| Box::new(Naive::new(path))), "thre\nfour\n");
    }

    const FOLDER: &str = "TEST_LOG_FOLDER";
    const WRITERS: usize = 4;
    const LINES: usize = 3_000;

    #[test]
    fn several_processes_lose_and_split_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "logging::file::tests::one_process_that_writes"])
                    .env(FOLDER, folder.path())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut writer in writers {
            assert!(writer.wait().unwrap().success());
        }
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.len() <= 4_096, "{} has {} bytes", path.display(), text.len());
            for line in text.lines() {
                assert!(line.starts_with("pid=") && line.ends_with(" end"), "split: {line:?}");
                assert!(seen.insert(line.to_owned()), "twice: {line:?}");
            }
        }
        assert_eq!(seen.len(), WRITERS * LINES);
    }

    #[test]
    #[ignore = "one of the processes of the test above, which starts it"]
    fn one_process_that_writes() {
        let folder = std::env::var_os(FOLDER).map(PathBuf::from).unwrap();
        let mut file = SizedFile::new(&folder.join("a.log"), 4_096, 200);
        let lines: Vec<_> = (0..LINES).map(|n| format!("pid={} n={n} end", std::process::id())).collect();
        for some in lines.chunks(7) {
            let some: Vec<_> = some.iter().map(String::as_str).collect();
            assert!(file.write(&batch(&some)).is_ok());
        }
    }
}
