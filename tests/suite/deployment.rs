//! What is shipped for Heroku is run here as Heroku runs it: the line of the Procfile, its variables, its signal.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use platform::testing::TestServer;

use crate::support::PROGRAM;

/// After SIGTERM, Heroku kills what has not ended.
const HEROKU_GRACE: Duration = Duration::from_secs(30);

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The line of the Procfile, with the program under test in the place of the one that Heroku builds.
fn web() -> String {
    let procfile = shipped("Procfile");
    let mut lines = procfile.lines().filter_map(|line| line.strip_prefix("web: "));
    let line = lines.next().expect("a line web: in the Procfile");
    assert_eq!(lines.next(), None, "one process type");
    let (program, arguments) = line.split_once(' ').unwrap();
    assert_eq!(program, "./target/release/server", "where the buildpack builds it");
    format!("{} {arguments}", env!("CARGO_BIN_EXE_server"))
}

/// A shell that runs the line, with the variables of a dyno.
fn dyno(folder: &Path, line: &str, port: u16, addons: &[(&str, &str)]) -> Command {
    let server = PROGRAM.command(folder);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {line}")]).env_clear().current_dir(folder);
    // What the tests set of the log.
    shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.envs([("DYNO", "web.1"), ("HOME", "/app"), ("LANG", "en_US.UTF-8"), ("PATH", "/usr/bin:/bin")]);
    shell.env("PORT", port.to_string()).envs(addons.iter().copied());
    shell
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts the dyno, sends requests to it, ends it as Heroku does. Returns its log.
fn runs_as_a_dyno(addons: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = TestServer::spawn(&mut dyno(folder.path(), &web(), port, addons), folder.path());
    // The router reaches a dyno from outside.
    assert_eq!(server.address.to_string(), format!("0.0.0.0:{port}"));
    for path in ["/ping", "/ready"] {
        let head = server.connect().send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).read_head();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    }
    // An idle connection of the router does not keep the dyno.
    let _idle = server.connect();
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < HEROKU_GRACE, "{:?}", begun.elapsed());
    server.log_file()
}

#[test]
fn the_line_of_the_procfile_serves_on_the_port_of_the_platform_and_ends_in_time() {
    let log = runs_as_a_dyno(&[("SERVER__STORE__URL", "memory:")]);
    assert!(log.contains("signal=SIGTERM"), "{log}");
}

/// What ends a dyno in time also with requests that never end: the two delays of the shutdown, and the second of each piece
/// of work at the end.
#[test]
fn the_delays_of_the_shutdown_are_below_those_of_the_platform() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        stdout(dyno(folder.path(), &format!("{} config", web()), free_port(), &[]).output().unwrap());
    let seconds = |key: &str| -> u64 {
        let line = config.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{key}: ")));
        let value = line.unwrap_or_else(|| panic!("{key} in {config}")).split([' ', '#']).next().unwrap();
        value.strip_suffix('s').unwrap_or_else(|| panic!("{key}: {value}")).parse().unwrap()
    };
    let sum = Duration::from_secs(seconds("linger") + seconds("deadline"));
    assert!(sum + Duration::from_secs(3) <= HEROKU_GRACE, "{sum:?}");
}

/// What Heroku sets a variable to: its value, or a secret of its own, 64 hexadecimal digits.
fn given(about: &serde_json::Value) -> &str {
    match about["generator"].as_str() {
        Some("secret") => "8f3c1e0a9b7d5264f1e8c3b0a7d6925e4f8c1b3a0e9d7c6b5a4f3e2d1c0b9a87",
        _ => about["value"].as_str().unwrap(),
    }
}

#[test]
fn the_buildpack_builds_every_engine_and_app_json_names_it() {
    let app: serde_json::Value = serde_json::from_str(&shipped("app.json")).unwrap();
    let buildpack = app["buildpacks"][0]["url"].as_str().unwrap();
    assert!(buildpack.ends_with("emk/heroku-buildpack-rust"), "{buildpack}");
    let flags = shipped("RustConfig");
    assert!(flags.contains("--release --locked --features full"), "{flags}");
    // Its variables are read: one that is not known stops the start.
    let folder = tempfile::tempdir().unwrap();
    let variables = app["env"].as_object().unwrap().iter();
    let variables: Vec<(&str, &str)> = variables.map(|(name, about)| (name.as_str(), given(about))).collect();
    assert!(!variables.is_empty());
    let line = format!("{} config", web());
    let config = stdout(dyno(folder.path(), &line, free_port(), &variables).output().unwrap());
    for (name, _) in variables {
        assert!(config.contains(name), "{name} sets nothing: {config}");
    }
}

/// The files of the targets that a manifest names.
fn targets(manifest: &str) -> Vec<String> {
    let tables = manifest.split("\n[[").skip(1).map(|table| {
        let (kind, rest) = table.split_once("]]").unwrap();
        let value = |key: &str| {
            let rest = rest.split("\n[").next().unwrap();
            rest.lines()
                .find_map(|line| line.strip_prefix(&format!("{key} = ")))
                .map(|text| text.trim_matches('"'))
        };
        let folder = match kind {
            "bench" => "benches",
            "example" => "examples",
            "test" => "tests",
            _ => "src/bin",
        };
        value("path").map_or_else(|| format!("{folder}/{}.rs", value("name").unwrap()), str::to_owned)
    });
    tables.collect()
}

/// Cargo refuses a manifest when a target that it names is not there. The layer of the dependencies has only stubs.
fn targets_without_a_stub(dockerfile: &str) -> Vec<String> {
    let mut all = targets(&shipped("Cargo.toml"));
    let of_the_platform = targets(&shipped("platform/Cargo.toml"));
    all.extend(of_the_platform.iter().map(|target| format!("platform/{target}")));
    assert!(all.len() > 5, "{all:?}");
    let stubs: Vec<&str> = dockerfile
        .split_once("RUN for target in ")
        .unwrap()
        .1
        .split(';')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    all.retain(|target| !stubs.contains(&target.as_str()));
    all
}

#[test]
fn the_dockerfile_has_a_stub_of_each_target_that_a_manifest_names() {
    let dockerfile = shipped("Dockerfile");
    assert_eq!(targets_without_a_stub(&dockerfile), [""; 0]);
    // The control.
    let without = dockerfile.replace("benches/http.rs", "");
    assert_eq!(targets_without_a_stub(&without), ["benches/http.rs"]);
}

/// Also without the examples: the build of an image ends at a folder that is not there.
#[test]
fn all_that_the_dockerfile_copies_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = shipped("Dockerfile");
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let sources =
        copies.filter(|copy| !copy.starts_with("--from")).map(|copy| copy.rsplit_once(' ').unwrap().0);
    let sources: Vec<&str> = sources.flat_map(str::split_whitespace).collect();
    assert!(sources.contains(&"views/"), "{sources:?}");
    for source in sources {
        assert!(root.join(source).exists(), "{source}");
    }
    // Its absence is a warning of each start.
    assert!(root.join("views/static").exists());
}

#[cfg(all(feature = "mongodb", feature = "postgres", feature = "redis"))]
mod with_addons {
    use super::*;

    fn variable(name: &str) -> String {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server; `make test-all` starts one"))
    }

    mod on_postgres {
        #[test]
        #[ignore = "needs PostgreSQL: make test-all"]
        fn its_url_is_the_store() {
            let url = super::variable("TEST_POSTGRES_URL");
            let log = super::runs_as_a_dyno(&[("DATABASE_URL", &url)]);
            assert!(log.contains("store=postgres"), "{log}");
        }
    }

    mod on_redis {
        #[test]
        #[ignore = "needs Redis: make test-all"]
        fn its_url_is_the_cache() {
            let url = super::variable("TEST_REDIS_URL");
            let required = ("SERVER__HEALTH__REQUIRED", "[store, cache]");
            super::runs_as_a_dyno(&[("SERVER__STORE__URL", "memory:"), ("REDIS_URL", &url), required]);
        }
    }

    mod on_mongodb {
        #[test]
        #[ignore = "needs MongoDB: make test-all"]
        fn the_five_variables_of_the_original_are_the_store() {
            let url = super::variable("TEST_MONGODB_URI");
            let address = url.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap();
            let (host, port) = address.rsplit_once(':').unwrap();
            // The stand-in for MongoDB takes no user.
            let log = super::runs_as_a_dyno(&[
                ("MONGODB_HOST", host),
                ("MONGODB_PORT", port),
                ("MONGODB_NAME", "test_heroku"),
                ("MONGODB_USER", ""),
                ("MONGODB_PASSWORD", ""),
            ]);
            assert!(log.contains("/test_heroku"), "{log}");
        }
    }
}
