//! The side of a worker: what it gets from its supervisor, and what it tells it.

use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::channel::{self, BEAT, DRAIN, READY, RETIRE};
use crate::error::StartError;
use crate::shutdown::exit;

/// How often a worker is heard.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// How long a supervisor that reads nothing keeps the end of a worker. Then there are no more reports of this worker.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may live without its supervisor. A bit less than the 5 s that are promised.
const ORPHAN_LIMIT: Duration = Duration::from_millis(4_500);

/// What a supervisor tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To shut down.
    Drain,
    /// To take no more connections, and to end when those that it has have ended: its successor is ready.
    Retire,
    /// Nothing more: the supervisor has died. The process ends by itself soon, whatever it does.
    Orphaned,
}

/// This process as a worker.
pub struct Worker {
    /// Its number, from 1. A replacement has the number of the worker that it replaces.
    pub number: u16,
    /// The text of the configuration file, as the supervisor has read and checked it.
    pub configuration: Option<String>,
    /// What else the supervisor hands over.
    pub handed_over: Option<Vec<u8>>,
    listener: Option<TcpListener>,
    reports: Arc<Reports>,
    /// What is reported.
    report: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    stream: Arc<UnixStream>,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Worker {
    /// Takes what the supervisor hands over. `name` is what `ps` shows as the name of the process.
    pub fn join(number: u16, name: &str) -> Result<Self, StartError> {
        let refused = |error| {
            StartError::failed(format!(
                "--worker: nothing from a supervisor, which alone gives this flag: {error}"
            ))
        };
        let stream = channel::take_standard_input().map_err(refused)?;
        let (listener, reports) = channel::receive_sockets(&stream).map_err(refused)?;
        let (listener, reports) = (Some(listener.into()), UnixStream::from(reports));
        reports.set_write_timeout(Some(REPORT_TIMEOUT)).map_err(refused)?;
        let reports = Arc::new(Reports(Mutex::new(Some(reports))));
        let configuration = channel::receive(&stream).map_err(refused)?;
        let configuration = configuration.map(String::from_utf8).transpose();
        let configuration = configuration.map_err(|error| refused(io::Error::other(error)))?;
        let handed_over = channel::receive(&stream).map_err(refused)?;
        if let Ok(name) = CString::new(name) {
            // It is started as /proc/self/exe and would be called `exe`. A kernel that refuses changes nothing else.
            let _ = rustix::thread::set_name(&name);
        }
        let (stream, (sender, orders)) = (Arc::new(stream), mpsc::unbounded_channel());
        let of_thread = Arc::clone(&stream);
        // A thread of its own: it learns of the supervisor's death even if no task gets to run.
        let thread = std::thread::Builder::new().name("supervisor".to_owned());
        let started = thread.spawn(move || read_orders(&of_thread, &sender));
        started.map_err(|error| StartError::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { number, configuration, handed_over, listener, reports, report: None, stream, orders })
    }

    /// The listening socket of the supervisor; the first call has it.
    pub fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// Sends what this gives to the supervisor once a second, from a thread of its own: a supervisor that is paused stops
    /// nothing else.
    pub fn start_reports(&mut self, report: impl Fn() -> String + Send + Sync + 'static) {
        let report: Arc<dyn Fn() -> String + Send + Sync> = Arc::new(report);
        self.report = Some(Arc::clone(&report));
        let stream = Arc::clone(&self.reports);
        let thread = std::thread::Builder::new().name("reports".to_owned());
        let started = thread.spawn(move || {
            while stream.send(&report()) {
                std::thread::sleep(BEAT_EVERY);
            }
        });
        if let Err(error) = started {
            tracing::error!(target: "server", %error, "no metrics of this worker: cannot start a thread");
        }
    }

    /// Sends what there is to report at the end.
    pub fn report_last(&self) {
        if let Some(report) = &self.report {
            self.reports.send(&report());
        }
    }

    /// Sends a byte each second from now on, as long as the runtime gets to run tasks.
    pub fn start_heartbeat(&self) {
        let stream = Arc::clone(&self.stream);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(BEAT_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                channel::tell(&stream, BEAT);
            }
        });
    }

    /// Tells the supervisor that this worker serves.
    pub fn is_ready(&self) {
        channel::tell(&self.stream, READY);
    }

    /// Waits for the next order.
    pub async fn next_order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // The thread ends with the process only.
            None => std::future::pending().await,
        }
    }
}

/// The stream of the reports, while it can be used.
struct Reports(Mutex<Option<UnixStream>>);

impl Reports {
    /// Sends a report, and returns whether there may be more. A write that fails may have sent half of one, and whatever came
    /// after it would be read as the rest: so the stream is closed.
    fn send(&self, report: &str) -> bool {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = stream.as_mut() else { return false };
        let sent = channel::report_message(report).and_then(|message| open.write_all(&message));
        if let Err(error) = &sent {
            *stream = None;
            tracing::error!(target: "server", %error, "no more metrics of this worker: its supervisor takes none");
        }
        sent.is_ok()
    }
}

fn read_orders(mut stream: &UnixStream, orders: &mpsc::UnboundedSender<Order>) {
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        let order = match byte[0] {
            DRAIN => Order::Drain,
            RETIRE => Order::Retire,
            // Of a later version.
            _ => continue,
        };
        // The receiver is gone when the server has ended already.
        let _ = orders.send(order);
    }
    let _ = orders.send(Order::Orphaned);
    std::thread::sleep(ORPHAN_LIMIT);
    std::process::exit(i32::from(exit::CUT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_report_that_was_sent_in_half_nothing_more_is_sent() {
        let (mut supervisor, worker) = UnixStream::pair().unwrap();
        worker.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let reports = Reports(Mutex::new(Some(worker)));
        assert!(reports.send("first"));
        // More than the buffer of the socket holds.
        let long = "x".repeat(10_000_000);
        assert!(!reports.send(&long));
        assert!(!reports.send("last"));
        // The supervisor goes on: there is the first one, a part of the second one, and the end.
        let mut bytes = Vec::new();
        supervisor.read_to_end(&mut bytes).unwrap();
        let expected = ["first", &long].map(|text| channel::report_message(text).unwrap()).concat();
        assert!(bytes.len() > 9 && bytes.len() < expected.len(), "{}", bytes.len());
        assert!(expected.starts_with(&bytes));
    }
}
