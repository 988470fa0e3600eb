//! The service manager that has started this process: systemd, or one that speaks its protocols. It may hand a listening
//! socket over (`LISTEN_FDS`, `sd_listen_fds(3)`), and may want to know when the server is ready (`NOTIFY_SOCKET`,
//! `sd_notify(3)`) and that it is alive (`WATCHDOG_USEC`). Without these variables nothing here does anything.

use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;

use crate::error::StartError;

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The server serves: after its start, or after a reload, however that ended.
    Ready,
    /// A reload has begun.
    Reloading,
    /// The server ends.
    Stopping,
}

/// Takes the listening socket that the service manager has for this process. It also removes the variables, so it has to be
/// called before other threads run.
pub fn take_listener() -> Result<Option<TcpListener>, StartError> {
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 => Ok(None),
        1 => {
            let taken = sockets.take_tcp_listener(0);
            let unusable = |error| StartError::config(format!("LISTEN_FDS: not a TCP socket: {error}"));
            let listener = taken.map_err(unusable)?;
            match &listener {
                Some(socket) if !socket_acceptconn(socket).unwrap_or(false) => Err(StartError::config(
                    "LISTEN_FDS: the socket does not listen; a socket unit needs Accept=no".to_owned(),
                )),
                _ => Ok(listener),
            }
        }
        count => Err(StartError::config(format!(
            "LISTEN_FDS: {count} sockets were handed over, and this server serves one: \
             keep one ListenStream= in the socket unit"
        ))),
    }
}

/// Tells the service manager. One that cannot be reached changes nothing for the clients, so it is said in the log only.
pub fn tell(told: Told) {
    send(Notice::Told(told));
}

/// Tells the service manager that the process is alive, twice in the time that it allows, as long as the runtime gets to
/// run tasks.
pub fn start_watchdog() {
    let Some(time) = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()) else { return };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(time / 2);
        loop {
            ticks.tick().await;
            send(Notice::Alive);
        }
    });
}

enum Notice {
    Told(Told),
    Alive,
}

/// How many notices wait for a manager that reads none; further ones are dropped.
const WAITING: usize = 16;

/// Hands a notice to the thread that sends them in their order: a manager that reads nothing must not stop the server.
fn send(notice: Notice) {
    static SENDER: OnceLock<Option<SyncSender<Notice>>> = OnceLock::new();
    let sender = SENDER.get_or_init(|| {
        let (sender, notices) = mpsc::sync_channel::<Notice>(WAITING);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        let started = thread.spawn(move || notices.iter().for_each(|notice| deliver(&notice)));
        started.is_ok().then_some(sender)
    });
    if let Some(sender) = sender {
        let _ = sender.try_send(notice);
    }
}

fn deliver(notice: &Notice) {
    let told = match notice {
        Notice::Told(told) => told,
        Notice::Alive => {
            // The next one may arrive; if none does, the manager acts.
            let _ = notify(&[NotifyState::Watchdog]);
            return;
        }
    };
    let sent = match told {
        Told::Ready => notify(&[NotifyState::Ready]),
        Told::Stopping => notify(&[NotifyState::Stopping]),
        // A manager that waits for the end of a reload compares the time with that of its signal.
        Told::Reloading => {
            NotifyState::monotonic_usec_now().and_then(|now| notify(&[NotifyState::Reloading, now]))
        }
    };
    if let Err(error) = sent {
        tracing::warn!(target: "server", %error, ?told, "NOTIFY_SOCKET: cannot tell the service manager");
    }
}

/// As `sd_notify::notify`, also to a socket with an abstract name (`@NAME`), which that takes for a path.
fn notify(states: &[NotifyState<'_>]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::net::{SocketAddr, UnixDatagram};

        let name = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        if let Some(name) = name.as_bytes().strip_prefix(b"@") {
            let lines = states.iter().flat_map(|state| [state.to_string(), "\n".to_owned()]);
            let text: String = lines.collect();
            let address = SocketAddr::from_abstract_name(name)?;
            return UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop);
        }
    }
    sd_notify::notify(states)
}
