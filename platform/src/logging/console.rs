//! Standard output or standard error.
//!
//! It writes to a duplicated descriptor. A terminal that is read slowly then blocks this sink only, and not `println!`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::batch::Batch;
use super::file::{first_line, whole_lines};
use super::settings::Stream;
use super::sink::{Failure, Output};

/// What a pipe takes as one piece (POSIX has 512 and Linux 4,096 bytes, `PIPE_BUF` in pipe(7)): more can be mixed with
/// what another process writes. A line that is longer than that can be, too.
const ONE_PIECE: u64 = 4_096;

pub(super) struct Console {
    file: File,
    shared: bool,
}

impl Console {
    /// `shared`: several processes write to the stream, which may be a pipe, as in a container.
    pub(super) fn open(stream: Stream, shared: bool) -> io::Result<Self> {
        let descriptor = match stream {
            Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        Ok(Self { file: File::from(descriptor?), shared })
    }
}

impl Output for Console {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let limit = if self.shared { ONE_PIECE } else { u64::MAX };
        let mut rest = batch.bytes();
        while !rest.is_empty() {
            let length = whole_lines(rest, limit).max(first_line(rest));
            if let Err(error) = self.file.write_all(&rest[..length]) {
                return Err(Failure { lost: batch.unwritten(batch.bytes().len() - rest.len()), error });
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    fn destination(&self) -> String {
        "the console".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::level::{Filter, Level, Threshold};
    use crate::logging::settings::Format;
    use crate::logging::sink::{Sink, SinkConfig};
    use std::collections::BTreeMap;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Far longer than the child needs, for a machine under load.
    const PATIENCE: Duration = Duration::from_mins(1);

    const UNREAD: &str = "TEST_LOG_UNREAD";

    #[test]
    fn a_terminal_that_nobody_reads_blocks_no_caller() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "logging::console::tests::one_process_that_nobody_reads"])
            .env(UNREAD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                child.kill().unwrap();
                panic!("it hangs");
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success());
        let shown = io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(shown.starts_with("a line\n"));
    }

    #[test]
    #[ignore = "the process of the test above, which starts it"]
    fn one_process_that_nobody_reads() {
        std::env::var_os(UNREAD).expect("started by hand it would never end");
        let config = SinkConfig {
            name: "console",
            filter: Filter::new(Threshold::ALL, &BTreeMap::new()),
            format: Format::Human,
            limit: 16_384,
            delay: Duration::ZERO,
            on_failure: Box::new(|_, _| {}),
        };
        let sink = Sink::start(config, Box::new(Console::open(Stream::Stderr, false).unwrap())).unwrap();
        // Until the pipe is full (usually 64 KiB, see pipe(7)) and the thread hangs …
        while sink.flush(Instant::now() + Duration::from_millis(100)) {
            (0..1_000).for_each(|_| sink.append(Level::Info, b"a line\n"));
        }
        // … and then until the buffer is full as well. No call waits.
        while sink.dropped() == 0 {
            sink.append(Level::Info, b"a line\n");
        }
    }
}
