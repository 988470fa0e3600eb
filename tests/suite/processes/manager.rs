//! A service manager such as systemd: it hands a listening socket over, and is told how the server is.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use platform::testing::{PATIENCE, TestServer};

use super::{until, workers};
use crate::support::PROGRAM;

/// The program with these sockets as its descriptors from 3 on, as systemd starts it. The shell knows its own process id,
/// which the program keeps.
fn activated(folder: &Path, arguments: &[&str], socket: impl Into<OwnedFd>, count: u32) -> Command {
    let program = PROGRAM.command(folder);
    let copies: Vec<_> = (3..3 + count).map(|descriptor| format!("exec {descriptor}<&0; ")).collect();
    let copies = copies.concat();
    let script = format!("{copies}exec 0</dev/null; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$@\"");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(program.get_program()).args(arguments);
    command.env_clear().current_dir(folder).stdin(Stdio::from(socket.into()));
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn ping(address: SocketAddr) -> bool {
    let mut connection = platform::testing::Connection::open(address);
    connection.send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").read_response().starts_with("HTTP/1.1 200")
}

#[test]
fn a_socket_that_is_handed_over_is_served_by_one_process_and_by_several() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A client that comes while nothing runs is served after the start: that is what such sockets are for.
        let early = std::thread::spawn(move || ping(address));
        // Port 1 is not used: the socket counts.
        let arguments = ["--proc", processes, "--port", "1"];
        let mut command = activated(folder.path(), &arguments, listener, 1);
        let mut server = TestServer::spawn(&mut command, folder.path());
        assert_eq!(server.address, address);
        assert!(early.join().unwrap() && ping(address));
        if processes != "1" {
            until(|| workers(&server).len() == 2);
            server.signal("HUP");
            server.wait_for_line(" reloaded ");
            assert!(ping(address));
        }
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_what_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let open = listener();
    let connected = std::net::TcpStream::connect(open.local_addr().unwrap()).unwrap();
    let exposed = TcpListener::bind("0.0.0.0:0").unwrap();
    let wrong: [(OwnedFd, u32, &[&str], &str); 4] = [
        (listener().into(), 2, &[], "2 sockets were handed over"),
        (datagram.into(), 1, &[], "not a TCP socket"),
        (connected.into(), 1, &[], "Accept=no"),
        (exposed.into(), 1, &["--debug"], "give --debug twice"),
    ];
    for (socket, count, arguments, expected) in wrong {
        let output = activated(folder.path(), arguments, socket, count).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{expected}: {text}");
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn the_variables_of_another_process_mean_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = PROGRAM.command(folder.path());
    command.args(["--port", "0", "--host", "127.0.0.1"]).envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    let server = TestServer::spawn(&mut command, folder.path());
    assert!(ping(server.address));
}

/// The next message that is none of the watchdog.
fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    loop {
        let length = socket.recv(&mut bytes).expect("the server tells it");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[test]
fn the_manager_is_told_of_the_start_reloads_and_the_end() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").to_str().unwrap().to_owned();
        // With several, as a manager in a namespace of its own has it: a name that is no path.
        let (socket, path) = if processes == "1" {
            (UnixDatagram::bind(&path).unwrap(), path)
        } else {
            let address = UnixAddress::from_abstract_name(&path).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{path}"))
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        std::fs::write(folder.path().join("a.yaml"), "").unwrap();
        let mut command = PROGRAM.command(folder.path());
        command.args(["--port", "0", "--host", "127.0.0.1", "--proc", processes, "--config", "a.yaml"]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
        let mut server = TestServer::spawn(&mut command, folder.path());
        assert_eq!(next(&socket), "READY=1\n");
        // From the supervisor only, again and again.
        let mut bytes = [0; 64];
        let beats = (0..3).map(|_| socket.recv(&mut bytes).unwrap());
        assert!(beats.into_iter().all(|length| length == "WATCHDOG=1\n".len()));
        if processes != "1" {
            server.signal("HUP");
            let begun = next(&socket);
            assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
            assert_eq!(next(&socket), "READY=1\n");
            // A reload that is refused ends too, or the manager would wait for it.
            std::fs::write(folder.path().join("a.yaml"), "nothing: 1").unwrap();
            server.signal("HUP");
            assert!(next(&socket).starts_with("RELOADING=1\n"));
            assert_eq!(next(&socket), "READY=1\n");
        }
        server.signal("TERM");
        assert_eq!(next(&socket), "STOPPING=1\n");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_manager_that_reads_nothing_stops_nothing() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        // Its queue, of some hundred datagrams at most, is full before the server says its first word.
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"x", &path).is_ok() {}
        let mut command = PROGRAM.command(folder.path());
        command.args(["--port", "0", "--host", "127.0.0.1", "--proc", processes]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000");
        let mut server = TestServer::spawn(&mut command, folder.path());
        for _ in 0..100 {
            assert!(ping(server.address));
        }
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
}
