//! A thousand clients at a time that are slow or silent: others are served meanwhile, and each of the thousand is closed at
//! its deadline.

use std::fs;
use std::path::Path;
use std::time::Duration;

use platform::testing::{Connection, TestClient, TestPair, TestServer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::processes::until;
use crate::support::PROGRAM;

const CROWD: usize = 1_000;

/// Long enough for the handshake of a client that is not slow, on a machine that is busy.
const DEADLINE: &str = "2s";

const DEADLINES: [&str; 6] = [
    "SERVER__HTTP__FIRST_BYTE_TIMEOUT",
    "SERVER__HTTP__HEADER_TIMEOUT",
    "SERVER__HTTP__BODY_GRACE",
    "SERVER__HTTP__HTTP2_PING_INTERVAL",
    "SERVER__HTTP__WRITE_TIMEOUT",
    "SERVER__SERVER__TLS__HANDSHAKE_TIMEOUT",
];

/// What a slow client does.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Whether it makes a handshake, where the server speaks TLS.
    handshake: bool,
    sends: &'static [u8],
    /// Whether it sends one byte more now and then.
    drips: bool,
}

/// Those that differ only with what they send after the handshake, where there is one.
const KINDS: &[Kind] = &[
    Kind { name: "silent", handshake: true, sends: b"", drips: false },
    Kind { name: "half a head", handshake: true, sends: b"GET / HTTP/1.1\r\nHost: a", drips: true },
    Kind { name: "slow body", handshake: true, sends: SLOW_BODY, drips: true }, // example: resources
    Kind { name: "half a preface of HTTP/2", handshake: true, sends: HTTP2.split_at(10).0, drips: false },
    Kind { name: "HTTP/2 without a request", handshake: true, sends: HTTP2, drips: false },
    Kind {
        name: "reads nothing",
        handshake: true,
        sends: b"GET /static/large.bin HTTP/1.1\r\nHost: a\r\n\r\n",
        drips: false,
    },
];

/// The preface of HTTP/2 and an empty SETTINGS frame. This client answers no ping.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const SLOW_BODY: &[u8] = b"POST /resources HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"; // example: resources

const NO_HELLO: Kind = Kind { name: "no hello", handshake: false, sends: b"", drips: false };

/// A record of TLS with a handshake of 508 bytes, without most of it.
const HALF_A_HELLO: Kind = Kind {
    name: "half a hello",
    handshake: false,
    sends: &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3],
    drips: false,
};

/// A server, and what its clients trust where it speaks TLS.
struct Target {
    server: TestServer,
    trust: Option<TestClient>,
    /// How many sockets it has without a connection.
    sockets: usize,
}

impl Target {
    fn start(folder: &Path, pair: Option<&TestPair>, deadline: &str, body_rate: &str) -> Self {
        let mut command = PROGRAM.command(folder);
        command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
        command.envs(DEADLINES.map(|name| (name, deadline)));
        command.env("SERVER__HTTP__BODY_MIN_RATE", body_rate).env("SERVER__HTTP__MAX_CONNECTIONS", "5000");
        command.env("SERVER__HTTP__BODY_LIMIT", "1MiB").env("SERVER__HTTP__REQUEST_TIMEOUT", "5m");
        if pair.is_some() {
            command.arg("--ssl");
        }
        let server = TestServer::spawn(&mut command, folder);
        let mut target = Self { server, trust: pair.map(TestPair::client), sockets: 0 };
        target.sockets = target.count();
        target
    }

    /// How many sockets it has.
    fn count(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.server.process_id())).unwrap();
        let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    fn connect(&self) -> Connection {
        match &self.trust {
            Some(client) => self.server.connect_secure(client),
            None => self.server.connect(),
        }
    }

    fn join(&self, kind: Kind) -> Connection {
        let mut connection = if kind.handshake { self.connect() } else { self.server.connect() };
        connection.send(kind.sends);
        connection
    }

    /// Another client, with a connection of its own, has its response.
    fn serves(&self) {
        let response = self.connect().send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    }
}

/// A byte more from those that do so. The server may have closed their connection.
fn drip(crowd: &mut [(Kind, Connection)]) {
    for (_, connection) in crowd.iter_mut().filter(|(kind, _)| kind.drips) {
        connection.try_send("x");
    }
    // Some twenty bytes a second.
    std::thread::sleep(Duration::from_millis(50));
}

fn check(pair: Option<&TestPair>, crowds: &[&[Kind]], all: &[Kind]) {
    // A descriptor for each client, and one or two for each in the server.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.min(Some(20_000)), ..limit }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("views/static")).unwrap();
    let large = fs::File::create(folder.path().join("views/static/large.bin")).unwrap();
    large.set_len(16 << 20).unwrap();
    if let Some(pair) = pair {
        pair.write(folder.path());
    }
    let crowd_of = |target: &Target, kinds: &[Kind]| {
        let of_kind = kinds.iter().cycle().take(CROWD);
        of_kind.map(|kind| (*kind, target.join(*kind))).collect::<Vec<_>>()
    };

    // While they are there, others are served. The control of what follows: without the deadlines they stay, however busy the
    // machine is.
    let target = Target::start(folder.path(), pair, "10m", "0");
    let mut crowd = crowd_of(&target, all);
    until(|| target.count() >= target.sockets + CROWD);
    for _ in 0..50 {
        drip(&mut crowd);
        target.serves();
    }
    assert!(target.count() >= target.sockets + CROWD, "some were closed");
    drop((crowd, target));

    // Closed by the server: its clients keep their ends.
    let target = Target::start(folder.path(), pair, DEADLINE, "1000");
    for kinds in crowds {
        let crowd = std::cell::RefCell::new(crowd_of(&target, kinds));
        eprintln!("{} clients: {}", CROWD, kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "));
        target.serves();
        until(|| {
            drip(&mut crowd.borrow_mut());
            target.count() <= target.sockets
        });
        target.serves();
    }
}

#[test]
fn a_thousand_slow_clients_of_each_kind_are_closed_and_others_are_served() {
    let each: Vec<&[Kind]> = KINDS.chunks(1).collect();
    check(None, &each, KINDS);
}

#[test]
fn a_thousand_slow_clients_with_tls_are_closed_and_others_are_served() {
    let all = [KINDS, &[NO_HELLO, HALF_A_HELLO]].concat();
    // A thousand handshakes take some seconds: one crowd of all that make one.
    check(Some(&TestPair::for_this_machine()), &[&[NO_HELLO], &[HALF_A_HELLO], KINDS], &all);
}
