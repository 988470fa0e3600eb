//! Clients that flood the program with frames of HTTP/2, or take all its descriptors: others are served.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use platform::testing::{PATIENCE, TestServer};

use crate::processes::until;
use crate::support::PROGRAM;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method: GET` or `POST`, `:scheme: http`, `:path: /ping`, `:authority: a` (RFC 7541, appendix A).
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x86, 0x04, 5][..], b"/ping", &[0x01, 1], b"a"].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends these frames for ever, numbered, and reads nothing but what the server says at its end. Returns whether the server
/// has ended the connection before `most` of them were taken, and the types of the frames that it has sent.
fn flood(server: SocketAddr, start: &[u8], most: u32, next: impl Fn(u32) -> Vec<u8>) -> (bool, Vec<u8>) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    // It reads all the time: a server that waits for its client to read would only be slow.
    let reading = std::thread::spawn(move || {
        let mut received = Vec::new();
        let _ = reader.read_to_end(&mut received);
        received
    });
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), start].concat();
    let mut ended = stream.write_all(&opening).is_err();
    for number in 0..most {
        if ended {
            break;
        }
        ended = stream.write_all(&next(number)).is_err();
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let received = reading.join().unwrap();
    let mut kinds = Vec::new();
    let mut rest = &received[..];
    while let Some(frame) = rest.get(..9) {
        kinds.push(frame[3]);
        let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    (ended, kinds)
}

fn stream_of(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn a_flood_of_frames_ends_its_connection_or_costs_nothing_and_others_are_served() {
    let server = PROGRAM.start(&["--db_url", "memory:"]);
    // Rapid reset (CVE-2023-44487): requests that are cancelled at once.
    let reset = |number| {
        let stream = stream_of(number);
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(GET));
        [request, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    // A head that never ends (CVE-2024-27316).
    let endless = frame(HEADERS, END_STREAM, 1, &head(GET));
    let before = resident(&server);
    let floods = |address| {
        [
            ("rapid reset", flood(address, &[], 200_000, reset)),
            ("CONTINUATION", flood(address, &endless, 2_000, |_| more_of_a_head())),
        ]
    };
    let mut without_goaway = vec!["rapid reset", "CONTINUATION"];
    // A reset by the kernel, for what the server has not read, may overtake the GOAWAY: it is asked again until it came.
    let begun = Instant::now();
    while !without_goaway.is_empty() && begun.elapsed() < PATIENCE {
        for (name, (ended, kinds)) in floods(server.address) {
            assert!(ended, "{name}: {} frames came back", kinds.len());
            without_goaway.retain(|other| *other != name || !kinds.contains(&GOAWAY));
            served(&server);
        }
    }
    assert_eq!(without_goaway, [""; 0]);
    // The control: a server that takes all of them. It cannot miss it: nothing ends its connections.
    for (name, (ended, kinds)) in floods(unprotected()) {
        assert!(!ended && kinds.contains(&SETTINGS), "{name}: {} frames came back", kinds.len());
    }
    // These are answered or ignored one by one, and nothing of them is kept; or they end the connection too.
    let open = frame(HEADERS, END_HEADERS, 1, &head(POST));
    for (start, next) in [
        (&[][..], frame(PING, 0, 0, &[0; 8])),
        (&[], frame(SETTINGS, 0, 0, &[])),
        (&open, frame(DATA, 0, 1, &[])),
    ] {
        flood(server.address, start, 100_000, |_| next.clone());
        served(&server);
    }
    // What was sent is 100 times as much.
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

/// A server of the library h2 alone, with all its limits off.
fn unprotected() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async |socket| {
        let mut builder = h2::server::Builder::new();
        builder.max_pending_accept_reset_streams(usize::MAX).max_local_error_reset_streams(None);
        builder.max_header_list_size(u32::MAX);
        let mut connection = builder.handshake::<_, axum::body::Bytes>(socket).await?;
        while let Some(request) = connection.accept().await {
            // An error is a stream that was reset meanwhile.
            let _ = request?.1.send_response(axum::http::Response::new(()), true);
        }
        Ok::<_, h2::Error>(())
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                // One connection at a time is enough.
                let _ = serve(listener.accept().await.unwrap().0).await;
            }
        });
    });
    address
}

/// A frame of 120 fields of 160 bytes each, as HTTP/2 counts them.
fn more_of_a_head() -> Vec<u8> {
    let field = [&[0x00, 1, b'x', 127, 0][..], &[b'y'; 127]].concat();
    frame(CONTINUATION, 0, 1, &field.repeat(120))
}

/// Clients whose heads have 1.8 MB and do not end. What is sent may fail: the server may have ended the connection.
fn heads_without_an_end(server: &TestServer) -> Vec<TcpStream> {
    let begin = frame(HEADERS, END_STREAM, 1, &head(GET));
    let all = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &begin, &more_of_a_head().repeat(96)].concat();
    let open = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(&all);
        stream
    };
    (0..50).map(|_| open()).collect()
}

#[test]
fn endless_heads_are_not_kept_in_memory() {
    const BOUND: usize = 32 << 20;
    let server = PROGRAM.start(&["--db_url", "memory:"]);
    let before = resident(&server);
    for mut client in heads_without_an_end(&server) {
        // Until the server ends it, or is reset.
        let _ = client.read_to_end(&mut Vec::new());
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more");
    served(&server);
    // The control: with the largest limit, they are kept. It cannot miss it: it waits until the server has read as much, and the
    // clients have sent more.
    let folder = tempfile::tempdir().unwrap();
    let mut command = PROGRAM.command(folder.path());
    command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
    let server = TestServer::spawn(command.env("SERVER__HTTP__MAX_HEADER_SIZE", "1MiB"), folder.path());
    let before = resident(&server);
    let _clients = heads_without_an_end(&server);
    until(|| resident(&server).saturating_sub(before) >= BOUND);
}

/// Another client has its response.
fn served(server: &TestServer) {
    let response = server.connect().send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

/// The memory of the server in bytes.
fn resident(server: &TestServer) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The processor time of a process so far, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A server that goes on with `accept` as soon as it has failed, or ends then.
const BAD_SERVER: &str = r#"
    use IO::Socket::INET;
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:0", Listen => 128) or die;
    $| = 1;
    print $listener->sockport, "\n";
    my @open;
    while (1) {
        my $client = $listener->accept;
        if ($client) { push @open, $client } elsif ($ARGV[0] eq "dies") { exit 1 }
    }
"#;

/// The bad server with 64 descriptors, all of which are taken.
struct Bad {
    child: Child,
    _open: Vec<TcpStream>,
}

impl Bad {
    fn start(kind: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64; exec perl -e \"$0\" \"$1\"", BAD_SERVER, kind]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address: SocketAddr = format!("127.0.0.1:{}", port.trim()).parse().unwrap();
        // One that ends refuses those that come after that.
        let open = (0..100).filter_map(|_| TcpStream::connect(address).ok()).collect();
        Self { child, _open: open }
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn out_of_descriptors_it_neither_spins_nor_dies_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.current_dir(folder.path()).env_clear().args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    let program = PROGRAM.command(folder.path());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Without a reserve, connections can take all.
    command.env("SERVER__HTTP__RESERVED_FILES", "0");
    command.arg(program.get_program()).args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
    let mut server = TestServer::spawn(&mut command, folder.path());
    let mut open: Vec<_> = (0..100).map(|_| server.connect()).collect();
    server.wait_for_line("cannot accept connections");
    // It looks again each 50 ms. The control, one that spins, takes a processor meanwhile. It cannot miss it: it waits until that
    // one has taken a second of it, however long that takes beside others.
    let bad = Bad::start("spins");
    let (before, of_bad) = (ticks(server.process_id()), ticks(bad.child.id()));
    until(|| ticks(bad.child.id()) >= of_bad + 100);
    let used = ticks(server.process_id()) - before;
    assert!(used < 20, "{used} ticks, and the control 100");
    assert!(!server.has_ended());
    // The control: one that ends. It cannot miss it: a third of the 100 connections finds no descriptor.
    let mut bad = Bad::start("dies");
    assert_eq!(bad.child.wait().unwrap().code(), Some(1));
    open.truncate(0);
    served(&server);
}
