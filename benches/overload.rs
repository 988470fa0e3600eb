//! What a server does beyond its capacity: how many requests a second it still answers with 200 when it is asked twice and
//! five times as often as it can answer, and whether `/ping` responds meanwhile.
//!
//! The server is this program on the platform, with its log in a file and one route, whose handler takes some hundred
//! microseconds of CPU and lets others run in between. It is on core 0, the load on core 1. `http.max_in_flight` is
//! [`IN_FLIGHT`]: beyond that, 503 at once. The capacity is what as many clients get that ask again as soon as they have
//! their response; then nothing is refused. After that, requests are sent at a rate, whatever has become of the others.
//! Rounds take turns, and the result is the median of their ratios. The benchmark asserts nothing about time; that
//! there is a response other than 200 and 503, or none to `/ping`, is an error.
//!
//! `cargo bench --bench overload`. Variables: `BENCH_ROUNDS` (9), `BENCH_SECONDS` (2 for each measurement).

#![expect(clippy::print_stdout, reason = "the table is the product of this program")]
#![expect(clippy::cast_precision_loss, reason = "counts, far below 2^52")]

use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use platform::App;
use platform::config::{Defaults, Service};
use platform::error::StartError;
use platform::http::{Route, Routes, health};
use platform::services::Services;
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Set in the process that serves.
const SERVES: &str = "OVERLOAD_SERVES";
const IN_FLIGHT: usize = 16;
/// Enough for a request to be sent when it is due: those that are refused have their response at once.
const CONNECTIONS: usize = 256;
const PING_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

const SERVICE: Service = Service {
    name: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "overload.yaml", text: "app: {}" },
};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// Work in ten pieces; others run in between, as where a handler waits for its store.
async fn work() -> &'static str {
    let mut sum = 0_u64;
    for piece in 0..10 {
        for number in 0..50_000_u64 {
            sum = std::hint::black_box(sum.rotate_left(5) ^ number ^ piece);
        }
        tokio::task::yield_now().await;
    }
    "done"
}

fn main() -> ExitCode {
    if std::env::var_os(SERVES).is_some() {
        let routes = |_: &Settings| {
            Routes::new().route(Route::at("/work").get(work)).merge(health::routes::<Services>())
        };
        return platform::main(&SERVICE, App::new(init, routes));
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overload: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn init(services: Services, _: Settings) -> std::result::Result<Services, StartError> {
    Ok(services)
}

fn compare() -> Result<()> {
    let rounds = setting("BENCH_ROUNDS", 9)?;
    let time = Duration::from_secs(setting("BENCH_SECONDS", 2)?);
    let own = std::process::id().to_string();
    let mut pin = Command::new("taskset");
    pin.args(["-pc", "1", &own]).stdout(Stdio::null()).stderr(Stdio::null());
    let pinned = pin.status().is_ok_and(|status| status.success());
    if !pinned {
        println!("taskset (util-linux) cannot pin to core 1: server and load share the cores");
    }
    let mut table: [Vec<(f64, Outcome)>; 2] = [Vec::new(), Vec::new()];
    let mut capacities = Vec::new();
    for _ in 0..rounds {
        let folder = tempfile::tempdir()?;
        let server = Server::start(pinned, folder.path())?;
        load(server.address, IN_FLIGHT, None, time / 4)?;
        let capacity = load(server.address, IN_FLIGHT, None, time)?;
        if capacity.refused > 0.0 {
            return Err("requests were refused within the capacity".into());
        }
        capacities.push(capacity.good);
        for (row, times) in table.iter_mut().zip([2.0, 5.0]) {
            let outcome = load(server.address, CONNECTIONS, Some(capacity.good * times), time)?;
            row.push((outcome.good / capacity.good, outcome));
        }
    }
    println!(
        "{rounds} rounds of {time:?}, http.max_in_flight {IN_FLIGHT}; capacity: {:.0} requests a second",
        median(capacities.into_iter())
    );
    println!(
        "{:<8} {:>10} {:>10} {:>10} {:>8} {:>14} {:>14}",
        "asked", "sent/s", "200/s", "503/s", "ratio", "/ping, median", "/ping, longest"
    );
    for (row, times) in table.iter().zip(["2 times", "5 times"]) {
        let of = |figure: fn(&Outcome) -> f64| median(row.iter().map(|(_, outcome)| figure(outcome)));
        println!(
            "{times:<8} {:>10.0} {:>10.0} {:>10.0} {:>8.2} {:>11.1} ms {:>11.1} ms",
            of(|outcome| outcome.sent),
            of(|outcome| outcome.good),
            of(|outcome| outcome.refused),
            median(row.iter().map(|(ratio, _)| *ratio)),
            of(|outcome| median(outcome.pings.iter().copied())),
            of(|outcome| outcome.pings.iter().copied().fold(0.0, f64::max)),
        );
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> Result<u64> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| format!("{name}={text} is not a whole number of 1 or more").into())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(pinned: bool, folder: &Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = if pinned { Command::new("taskset") } else { Command::new(&program) };
        if pinned {
            command.args(["-c", "0"]).arg(&program);
        }
        let log = folder.join("server.log");
        command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]).current_dir(folder);
        command.env(SERVES, "1").env("SERVER__HTTP__MAX_IN_FLIGHT", IN_FLIGHT.to_string());
        command.env("SERVER__LOGGING__CONSOLE__ENABLED", "false").env("SERVER__LOGGING__FILE__PATH", &log);
        let mut server = Self { child: command.spawn()?, address: "127.0.0.1:0".parse()? };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // The system chooses the port, and the log shows it.
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find(|line| line.contains("msg=listening"));
            if let Some(url) = line.and_then(|line| line.split("url=").nth(1)?.split(' ').next()) {
                server.address = url.trim_matches('"').trim_start_matches("http://").parse()?;
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the server did not start".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What has become of the requests.
struct Outcome {
    /// A second.
    sent: f64,
    /// Responses with 200, a second.
    good: f64,
    /// Responses with 503, a second.
    refused: f64,
    /// How long each `/ping` took, in milliseconds.
    pings: Vec<f64>,
}

/// Asks for this time, at this rate, or again as soon as there is a response. It polls its connections and never sleeps.
fn load(server: SocketAddr, connections: usize, rate: Option<f64>, time: Duration) -> Result<Outcome> {
    let mut connections =
        (0..connections).map(|_| Connection::open(server, "/work")).collect::<Result<Vec<_>>>()?;
    let mut ping = Connection::open(server, "/ping")?;
    let (mut sent, mut good, mut refused, mut pings) = (0_u64, 0_u64, 0_u64, Vec::new());
    let start = Instant::now();
    let mut ping_at = start;
    while start.elapsed() < time {
        for connection in &mut connections {
            match connection.status()? {
                Some(200) => good += 1,
                Some(503) => refused += 1,
                Some(other) => return Err(format!("/work: {other}").into()),
                None => {}
            }
            let due = rate.is_none_or(|rate| start.elapsed().as_secs_f64() * rate >= sent as f64);
            if !connection.is_waiting && due {
                connection.send()?;
                sent += 1;
            }
        }
        match ping.status()? {
            Some(200) => pings.push(ping_at.elapsed().as_secs_f64() * 1_000.0),
            Some(other) => return Err(format!("/ping: {other}").into()),
            None if ping.is_waiting && ping_at.elapsed() > PATIENCE => return Err("/ping: nothing".into()),
            None => {}
        }
        if !ping.is_waiting && ping_at.elapsed() >= PING_EVERY {
            ping_at = Instant::now();
            ping.send()?;
        }
    }
    if pings.is_empty() {
        return Err("/ping: no response".into());
    }
    let seconds = start.elapsed().as_secs_f64();
    // What is still in flight must not be so in the next measurement.
    for connection in &mut connections {
        while connection.is_waiting && start.elapsed() < time + PATIENCE {
            connection.status()?;
        }
    }
    let [sent, good, refused] = [sent, good, refused].map(|count| count as f64 / seconds);
    Ok(Outcome { sent, good, refused, pings })
}

struct Connection {
    stream: TcpStream,
    request: String,
    is_waiting: bool,
    response: Vec<u8>,
}

impl Connection {
    fn open(server: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Ok(Self { stream, request, is_waiting: false, response: Vec::with_capacity(4_096) })
    }

    fn send(&mut self) -> Result<()> {
        self.response.clear();
        self.is_waiting = true;
        // It fits into the empty send buffer of the kernel, so this does not block.
        Ok(self.stream.write_all(self.request.as_bytes())?)
    }

    /// The status of the response that was waited for, once all of it is here.
    fn status(&mut self) -> Result<Option<u16>> {
        if !self.is_waiting {
            return Ok(None);
        }
        let mut piece = [0; 4_096];
        match self.stream.read(&mut piece) {
            Ok(0) => return Err("closed before the response".into()),
            Ok(read) => self.response.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let Some(end) = self.response.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.response[..end])?;
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.ok_or("a response without a length")?.parse()?;
        if self.response.len() < end + 4 + length {
            return Ok(None);
        }
        self.is_waiting = false;
        Ok(Some(head.split(' ').nth(1).ok_or("no status")?.parse()?))
    }
}
