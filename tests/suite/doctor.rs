//! `server doctor` and `server healthcheck`, through the program: each finding with its fault made for real.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use platform::testing::{PATIENCE, TestPair};

use crate::support::PROGRAM;

/// What the program has said, and how it has ended.
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
    }

    /// The line of a finding, with the one below it.
    fn finding(&self, subject: &str) -> (&str, &str) {
        let mut lines = self.out.lines();
        let found = lines.find(|line| line.get(8..).is_some_and(|rest| rest.starts_with(subject)));
        let found = found.unwrap_or_else(|| panic!("no finding on {subject} in {}{}", self.out, self.error));
        (found, lines.next().unwrap_or_default())
    }

    /// Whether this is the one finding that failed, says this, and has a remedy.
    fn has_failed_with(&self, subject: &str, parts: &[&str]) {
        let (line, remedy) = self.finding(subject);
        assert!(line.starts_with("FAILED") && parts.iter().all(|part| line.contains(part)), "{}", self.out);
        assert!(remedy.trim_start().starts_with("-> "), "{}", self.out);
        let failed = self.out.lines().filter(|line| line.starts_with("FAILED")).count();
        assert_eq!((self.code, failed), (Some(1), 1), "{}", self.out);
    }
}

/// A port at which nothing listens.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn doctor_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let port = free_port();
    let address = if arguments.contains(&"--port") { &[][..] } else { &["--port", &port] };
    let arguments = [&["doctor", "--host", "127.0.0.1"], address, arguments].concat();
    Said::of(PROGRAM.run(folder, &arguments, environment))
}

fn doctor(folder: &Path, arguments: &[&str]) -> Said {
    doctor_with(folder, arguments, &[])
}

/// All paths below a folder.
fn paths(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(paths(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn before_the_first_start_all_is_well_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let said = doctor(folder.path(), &["--db_url", "file:var/documents"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.error);
    for subject in ["port", "store", "locks", "cache", "log file", "disk space", "clock"] {
        assert!(said.finding(subject).0.starts_with("ok "), "{subject}: {}", said.out);
    }
    assert!(said.finding("certificate").0.contains("HTTPS is off"), "{}", said.out);
    assert!(said.out.ends_with("\n0 of 9 failed\n"), "{}", said.out);
    assert_eq!(paths(folder.path()), [""; 0]);
}

#[test]
fn beside_a_running_server_it_makes_its_round_trips_and_leaves_no_document() {
    let server = PROGRAM.start(&["--db_url", "file:var/documents"]);
    let port = server.address.port().to_string();
    // The lock files, which the server has not used yet.
    fs::create_dir_all(server.folder.join("var/locks")).unwrap();
    let said = doctor(&server.folder, &["--db_url", "file:var/documents", "--port", &port]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.error);
    let own = format!("in use by this server itself (process {})", server.process_id());
    assert!(said.finding("port").0.contains(&own), "{}", said.out);
    assert!(said.finding("store").0.contains("a document was written, read and deleted"), "{}", said.out);
    assert!(said.finding("locks").0.contains("a lock was acquired and released"), "{}", said.out);
    let left: Vec<_> = paths(&server.folder).into_iter().filter(|path| path.contains("doctor-")).collect();
    assert_eq!(left, [""; 0]);
}

#[cfg(feature = "sqlite")]
#[test]
fn a_file_of_sqlite_is_written_and_one_that_is_damaged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Made by a server.
    let mut server = PROGRAM.start_in(folder.path(), &["--db_url", "sqlite:var/a.sqlite"]);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let said = doctor(folder.path(), &["--db_url", "sqlite:var/a.sqlite"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.error);
    assert!(said.finding("store").0.contains("a document was written, read and deleted"), "{}", said.out);
    fs::write(folder.path().join("var/b.sqlite"), "no database ".repeat(1_000)).unwrap();
    doctor(folder.path(), &["--db_url", "sqlite:var/b.sqlite"])
        .has_failed_with("store", &["sqlite:var/b.sqlite", "not an SQLite database"]);
}

#[test]
fn a_port_that_another_program_has_is_named_with_that_program() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = doctor(folder.path(), &["--db_url", "memory:", "--port", &port]);
    let own_name = fs::read_to_string("/proc/self/comm").unwrap();
    let owner = format!("in use by '{}' (process {})", own_name.trim_end(), std::process::id());
    said.has_failed_with("port", &[&port, &owner]);
    // The port of the metrics, and that of the redirect to HTTPS.
    let address = format!("127.0.0.1:{port}");
    let said = doctor_with(folder.path(), &["--db_url", "memory:"], &[("SERVER__METRICS__LISTEN", &address)]);
    said.has_failed_with("metrics port", &[&port, &owner]);
    assert!(said.finding("metrics port").1.contains("in metrics.listen"), "{}", said.out);
    TestPair::for_this_machine().write(folder.path());
    let redirect =
        [("SERVER__SERVER__TLS__REDIRECT__ENABLED", "true"), ("SERVER__SERVER__TLS__REDIRECT__PORT", &port)];
    let said = doctor_with(folder.path(), &["--db_url", "memory:", "--ssl"], &redirect);
    said.has_failed_with("redirect port", &[&port, &owner]);
    assert!(said.finding("redirect port").1.contains("in server.tls.redirect.port"), "{}", said.out);
}

/// A file in the place of a folder: root may write to any folder.
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taken"), "").unwrap();
    doctor_with(
        folder.path(),
        &["--db_url", "memory:"],
        &[("SERVER__LOGGING__FILE__PATH", "taken/server.log")],
    )
    .has_failed_with("log file", &["taken/server.log", "Not a directory"]);
    // The log file itself.
    fs::create_dir(folder.path().join("folder.log")).unwrap();
    doctor_with(folder.path(), &["--db_url", "memory:"], &[("SERVER__LOGGING__FILE__PATH", "folder.log")])
        .has_failed_with("log file", &["folder.log", "Is a directory"]);
    doctor_with(folder.path(), &["--db_url", "memory:"], &[("SERVER__LOCK__DIR", "taken")])
        .has_failed_with("locks", &["taken"]);
    doctor_with(folder.path(), &["--db_url", "memory:"], &[("SERVER__LOCK__DIR", "taken/locks")])
        .has_failed_with("locks", &["taken", "Not a directory"]);
    doctor(folder.path(), &["--db_url", "file:taken/documents"])
        .has_failed_with("store", &["file:taken/documents", "Not a directory"]);
}

#[cfg(all(feature = "etcd", feature = "mongodb", feature = "postgres", feature = "redis"))]
#[test]
fn a_server_that_is_down_is_named_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let time = ("SERVER__STORE__TIMEOUT", "500ms");
    for scheme in ["mongodb", "postgres"] {
        let url = format!("{scheme}://ada:hunter2@127.0.0.1:{port}/db");
        let said = doctor_with(folder.path(), &["--db_url", &url], &[time]);
        said.has_failed_with("store", &[&format!("{scheme}://ada:***@127.0.0.1:{port}/db")]);
        assert!(!said.out.contains("hunter2"), "{}", said.out);
    }
    let lock_server = ["--db_url", "memory:", "--lock_server", "--lock_server_host", "127.0.0.1"];
    let arguments = [&lock_server[..], &["--lock_server_port", &port]].concat();
    doctor_with(folder.path(), &arguments, &[("SERVER__LOCK__TIMEOUT", "500ms")])
        .has_failed_with("locks", &[&format!("etcd at 127.0.0.1:{port}")]);
    let url = format!("redis://127.0.0.1:{port}");
    doctor_with(folder.path(), &["--db_url", "memory:"], &[("REDIS_URL", &url)])
        .has_failed_with("cache", &[&url]);
}

#[test]
fn too_few_open_files_are_named_with_the_setting_that_raises_them() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let limited = |limit: u32| {
        let server = PROGRAM.command(folder.path());
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh").arg(server.get_program());
        shell.args(["doctor", "--host", "127.0.0.1", "--port", &port, "--db_url", "memory:"]);
        shell.env_clear().env("SERVER__HTTP__MAX_CONNECTIONS", "10000").current_dir(folder.path());
        Said::of(shell.output().unwrap())
    };
    let said = limited(100);
    said.has_failed_with("open files", &["100"]);
    assert!(said.finding("open files").1.contains("LimitNOFILE="), "{}", said.out);
    let said = limited(1_000);
    assert_eq!(
        (said.code, said.finding("open files").0.starts_with("note")),
        (Some(0), true),
        "{}",
        said.out
    );
}

#[test]
fn the_configuration_is_checked_first() {
    let folder = tempfile::tempdir().unwrap();
    let said = doctor(folder.path(), &["--db_url", "flie:x"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.error.contains("did you mean file:"), "{}", said.error);
}

#[test]
fn the_health_check_asks_the_server_of_the_same_configuration() {
    let server = PROGRAM.start(&["--db_url", "file:var/documents"]);
    let port = server.address.port().to_string();
    let check = |host: &str, environment: &[(&str, &str)]| {
        let arguments = ["healthcheck", "--host", host, "--port", &port];
        Said::of(PROGRAM.run(&server.folder, &arguments, environment))
    };
    // Also if it listens on all addresses.
    for host in ["127.0.0.1", "0.0.0.0"] {
        let said = check(host, &[]);
        assert_eq!((said.code, said.out), (Some(0), format!("http://127.0.0.1:{port}/ready: ready\n")));
    }
    fs::remove_dir_all(server.folder.join("var/documents")).unwrap();
    let said = check("127.0.0.1", &[]);
    assert_eq!((said.code, said.out.as_str(), said.error.lines().count()), (Some(1), "", 1));
    assert!(
        said.error.ends_with(&format!("http://127.0.0.1:{port}/ready: 503 not ready\n")),
        "{}",
        said.error
    );
    // It never ends with 2, which Docker reserves.
    let said = check("127.0.0.1", &[("SERVER__SERVER__PROT", "1")]);
    assert_eq!((said.code, said.error.lines().count()), (Some(1), 1), "{}", said.error);
}

#[test]
fn the_health_check_of_no_server_and_of_a_silent_one_fails_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let check = |port: &str| {
        let arguments = ["healthcheck", "--host", "127.0.0.1", "--port", port];
        Said::of(PROGRAM.run(folder.path(), &arguments, &[("SERVER__HEALTH__TIMEOUT", "10ms")]))
    };
    let said = check(&free_port());
    assert!(said.code == Some(1) && said.error.contains("refused"), "{}", said.error);
    let said = check("0");
    assert!(said.code == Some(1) && said.error.contains("server.port is 0"), "{}", said.error);
    // It accepts, and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = std::time::Instant::now();
    let said = check(&silent.local_addr().unwrap().port().to_string());
    assert!(said.code == Some(1) && said.error.contains("no response within"), "{}", said.error);
    assert!(begun.elapsed() < PATIENCE);
}

/// With the servers that `make test-all` starts: all is well, and twice, so the first one has left nothing in the way.
fn is_well_twice(environment: &[(&str, &str)], subject: &str, says: &str) {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let said = doctor_with(folder.path(), &[], environment);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.error);
        let (line, _) = said.finding(subject);
        assert!(line.starts_with("ok ") && line.contains(says), "{}", said.out);
        assert!(said.finding("clock").0.starts_with("ok "), "{}", said.out);
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server; `make test-all` starts one"))
}

mod on_mongodb {
    #[test]
    #[ignore = "needs MongoDB: make test-all"]
    fn its_store_makes_a_round_trip() {
        let url = super::variable("TEST_MONGODB_URI");
        super::is_well_twice(&[("MONGODB_URI", &url)], "store", "a document was written, read and deleted");
    }
}

mod on_postgres {
    #[test]
    #[ignore = "needs PostgreSQL: make test-all"]
    fn its_store_makes_a_round_trip() {
        let url = super::variable("TEST_POSTGRES_URL");
        super::is_well_twice(&[("DATABASE_URL", &url)], "store", "a document was written, read and deleted");
    }
}

mod on_redis {
    #[test]
    #[ignore = "needs Redis: make test-all"]
    fn its_cache_makes_a_round_trip() {
        let url = super::variable("TEST_REDIS_URL");
        let environment = [("REDIS_URL", url.as_str()), ("SERVER__STORE__URL", "memory:")];
        super::is_well_twice(&environment, "cache", "a value was kept, read and forgotten");
    }
}

mod on_etcd {
    #[test]
    #[ignore = "needs etcd: make test-all"]
    fn its_locks_make_a_round_trip() {
        let endpoint = super::variable("TEST_ETCD_ENDPOINT");
        let endpoints = format!("[{endpoint}]");
        let environment = [
            ("SERVER__STORE__URL", "memory:"),
            ("SERVER__LOCK__SERVER", "true"),
            ("SERVER__LOCK__ETCD__ENDPOINTS", &endpoints),
        ];
        super::is_well_twice(&environment, "locks", "a lock was acquired and released");
    }
}

mod on_mounts {
    use std::process::Command;

    /// A file system of 1 MB.
    #[test]
    #[ignore = "needs a disk of its own: make test-all"]
    fn a_disk_without_space_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&disk).status();
        assert!(mount.unwrap().success());
        let said = super::doctor(&disk, &["--db_url", "memory:"]);
        assert!(Command::new("umount").arg(&disk).status().unwrap().success());
        said.has_failed_with("disk space", &["MiB are free"]);
    }
}

#[test]
fn a_certificate_that_has_expired_is_missing_or_soon_expires_is_said() {
    const DAY: Duration = Duration::from_hours(24);
    let until = |end: SystemTime| {
        let folder = tempfile::tempdir().unwrap();
        TestPair::new(&["localhost"], |params| params.not_after = end.into()).write(folder.path());
        doctor(folder.path(), &["--ssl", "--db_url", "memory:"])
    };
    until(SystemTime::now() - DAY).has_failed_with("certificate", &["keys/public-key.pem", "expired"]);
    let none = tempfile::tempdir().unwrap();
    let said = doctor(none.path(), &["--ssl", "--db_url", "memory:"]);
    said.has_failed_with("certificate", &["keys/public-key.pem", "No such file"]);

    let soon = until(SystemTime::now() + DAY * 3 + DAY / 2);
    let (line, remedy) = soon.finding("certificate");
    assert!(line.contains("3 more days") && remedy.contains("replace it"), "{}", soon.out);
    // The control: with more of them, nothing is to be done.
    let later = until(SystemTime::now() + DAY * 90);
    assert!(later.finding("certificate").0.starts_with("ok "), "{}", later.out);
    assert_eq!((soon.code, later.code), (Some(0), Some(0)), "{}{}", soon.out, later.out);
}
