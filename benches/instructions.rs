//! Instructions per request through the whole stack, counted by callgrind. Unlike time, this figure is the same in
//! every run.
//!
//! There is no socket: a request is made, passed to the middleware and all that it calls (file log on, store in
//! memory), and the response body is read. Each figure is the difference between two runs, divided by the difference in
//! their numbers of requests, so that the start of the program does not count. Making the request does count, on both
//! sides.
//!
//! `cargo bench --bench instructions`; without valgrind it fails and says so. To see the cost of a part, turn it off:
//! `SERVER__HTTP__ETAG=false cargo bench --bench instructions`. `… -- profile stack 'GET /nowhere' 5000` runs one case
//! without callgrind, for any profiler. A route whose example was removed is reported as not measured.

#![expect(clippy::print_stdout, reason = "the table is the product of this program")]

mod bare;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use platform::cli::Flags;
use platform::config::{self, Service};
use platform::http::{Peer, Stack};
use platform::logging::{Identity, Logging};
use server::app;
use tower::ServiceExt as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The app, as `main` hands it to the platform.
const SERVICE: Service = Service { name: "bench", ..server::SERVICE };

/// The number of requests in the longer run, unless `BENCH_REQUESTS` says otherwise: enough to average the cost of
/// growing maps, and some seconds under callgrind. The other run has a ninth of them.
const REQUESTS: u64 = 4_500;

/// The routes, with the names that the table shows. `/ping` is there without any example.
const CASES: [&str; 5] = ["GET /ping", "GET /cors", "GET /addresses/{id}", "POST /addresses", NOWHERE];
/// No server has this path.
const NOWHERE: &str = "GET /nowhere";

fn main() -> ExitCode {
    // cargo bench passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => count_all(),
        ["profile", side, case, requests] => run(side, case, requests),
        _ => Err("arguments: none, or: profile stack|bare CASE REQUESTS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count_all() -> Result<()> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err("valgrind is missing; install it (Debian: apt-get install valgrind)".into());
    }
    println!("{:<22} {:>20} {:>10} {:>7}", "route", "instructions/request", "bare axum", "ratio");
    let templates = route_templates()?;
    for case in CASES {
        if !templates.iter().any(|template| case.ends_with(template)) && case != NOWHERE {
            println!("{case:<22} not measured: its example was removed");
            continue;
        }
        let (stack, bare) = (per_request("stack", case)?, per_request("bare", case)?);
        println!("{case:<22} {stack:>20} {bare:>10} {:>7}", hundredths(stack * 100 / bare));
    }
    Ok(())
}

/// The templates of all routes of the real server.
fn route_templates() -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let server = runtime.block_on(Real::start(folder.path()))?;
    Ok(server.0.routes().iter().map(|route| route.template.clone()).collect())
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

fn per_request(side: &str, case: &str) -> Result<u64> {
    let (few, many) = requests()?;
    Ok((count(side, case, many)? - count(side, case, few)?) / (many - few))
}

/// The numbers of requests in the two runs.
fn requests() -> Result<(u64, u64)> {
    let many = match std::env::var("BENCH_REQUESTS") {
        Ok(text) => text.parse().map_err(|error| format!("BENCH_REQUESTS={text}: {error}"))?,
        Err(_) => REQUESTS,
    };
    let many = many.max(9);
    Ok((many / 9, many))
}

/// The instructions of a whole run, in all threads.
fn count(side: &str, case: &str, requests: u64) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["profile", side, case, &requests.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(format!("{side} {case}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    // The last line with this prefix has the sum of all.
    let text = fs::read_to_string(out)?;
    let total = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals: "))
        .ok_or("callgrind counted nothing")?;
    Ok(total.trim().parse()?)
}

fn run(side: &str, case: &str, requests: &str) -> Result<()> {
    let requests: u64 = requests.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if side == "bare" {
            let server = Bare(bare::router()?);
            return repeat(&server, case, bare::ID, requests).await;
        }
        let folder = tempfile::tempdir()?;
        let server = Real::start(folder.path()).await?;
        let id = server.add_entry().await?.unwrap_or_default();
        repeat(&server, case, &id, requests).await
    })
}

/// One of the two sides. It responds to a request without a socket.
trait Respond {
    async fn respond(&self, request: Request) -> Response;
}

struct Bare(Router);

impl Respond for Bare {
    async fn respond(&self, request: Request) -> Response {
        let Ok(response) = self.0.clone().oneshot(request).await;
        response
    }
}

struct Real(Arc<Stack>, Peer);

impl Respond for Real {
    async fn respond(&self, request: Request) -> Response {
        Arc::clone(&self.0).respond(Some(self.1.clone()), request).await
    }
}

impl Real {
    async fn start(folder: &Path) -> Result<Self> {
        let log = folder.join("server.log");
        let environment = [
            ("SERVER__STORE__URL", OsString::from("memory:")),
            ("SERVER__LOGGING__CONSOLE__ENABLED", OsString::from("false")),
            ("SERVER__LOGGING__FILE__PATH", log.into()),
            ("SERVER__AUTH__KEY_FILE", folder.join("auth.key").into()), // example: accounts
        ];
        let fixed = environment.map(|(name, value)| (OsString::from(name), value));
        let given = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SERVER__"));
        let environment: Vec<_> = given.chain(fixed).collect();
        let config =
            config::load::<app::settings::Settings>(&Flags::default(), environment, &SERVICE)?.config;
        let logging =
            Logging::start(&config.logging, &Identity { service: config.server.name.clone(), worker: None })?;
        let stack = app::app().open(&config, logging).await?.stack();
        Ok(Self(stack, Peer::new(SocketAddr::from(([127, 0, 0, 1], 40_000)))))
    }

    /// Stores an entry and returns its id. `None` when the address book was removed.
    async fn add_entry(&self) -> Result<Option<String>> {
        let response = self.respond(request("POST /addresses", "")?).await;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let location = response.headers().get(LOCATION).ok_or("no location of the new entry")?.to_str()?;
        Ok(Some(location.trim_start_matches("/addresses/").to_owned()))
    }
}

/// A request as a program sends it: the headers of curl.
fn request(case: &str, id: &str) -> Result<Request> {
    let (method, path) = case.split_once(' ').ok_or("a case is a method and a path")?;
    let request = Request::builder()
        .method(method)
        .uri(path.replace("{id}", id))
        .header(HOST, "localhost")
        .header(USER_AGENT, "curl/8")
        .header(ACCEPT, "*/*");
    if method == Method::POST {
        return Ok(request.header(CONTENT_TYPE, "application/json").body(Body::from(bare::ENTRY))?);
    }
    Ok(request.body(Body::empty())?)
}

async fn repeat(server: &impl Respond, case: &str, id: &str, requests: u64) -> Result<()> {
    let expected = match case {
        "POST /addresses" => StatusCode::CREATED,
        NOWHERE => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    for _ in 0..requests {
        let response = server.respond(request(case, id)?).await;
        if response.status() != expected {
            return Err(format!("{case}: {}", response.status()).into());
        }
        response.into_body().collect().await?;
    }
    Ok(())
}
