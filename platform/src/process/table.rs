//! The workers that there are, and what the supervisor hears of them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::channel::{self, READY};
use super::crashes::Crashes;
use super::plan::{Plan, Program};

/// Takes the newest report of a process; nothing when the process has ended.
pub type Reported = Arc<dyn Fn(u32, Option<&str>) + Send + Sync>;

/// What is heard of a worker.
pub(super) enum News {
    /// It serves.
    Ready,
    /// There was no heartbeat for `hang_timeout`.
    Silent,
}

/// How far a worker is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Serving {
        since: Instant,
    },
    /// It was told to end.
    Leaving,
}

/// A process.
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// The slot that it fills, from 0.
    pub(super) slot: usize,
    pub(super) state: State,
    /// When it is killed, unless it has got further by then.
    pub(super) kill_at: Option<Instant>,
    orders: mpsc::UnboundedSender<u8>,
}

impl Worker {
    /// The number of the worker, for people.
    pub(super) fn number(&self) -> usize {
        self.slot + 1
    }

    /// Tells the worker to end, within this time.
    pub(super) fn dismiss(&mut self, order: u8, time: Duration) {
        self.state = State::Leaving;
        self.kill_at = Instant::now().checked_add(time);
        // An error means that its stream has ended, and so the process is about to.
        let _ = self.orders.send(order);
    }

    /// SIGKILL: it ends a process that is stopped too.
    pub(super) fn kill(&mut self) {
        self.kill_at = None;
        // It may have ended at this moment; it keeps its number until it is waited for.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// A slot that a worker fills; it has a number, the deaths of its workers, and what the next one is started with.
pub(super) struct Slot {
    pub(super) plan: Arc<Plan>,
    pub(super) program: Program,
    pub(super) crashes: Crashes,
    /// When the next worker is started.
    pub(super) start_at: Option<Instant>,
}

impl Slot {
    pub(super) fn new(plan: Arc<Plan>, program: Program) -> Self {
        Self { plan, program, crashes: Crashes::default(), start_at: None }
    }
}

/// Starts a worker in a slot. What is heard of it is sent to `news`, with its process id.
pub(super) fn start(
    slot: usize,
    (plan, program): (&Plan, &Program),
    listener: &OwnedFd,
    news: &mpsc::UnboundedSender<(Pid, News)>,
    reported: &Reported,
) -> io::Result<Worker> {
    let number = u16::try_from(slot + 1).map_err(io::Error::other)?;
    let (pid, stream, reports) = program.start(number, listener)?;
    let (process, reported) = (pid.as_raw_nonzero().get().unsigned_abs(), Arc::clone(reported));
    tokio::spawn(async move {
        // Any other error is the end of the worker.
        if let Err(error) = read_reports(reports, |text| reported(process, Some(text))).await
            && error.kind() == io::ErrorKind::InvalidData
        {
            tracing::error!(target: "server", worker = number, pid = process, %error, "no more metrics of a worker");
        }
        reported(process, None);
    });
    let (orders, receiver) = mpsc::unbounded_channel();
    let handed_over = plan.handed_over.as_ref().map(|give| give());
    let messages = [plan.configuration.as_deref().map(str::as_bytes), handed_over.as_deref()];
    let messages = messages.map(channel::message).concat();
    let hang_timeout = plan.settings.hang_timeout.get();
    let news = news.clone();
    tokio::spawn(async move {
        // An error is the end of the worker, of which the supervisor learns by waiting for it.
        let _ = converse(stream, &messages, receiver, hang_timeout, |heard| {
            let _ = news.send((pid, heard));
        })
        .await;
    });
    let kill_at = Instant::now().checked_add(plan.settings.start_timeout.get());
    Ok(Worker { pid, slot, state: State::Starting, kill_at, orders })
}

/// Reads the reports of a worker until it ends.
async fn read_reports(stream: StdStream, report: impl Fn(&str)) -> io::Result<()> {
    let mut stream = UnixStream::from_std(stream)?;
    loop {
        let length = stream.read_u32().await?;
        channel::check_report(length)?;
        let mut text = vec![0; length as usize];
        stream.read_exact(&mut text).await?;
        report(&String::from_utf8_lossy(&text));
    }
}

/// Sends the first messages and the orders to a worker, and listens to it, until it ends.
async fn converse(
    stream: StdStream,
    messages: &[u8],
    mut orders: mpsc::UnboundedReceiver<u8>,
    hang_timeout: Duration,
    heard: impl Fn(News),
) -> io::Result<()> {
    let (mut read, mut write) = UnixStream::from_std(stream)?.into_split();
    let sending = async {
        write.write_all(messages).await?;
        while let Some(order) = orders.recv().await {
            write.write_all(&[order]).await?;
        }
        Ok::<_, io::Error>(())
    };
    let listening = async {
        let mut bytes = [0; 64];
        loop {
            match tokio::time::timeout(hang_timeout, read.read(&mut bytes)).await {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(length)) if bytes[..length].contains(&READY) => heard(News::Ready),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => heard(News::Silent),
            }
        }
    };
    // The supervisor drops the sender of orders when it has waited for the process.
    tokio::try_join!(sending, listening).map(|_| ())
}

/// How a process has ended, for people: `exit code 1`, `signal 9`.
pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// The next child that has ended. As process 1 of a container the supervisor is the parent of every process whose own
/// parent has ended, so there may be others than workers; they are zombies until they are waited for.
pub(super) fn next_ended() -> Option<(Pid, WaitStatus)> {
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(ended) => return ended,
            Err(rustix::io::Errno::INTR) => {}
            // ECHILD: there are no children.
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn what_is_no_report_ends_the_reports_of_a_worker() {
        let (ours, mut of_worker) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        of_worker.write_all(&channel::report_message("a 1").unwrap()).unwrap();
        // As after half a report: text, where a length should be.
        of_worker.write_all(b"http_requests 1").unwrap();
        let reported = Mutex::new(Vec::new());
        let read = read_reports(ours, |text| reported.lock().unwrap().push(text.to_owned()));
        let ended =
            tokio::time::timeout(Duration::from_secs(10), read).await.expect("it waits for no 1.7 GB");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(*reported.lock().unwrap(), ["a 1"]);
        assert!(of_worker.write_all(b"more").is_err(), "the stream is closed");
    }
}
