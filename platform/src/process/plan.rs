//! What a worker is started with, and how.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::channel;
use super::settings::Settings;

/// Gives what a worker that starts now is handed over besides the configuration.
pub type HandedOver = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// A configuration, as far as it matters to the supervisor.
pub struct Plan {
    /// The text of the configuration file; the workers do not read the file.
    pub configuration: Option<String>,
    /// What else the workers get, where there is something.
    pub handed_over: Option<HandedOver>,
    /// How many workers there are.
    pub workers: u16,
    /// What the supervisor tolerates.
    pub settings: Settings,
    /// `server.shutdown.linger`.
    pub linger: Duration,
    /// `server.shutdown.deadline`.
    pub deadline: Duration,
}

/// The program that workers run.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// The path by which the first one was started.
    started_by: PathBuf,
    /// The file, for people.
    pub(super) file: PathBuf,
    /// Keeps the file of `path`, where that is a descriptor.
    _file: Option<Arc<File>>,
}

impl Program {
    /// The program of this process, also when another one has been put in the place of its file.
    pub fn running() -> io::Result<Self> {
        // In the process that becomes the worker it still is the program of the supervisor.
        let own = Path::new("/proc/self/exe");
        let file = std::env::current_exe()?;
        let path = if own.exists() { own.to_owned() } else { file.clone() };
        Ok(Self { path, started_by: started_by(&file), file, _file: None })
    }

    /// The program that is on the disk now, at the path by which the one of this process was started: behind a link that
    /// was moved, another one. Later workers get the same one, also when the file is replaced once more.
    pub(super) fn on_disk(&self) -> io::Result<Self> {
        let started_by = self.started_by.clone();
        let (path, opened) = (started_by.canonicalize()?, File::open(&started_by)?);
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Ok(if descriptor.exists() {
            Self { path: descriptor, started_by, file: path, _file: Some(Arc::new(opened)) }
        } else {
            Self { path: path.clone(), started_by, file: path, _file: None }
        })
    }

    /// Starts a worker. Returns its process, the stream to it, and that of its reports.
    pub(super) fn start(&self, number: u16, listener: &OwnedFd) -> io::Result<(Pid, UnixStream, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (reports, of_worker) = UnixStream::pair()?;
        channel::send_sockets(&ours, listener, &of_worker)?;
        ours.set_nonblocking(true)?;
        reports.set_nonblocking(true)?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(&self.path);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.arg(format!("--worker={number}")).args(arguments);
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // The supervisor waits for all children at once, so the handle is of no use.
        Ok((Pid::from_child(&child), ours, reports))
    }
}

/// The path by which this process was started, `current/server` or a name in `PATH`, if the program `own` is there.
fn started_by(own: &Path) -> PathBuf {
    // Linux marks the path of a file that was deleted or replaced.
    let name = own.to_string_lossy();
    let own = name.strip_suffix(" (deleted)").map_or(own.to_owned(), PathBuf::from);
    let given = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let folders = match given.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
        _ => vec![std::env::current_dir().unwrap_or_default()],
    };
    let mut paths = folders.iter().map(|folder| folder.join(&given));
    paths.find(|path| path.canonicalize().is_ok_and(|file| file == own)).unwrap_or(own)
}
