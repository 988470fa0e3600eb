//! CPU time per request over loopback: this server and a bare axum server with the same routes, compared in one run.
//!
//! Both servers run on core 0, in turns, and the load comes from core 1, so that both run under the same conditions.
//! The real server is the released program, with its file log on and its store in memory. The bare server is
//! `bare/mod.rs` behind `axum::serve`. The figure is the CPU time of the server process with all its threads, as the
//! scheduler counts it; elapsed time says less on a shared machine. The benchmark asserts nothing about time.
//!
//! Each route is measured under two loads. The first sends requests at a rate that both servers can serve, as in normal
//! operation: then most of the cost of a request is to wake the server. The second sends a request as soon as the
//! previous response has arrived: then no process sleeps, and only the work itself is left. The last columns of the
//! table show whether the rate was reached.
//!
//! `/ping` exists without any example and is not logged. The last route compares with a bare server that sends the same
//! headers as the real one: they are part of the product, and so is the cost of sending them.
//!
//! The speed of a shared machine changes by a third within a second. So there are many short rounds, the servers take
//! turns at being first, and the result is the median of the ratios of all rounds. Half of the rounds are between the
//! quartiles, which show how reliable the result is.
//!
//! Each round starts both servers again, with an empty log. A log that grows through all rounds needs memory that a
//! virtual machine may have to request from its host, at ten times the cost: docs/PERFORMANCE.md has the figures.
//!
//! `cargo bench --bench http`. Variables: `BENCH_REQUESTS` (20000 in a round without pause, a quarter of it at a rate),
//! `BENCH_ROUNDS` (25), `BENCH_RATE` (20000 requests a second; 0 skips that load).

#![expect(clippy::print_stdout, reason = "the table is the product of this program")]
#![expect(clippy::cast_precision_loss, reason = "nanoseconds and counts, far below 2^52")]

mod bare;
mod bare_proxy;

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::{Router, routing};
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// Enough to keep the server busy, and as few as a service behind a load balancer has.
const CONNECTIONS: u64 = 16;
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // cargo bench passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => compare(),
        ["bare", headers, upstream] => serve_bare(headers, upstream.parse().ok()),
        ["load", address, path, length, requests, rate] => load(address, path, length, requests, rate),
        _ => Err("arguments: none".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<()> {
    // At least one for each connection, also in the load at a rate, which is a quarter of them.
    let requests = setting("BENCH_REQUESTS", 20_000, 4 * CONNECTIONS)?;
    let rounds = setting("BENCH_ROUNDS", 25, 1)?;
    // About a ninth of what the bare server does without pause.
    let rate = setting("BENCH_RATE", 20_000, 0)?;
    let pinned =
        Command::new("taskset").args(["-c", LOAD_CORE, "true"]).status().is_ok_and(|status| status.success());
    if !pinned {
        println!("taskset (util-linux) cannot pin to core {LOAD_CORE}: servers and load share the cores");
    }
    let paced = (rate > 0).then_some(Load { requests: requests / 4, rate });
    let loads: Vec<Load> = paced.into_iter().chain([Load { requests, rate: 0 }]).collect();
    let mut rows: Vec<Row> =
        ROUTES.iter().flat_map(|route| loads.iter().map(|load| Row::new(route, *load))).collect();
    // The upstream shares its core with the load: no rate is reached.
    rows.retain(|row| row.load.rate == 0 || !row.route.is_proxied());
    for round in 0..rounds {
        let pair = Pair::start(pinned)?;
        for row in &mut rows {
            row.samples.extend(pair.measure(round, row.route, row.load)?);
        }
    }
    println!(
        "{requests} requests a round without pause, {} at a rate; {rounds} rounds, {CONNECTIONS} connections; \
         medians: CPU of the server per request, and the ratio of a round with its quartiles",
        requests / 4
    );
    println!(
        "{:<16} {:<10} {:>9} {:>9} {:>6} {:>12} {:>12} {:>12}",
        "route", "load", "bare µs", "server µs", "ratio", "quartiles", "bare req/s", "server req/s"
    );
    rows.iter().for_each(Row::print);
    Ok(())
}

/// One route of both servers, and its name in the table.
struct Route {
    name: &'static str,
    /// Its path on the bare server and on the real one. `{id}` stands for the id of the stored entry, `{bare}` for that of
    /// a bare one.
    paths: [&'static str; 2],
}

impl Route {
    /// Whether it leads to another server, through this one and through a bare proxy of hyper.
    fn is_proxied(&self) -> bool {
        self.paths[0].starts_with("/proxy/")
    }
}

const ROUTES: [Route; 5] = [
    Route { name: "/ping", paths: ["/ping", "/ping"] },
    Route { name: "/cors", paths: ["/cors", "/cors"] },
    Route { name: "/addresses/{id}", paths: ["/addresses/{id}", "/addresses/{id}"] },
    Route { name: "/cors, headers", paths: ["/headers", "/cors"] },
    Route { name: "/proxy, hyper", paths: ["/proxy/addresses/{bare}", "/proxy/addresses/{bare}"] },
];

/// The number of requests, and how many are sent in a second; 0 sends the next one as soon as a response has arrived.
#[derive(Clone, Copy)]
struct Load {
    requests: u64,
    rate: u64,
}

impl Load {
    fn name(self) -> String {
        if self.rate == 0 { "no pause".to_owned() } else { format!("{}/s", self.rate) }
    }
}

fn setting(name: &str, default: u64, least: u64) -> Result<u64> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{name}={text} is not a whole number of {least} or more").into())
}

/// One line of the table.
struct Row {
    route: &'static Route,
    load: Load,
    samples: Vec<[Sample; 2]>,
}

impl Row {
    fn new(route: &'static Route, load: Load) -> Self {
        Self { route, load, samples: Vec::new() }
    }

    fn print(&self) {
        let Self { route: Route { name, .. }, load, samples } = self;
        if samples.is_empty() {
            return println!("{name:<16} {:<10} not measured: its example was removed", load.name());
        }
        let micros = [0, 1].map(|side| quartile(samples.iter().map(|pair| pair[side].micros), 2));
        let per_second = [0, 1].map(|side| quartile(samples.iter().map(|pair| pair[side].per_second), 2));
        let ratios = samples.iter().map(|[bare, real]| real.micros / bare.micros);
        let ratio = |quarters| quartile(ratios.clone(), quarters);
        println!(
            "{name:<16} {:<10} {:>9.2} {:>9.2} {:>6.2} {:>12} {:>12.0} {:>12.0}",
            load.name(),
            micros[0],
            micros[1],
            ratio(2),
            format!("{:.2} to {:.2}", ratio(1), ratio(3)),
            per_second[0],
            per_second[1]
        );
    }
}

/// The value below which this many quarters of all values are. Two quarters give the median.
fn quartile(values: impl Iterator<Item = f64>, quarters: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * quarters / 4).copied().unwrap_or(f64::NAN)
}

#[derive(Clone, Copy)]
struct Sample {
    /// Microseconds of CPU time of the server per request.
    micros: f64,
    per_second: f64,
}

/// Both servers of one round, the bare one first. Each has stored the entry.
struct Pair {
    servers: [Server; 2],
    ids: [String; 2],
    pinned: bool,
    _upstream: Server,
    _folder: TempDir,
}

impl Pair {
    fn start(pinned: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let upstream = Server::bare(pinned, LOAD_CORE, "", None)?;
        let real = Server::real(pinned, folder.path(), upstream.address)?;
        let headers = exchange(real.address, &get("/cors"))?;
        let bare = Server::bare(pinned, SERVER_CORE, &headers, Some(upstream.address))?;
        let entry = add_entry(real.address)?.unwrap_or_default();
        let ids = [bare::ID.to_owned(), entry];
        Ok(Self { servers: [bare, real], ids, pinned, _upstream: upstream, _folder: folder })
    }

    /// One round of load on each server, the bare one first in every second round. `None` if the real one lacks it.
    fn measure(&self, round: u64, route: &Route, load: Load) -> Result<Option<[Sample; 2]>> {
        let paths =
            [0, 1].map(|side| route.paths[side].replace("{id}", &self.ids[side]).replace("{bare}", bare::ID));
        if is_missing(self.servers[1].address, &paths[1])? {
            return Ok(None);
        }
        let length =
            [0, 1].map(|side| body_length(self.servers[side].address_of(&paths[side]), &paths[side]));
        let [length, real] = [length[0].as_ref(), length[1].as_ref()];
        if real.ok() != length.ok() {
            return Err(format!("{}: the two responses differ: {length:?} {real:?}", route.name).into());
        }
        let length = *length.map_err(ToString::to_string)?;
        let measure = |side: usize, load| self.servers[side].measure(self.pinned, &paths[side], length, load);
        for side in [0, 1] {
            measure(side, Load { requests: load.requests / 4, rate: 0 })?;
        }
        if round.is_multiple_of(2) {
            return Ok(Some([measure(0, load)?, measure(1, load)?]));
        }
        let real = measure(1, load)?;
        Ok(Some([measure(0, load)?, real]))
    }
}

/// A server as a process of its own.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Of the proxy, where that is another one.
    proxy: Option<SocketAddr>,
}

impl Server {
    /// `headers` is a response of the real server. The route `/headers` of the bare one sends the same headers. With an
    /// upstream there is a proxy beside it.
    fn bare(pinned: bool, core: &str, headers: &str, upstream: Option<SocketAddr>) -> Result<Self> {
        let mut command = on_core(pinned, core, &std::env::current_exe()?);
        let upstream = upstream.map_or_else(String::new, |address| address.to_string());
        let mut child = command.args(["bare", headers, &upstream]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (address, proxy) = line.trim().split_once(' ').ok_or("not two addresses")?;
        Ok(Self { child, address: address.parse()?, proxy: Some(proxy.parse()?) })
    }

    fn address_of(&self, path: &str) -> SocketAddr {
        self.proxy.filter(|_| path.starts_with("/proxy/")).unwrap_or(self.address)
    }

    fn real(pinned: bool, folder: &Path, upstream: SocketAddr) -> Result<Self> {
        let log = folder.join("server.log");
        let child = on_core(pinned, SERVER_CORE, Path::new(env!("CARGO_BIN_EXE_server")))
            .args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"])
            .env("SERVER__LOGGING__CONSOLE__ENABLED", "false")
            .env("SERVER__LOGGING__FILE__PATH", &log)
            .env("SERVER__AUTH__KEY_FILE", folder.join("auth.key")) // example: accounts
            .env("SERVER__UPSTREAMS__REVERSE_PROXY__URL", format!("http://{upstream}"))
            .spawn()?;
        let mut server = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), proxy: None };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // The system chooses the port, and the log shows it.
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains("msg=listening")) {
                let url =
                    line.split("url=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
                server.address = url.trim_matches('"').trim_start_matches("http://").parse()?;
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the server did not start".into())
    }

    /// One round of load on this server.
    fn measure(&self, pinned: bool, path: &str, length: usize, load: Load) -> Result<Sample> {
        let Load { requests, rate } = load;
        let before = cpu_nanos(self.child.id())?;
        let load = on_core(pinned, LOAD_CORE, &std::env::current_exe()?)
            .args(["load", &self.address_of(path).to_string(), path, &length.to_string()])
            .args([requests.to_string(), rate.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !load.status.success() {
            return Err(format!("the load on {path} failed").into());
        }
        let cpu = cpu_nanos(self.child.id())? - before;
        let seconds: f64 = String::from_utf8(load.stdout)?.trim().parse()?;
        let requests = requests as f64;
        Ok(Sample { micros: cpu as f64 / 1_000.0 / requests, per_second: requests / seconds })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_core(pinned: bool, core: &str, program: &Path) -> Command {
    if !pinned {
        return Command::new(program);
    }
    // taskset replaces itself by the program, so the process keeps its id.
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// CPU time of a process in nanoseconds: the first number of each of its threads (proc(5), `schedstat`).
fn cpu_nanos(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

/// The bare server and the bare proxy: prints their addresses and serves until it is killed.
fn serve_bare(headers: &str, upstream: Option<SocketAddr>) -> Result<()> {
    // The same runtime as in the real server: one worker for each core that it may use, which is one core.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{} {}", listener.local_addr()?, proxy.local_addr()?);
        if let Some(upstream) = upstream {
            tokio::spawn(bare_proxy::serve(proxy, upstream));
        }
        let router = bare::router()?.merge(with_headers(headers)?);
        // axum::serve leaves Nagle's algorithm on by default; the real server turns it off.
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

/// A route `/headers` whose empty response has the headers of the given response, except those that hyper writes. Names
/// and values are static, as in the real server: the reference counter of a shared value costs more than the value.
fn with_headers(response: &str) -> Result<Router> {
    let mut headers = HeaderMap::new();
    for line in response.lines().skip(1).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").ok_or("a header without a value")?;
        if !["connection", "content-length", "date"].contains(&name) {
            let name = HeaderName::from_static(String::from(name).leak());
            headers.append(name, HeaderValue::from_static(String::from(value).leak()));
        }
    }
    // axum clones the handler, with all that it holds, for every request.
    let headers = Arc::new(headers);
    Ok(Router::new().route("/headers", routing::get(async move || HeaderMap::clone(&headers))))
}

/// Sends one request at a time on each connection. Prints how many seconds it took.
///
/// It polls its connections in turn and never sleeps. To wake a sleeping client costs the server some microseconds, and
/// the two servers would find the client asleep more or less often.
fn load(address: &str, path: &str, length: &str, requests: &str, rate: &str) -> Result<()> {
    let (address, length, requests, rate): (SocketAddr, usize, u64, f64) =
        (address.parse()?, length.parse()?, requests.parse()?, rate.parse()?);
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n");
    let start = Instant::now();
    let due = |sent: u64| rate == 0.0 || start.elapsed().as_secs_f64() * rate >= sent as f64;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address)?);
    }
    let (mut sent, mut received) = (0, 0);
    while received < requests {
        for connection in &mut connections {
            if connection.is_waiting && connection.has_response(length)? {
                received += 1;
            }
            if !connection.is_waiting && sent < requests && due(sent) {
                connection.send(request.as_bytes())?;
                sent += 1;
            }
        }
    }
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}

struct Connection {
    stream: TcpStream,
    is_waiting: bool,
    response: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, is_waiting: false, response: Vec::with_capacity(16_384) })
    }

    fn send(&mut self, request: &[u8]) -> Result<()> {
        self.response.clear();
        self.is_waiting = true;
        // Some hundred bytes fit into the empty send buffer of the kernel, so this does not block.
        Ok(self.stream.write_all(request)?)
    }

    /// Reads what has arrived. True when the response is complete.
    fn has_response(&mut self, length: usize) -> Result<bool> {
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece) {
            Ok(0) => return Err("closed before the response".into()),
            Ok(read) => self.response.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match body_received(&self.response)? {
            Some(body) if body > length => Err(format!("{body} bytes of body for {length}").into()),
            body => {
                self.is_waiting = body != Some(length);
                Ok(!self.is_waiting)
            }
        }
    }
}

/// How many bytes of the body have arrived; `None` before the end of the head. Any status but 200 is an error.
fn body_received(response: &[u8]) -> Result<Option<usize>> {
    let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    if !response.starts_with(b"HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(&response[..end]).into());
    }
    Ok(Some(response.len() - end - 4))
}

/// A GET request that closes the connection.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn exchange(address: SocketAddr, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

fn is_missing(address: SocketAddr, path: &str) -> Result<bool> {
    Ok(exchange(address, &get(path))?.starts_with("HTTP/1.1 404 "))
}

/// The length of the response body of this path.
fn body_length(address: SocketAddr, path: &str) -> Result<usize> {
    let response = exchange(address, &get(path))?;
    body_received(response.as_bytes())?.ok_or_else(|| "no response".into())
}

/// Stores the entry in the real server and returns its id. `None` when the address book was removed.
fn add_entry(address: SocketAddr) -> Result<Option<String>> {
    let length = bare::ENTRY.len();
    let head = format!(
        "POST /addresses HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}"
    );
    let response = exchange(address, &format!("{head}\r\n\r\n{}", bare::ENTRY))?;
    if response.starts_with("HTTP/1.1 404 ") {
        return Ok(None);
    }
    let location = response.lines().find_map(|line| line.strip_prefix("location: /addresses/"));
    Ok(Some(location.ok_or_else(|| format!("not stored: {response}"))?.trim().to_owned()))
}
