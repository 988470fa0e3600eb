//! The program as a process, as a person starts it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Connection, PATIENCE, TestClient};
use crate::connector;

/// The settings that the tests rely on. They are set here because a service may choose other defaults.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("SERVER__LOGGING__CONSOLE__ENABLED", "true"),
    ("SERVER__LOGGING__CONSOLE__LEVEL", "info"),
    ("SERVER__LOGGING__CONSOLE__FORMAT", "human"),
    ("SERVER__LOGGING__CONSOLE__STREAM", "stderr"),
    ("SERVER__LOGGING__FILE__ENABLED", "true"),
    ("SERVER__LOGGING__FILE__PATH", "logs/server.log"),
    ("SERVER__LOGGING__FILE__LEVEL", "info"),
    ("SERVER__LOGGING__FILE__FORMAT", "logfmt"),
    ("SERVER__LOGGING__FILE__ROTATION", "size"),
];

/// A program built on this platform, by the path of its binary: `Program::new(env!("CARGO_BIN_EXE_server"))`.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    path: &'static str,
}

impl Program {
    /// The program at this path.
    pub const fn new(path: &'static str) -> Self {
        Self { path }
    }

    /// A command that runs it in this folder. It inherits no environment variables from the person who runs the tests, and has a
    /// key for its cookies.
    pub fn command(self, folder: &Path) -> Command {
        let mut command = Command::new(self.path);
        // `make coverage` collects its data through this variable.
        let coverage = std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE");
        command.env_clear().envs(coverage).envs(ENVIRONMENT).current_dir(folder).stdin(Stdio::null());
        #[cfg(feature = "auth")]
        command.env("SERVER__AUTH__KEYS", crate::auth::new_key().unwrap());
        command
    }

    /// Runs it until it ends by itself.
    pub fn run(self, folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        self.command(folder).args(arguments).envs(environment.iter().copied()).output().unwrap()
    }

    /// Starts the server in a new temporary folder, on a port that the system chooses.
    pub fn start(self, arguments: &[&str]) -> TestServer {
        let temporary = tempfile::tempdir().unwrap();
        let mut server = self.start_in(temporary.path(), arguments);
        server.temporary = Some(temporary);
        server
    }

    /// Starts the server in an existing folder, which is kept.
    pub fn start_in(self, folder: &Path, arguments: &[&str]) -> TestServer {
        let host = if arguments.contains(&"--host") { &[][..] } else { &["--host", "127.0.0.1"] };
        TestServer::spawn(self.command(folder).args(["--port", "0"]).args(host).args(arguments), folder)
    }
}

/// A running server.
pub struct TestServer {
    child: Child,
    /// The folder in which it runs and writes.
    pub folder: PathBuf,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// `http` or `https`.
    scheme: String,
    stderr: Receiver<String>,
    /// The lines before the one that says that it listens.
    earlier: VecDeque<String>,
    /// Deleted with the server.
    temporary: Option<TempDir>,
}

impl TestServer {
    /// Starts a command that runs the server in this folder.
    pub fn spawn(command: &mut Command, folder: &Path) -> Self {
        // For the HTTP client of the test.
        connector::install_tls_provider();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, stderr) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let address = "0.0.0.0:0".parse().unwrap();
        let (earlier, temporary) = (VecDeque::new(), None);
        let (folder, scheme) = (folder.to_owned(), String::new());
        let mut server = Self { child, folder, address, scheme, stderr, earlier, temporary };
        let (line, earlier) = server.read_until("listening");
        server.earlier = earlier.into();
        let url = line.split("url=").nth(1).unwrap().split(' ').next().unwrap();
        let (scheme, url) = url.split_once("://").unwrap();
        scheme.clone_into(&mut server.scheme);
        server.address = url.parse().unwrap_or_else(|_| panic!("no address in {line}"));
        server
    }

    /// Waits for the next line on standard error that contains the text, and returns it.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        while let Some(line) = self.earlier.pop_front() {
            if line.contains(text) {
                return line;
            }
        }
        self.read_until(text).0
    }

    /// The next line that contains the text, and the lines before it.
    fn read_until(&self, text: &str) -> (String, Vec<String>) {
        let start = Instant::now();
        let mut seen = Vec::new();
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            match self.stderr.recv_timeout(left) {
                Ok(line) if line.contains(text) => return (line, seen),
                Ok(line) => seen.push(line),
                Err(_) => break,
            }
        }
        panic!("no line with {text:?}; seen: {seen:#?}");
    }

    /// The lines on standard error that no other call has read, until the process and those that it has started have ended.
    pub fn remaining_lines(&mut self) -> Vec<String> {
        self.earlier.drain(..).chain(self.stderr.iter()).collect()
    }

    /// The id of the process; with several, that of the supervisor.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Opens a connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Opens a connection with TLS.
    pub fn connect_secure(&self, client: &TestClient) -> Connection {
        Connection::secure(self.address, client)
    }

    /// The contents of its log file so far.
    pub fn log_file(&self) -> String {
        let mut text = String::new();
        let file = std::fs::File::open(self.folder.join("logs/server.log"));
        file.and_then(|mut file| file.read_to_string(&mut text)).unwrap_or_default();
        text
    }

    /// Sends a signal by its name, as `kill -TERM` does.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has ended, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end");
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // The process may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
