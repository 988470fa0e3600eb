//! Locks as files: each is a lock of the operating system, which ends with the process that holds it, however that ends.
//!
//! A lock is held by whoever has locked the file that is at its path. The holder alone deletes that file, before it
//! unlocks it; whoever then locks the deleted file sees that the path names another one, or none, and tries again. So the
//! folder has a file for each lock that is held, and no more: the names of locks may come from callers.
//!
//! For the same reason the token is not in that file. One counter serves all locks of the folder, and is on the disk
//! before its number is handed out: a token is higher than all before it, of any name.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::lease::{Hold, Lease};
use super::queue::{Queues, Turn};
use super::settings::Settings;
use super::{Engine, Wait};
use crate::error::{Error, Result};
use crate::{file_name, new_file, regular_file};

/// How often a lock that another process holds is tried. Waiting costs a thousandth of a core, and no thread: the system
/// has no call that waits for a lock and can be given up.
const POLL: Duration = Duration::from_millis(20);

/// The extension of the file of a lock.
const SUFFIX: &str = ".lock";

/// The file with the last token. No lock has this name, which begins with a dot.
const COUNTER: &str = ".token";

/// The extension of the file with the mark of a lock. Only who holds the lock reads or writes it.
const MARK: &str = ".mark";

/// How often the counter is tried. Another process holds it for one fsync.
const COUNTER_POLL: Duration = Duration::from_millis(1);

/// How long ago a file must have been locked last to be deleted at the start of another process.
const SWEEP_AGE: Duration = Duration::from_mins(1);

/// The locks in one folder.
pub(super) struct FileLocks {
    folder: Arc<Folder>,
    /// In this process, the waiters of one name come one after the other; only the first one tries the file.
    queues: Queues,
}

impl FileLocks {
    pub(super) fn new(settings: &Settings) -> Self {
        let timeout = settings.timeout.get();
        let folder = Folder { path: settings.dir.clone(), timeout, is_swept: AtomicBool::new(false) };
        Self { folder: Arc::new(folder), queues: Queues::default() }
    }

    /// Runs what blocks in a thread of its own, for as long as the caller waits. What it returns afterwards is dropped,
    /// which unlocks it.
    async fn within_time<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        within_time(&self.folder, call).await
    }
}

async fn within_time<T: Send + 'static>(
    folder: &Arc<Folder>,
    call: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let called = Arc::clone(folder);
    let call = spawn_blocking(move || call(&called));
    let outcome = match timeout(folder.timeout, call).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
        Ok(Err(panicked)) => return Err(Error::internal(panicked)),
        Err(_) => Err(format!("no response within {:?}", folder.timeout)),
    };
    outcome.map_err(|cause| Error::unavailable(format!("lock.dir {}: {cause}", folder.path.display())))
}

#[async_trait]
impl Engine for FileLocks {
    async fn acquire(&self, name: &str, wait: Wait) -> Result<Option<Lease>> {
        let deadline = match wait {
            Wait::No => Some(Instant::now()),
            Wait::UpTo(time) => Instant::now().checked_add(time),
            Wait::Forever => None,
        };
        let Some(mut turn) = self.queues.wait(name, wait, deadline).await else { return Ok(None) };
        // A process with a long queue must not keep the lock to itself.
        if wait != Wait::No && turn.is_for_others() {
            sleep(POLL * 2).await;
        }
        loop {
            let lock = name.to_owned();
            if let Some((file, token)) = self.within_time(move |folder| folder.try_lock(&lock)).await? {
                let folder = Arc::clone(&self.folder);
                let held = Held { file, mark: file_name::safe(name) + MARK, folder, _turn: turn };
                return Ok(Some(Lease::new(name, token, Box::new(held))));
            }
            let now = Instant::now();
            match deadline {
                Some(deadline) if now >= deadline => return Ok(None),
                Some(deadline) => sleep(POLL.min(deadline - now)).await,
                None => sleep(POLL).await,
            }
        }
    }

    async fn ping(&self) -> Result<()> {
        self.within_time(|folder| folder.open(COUNTER).map(drop)).await
    }

    async fn close(&self) {}
}

/// A lock that is held. The fields are dropped in this order: the next one in the queue finds the lock free.
struct Held {
    file: LockedFile,
    /// The name of the file with its mark.
    mark: String,
    folder: Arc<Folder>,
    _turn: Turn,
}

impl Hold for Held {
    fn is_valid(&self) -> bool {
        self.file.is_held
    }

    /// The system keeps the lock for as long as the process lives.
    fn lost(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }

    fn mark(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        let mark = self.mark.clone();
        within_time(&self.folder, move |folder| folder.mark(&mark)).boxed()
    }

    fn set_mark(&self, value: i64) -> BoxFuture<'_, Result<()>> {
        let mark = self.mark.clone();
        within_time(&self.folder, move |folder| folder.set_mark(&mark, value)).boxed()
    }

    fn release(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.file.unlock();
        std::future::ready(Ok(())).boxed()
    }
}

/// The locked file of a lock.
struct LockedFile {
    file: File,
    path: PathBuf,
    is_held: bool,
}

impl LockedFile {
    /// Deletes the file and unlocks it: a file that is not deleted costs nothing but its place in the folder. It takes some
    /// microseconds, so nobody waits for a thread for it.
    fn unlock(&mut self) {
        if !std::mem::take(&mut self.is_held) {
            return;
        }
        // Never the file of another holder, which may be there if somebody has emptied the folder.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// The folder. All of it blocks the thread.
struct Folder {
    path: PathBuf,
    timeout: Duration,
    /// Whether this process has deleted what killed holders have left.
    is_swept: AtomicBool,
}

impl Folder {
    /// The lock and its token; `None` when somebody holds it.
    fn try_lock(&self, name: &str) -> io::Result<Option<(LockedFile, u64)>> {
        self.sweep();
        let file_name = file_name::safe(name) + SUFFIX;
        let Some(mut file) = self.try_file(&file_name)? else { return Ok(None) };
        let token = self.next_token()?;
        // For people who look who holds it. Nothing reads it, so an error means nothing.
        let _ = writeln!(file.file, "pid={} token={token} name={name:?}", std::process::id());
        Ok(Some((file, token)))
    }

    fn try_file(&self, file_name: &str) -> io::Result<Option<LockedFile>> {
        let path = self.path.join(file_name);
        loop {
            // The standard library opens it so that no child process inherits it, and with it the lock.
            let file = self.open(file_name)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(named(&path, error)),
            }
            // Its holder may have deleted it since it was opened.
            if is_at(&file, &path)? {
                return Ok(Some(LockedFile { file, path, is_held: true }));
            }
        }
    }

    /// The next token, when it is on the disk.
    fn next_token(&self) -> io::Result<u64> {
        let path = self.path.join(COUNTER);
        let mut file = self.open(COUNTER)?;
        self.lock_counter(&file).map_err(|error| named(&path, error))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let is_new = text.is_empty();
        let last = if is_new { 0 } else { text.trim().parse().map_err(|_| damaged(&path, &text))? };
        let next = u64::checked_add(last, 1).ok_or_else(|| damaged(&path, &text))?;
        // Always of one length: one write replaces all of it.
        file.write_all_at(format!("{next:020}\n").as_bytes(), 0)?;
        file.sync_data()?;
        if is_new {
            self.sync()?;
        }
        Ok(next)
    }

    /// Waits for the counter, but not for ever: a process that is stopped while it holds it must not stop all others.
    fn lock_counter(&self, file: &File) -> io::Result<()> {
        let start = std::time::Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if start.elapsed() < self.timeout => {
                    std::thread::sleep(COUNTER_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::other("another process keeps it locked for too long"));
                }
            }
        }
    }

    fn mark(&self, file_name: &str) -> io::Result<Option<i64>> {
        let path = self.path.join(file_name);
        let read =
            regular_file::read(&path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        match read {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => {
                let mark = text.trim().parse();
                mark.map(Some)
                    .map_err(|_| io::Error::other(format!("{}: {text:?} is not a mark", path.display())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, error)),
        }
    }

    fn set_mark(&self, file_name: &str, mark: i64) -> io::Result<()> {
        let file = self.open(file_name)?;
        let is_new = file.metadata()?.len() == 0;
        // Always of one length: one write replaces all of it.
        file.write_all_at(format!("{mark:+020}\n").as_bytes(), 0)?;
        file.sync_data()?;
        if is_new { self.sync() } else { Ok(()) }
    }

    /// Without this a new file itself could be gone after a power cut.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Opens a file, and creates it and the folder if they are missing.
    fn open(&self, file_name: &str) -> io::Result<File> {
        let path = self.path.join(file_name);
        let mut options = new_file::options();
        options.create(true).truncate(false).read(true).write(true);
        match regular_file::open(&options, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.path)?;
                regular_file::open(&options, &path)
            }
            opened => opened,
        }
        .map_err(|error| named(&path, error))
    }

    /// Deletes the files that killed holders have left, once in each process. A failure means nothing: they can be locked.
    fn sweep(&self) {
        if self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().filter(|name| name.ends_with(SUFFIX)) else { continue };
            // Who tries the lock at this moment takes it for held. So what was in use a moment ago is left for later.
            let age =
                entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > SWEEP_AGE) {
                // Dropping it deletes it.
                let _ = self.try_file(name);
            }
        }
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn damaged(path: &Path, text: &str) -> io::Error {
    io::Error::other(format!("{}: {text:?} is not a token", path.display()))
}

/// True when this open file is at `path`. Its inode number is not given to another file while it is open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
