//! SIGHUP: new workers with a new configuration.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;

use platform::testing::{Program, TestServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::clients::Clients;
use super::{is_alive, signal, start, until, workers};

/// How many reloads there are, in a long run and otherwise.
fn reloads() -> usize {
    if std::env::var("TEST_LONG").is_ok_and(|long| long == "1") { 50 } else { 5 }
}

#[test]
fn rolling_reloads_under_load_lose_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "3", "");
    let clients = Clients::start(server.address);
    for number in 0..reloads() {
        let old = workers(&server);
        server.signal(if number % 2 == 0 { "HUP" } else { "USR2" });
        server.wait_for_line(" reloaded ");
        until(|| workers(&server).iter().all(|(worker, pid)| old[worker] != *pid));
    }
    until(|| clients.served() > 100);
    let (count, failed) = clients.stop();
    assert!(failed.is_empty(), "{} of {count} failed: {failed:#?}", failed.len());
    // The control: these clients notice workers that end without a successor. It cannot miss it: half of them have a connection
    // to one of these workers, and go on until a request has failed.
    let clients = Clients::start(server.address);
    until(|| clients.are_at_work());
    for pid in workers(&server).into_values() {
        signal("KILL", pid.into());
    }
    until(|| clients.failed() > 0);
    until(|| workers(&server).into_values().all(is_alive));
    assert!(!clients.stop().1.is_empty());
}

#[test]
fn a_reload_takes_the_new_configuration_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let yaml = |workers: u32| format!("server: {{processes: {workers}}}\n");
    fs::write(&file, yaml(2)).unwrap();
    let mut server = crate::support::PROGRAM.start_in(folder.path(), &["--config", "a.yaml"]);
    until(|| workers(&server).len() == 2);
    let old = workers(&server);

    fs::write(&file, "http: {body_limt: 1MiB}\n").unwrap();
    server.signal("HUP");
    let line = server.wait_for_line("no reload");
    assert!(line.contains("a.yaml:1") && line.contains("body_limit"), "{line}");
    assert_eq!(workers(&server), old);
    // A worker that is replaced has the configuration that the supervisor has, not that of the file.
    signal("KILL", old[&1].into());
    until(|| workers(&server)[&1] != old[&1]);
    assert_eq!(workers(&server)[&2], old[&2]);
    assert!(server.connect().send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").read_response().contains(" 200 "));

    for count in [3, 1, 2] {
        fs::write(&file, yaml(count)).unwrap();
        server.signal("HUP");
        server.wait_for_line(&format!(" reloaded workers={count}"));
        until(|| workers(&server).iter().all(|(worker, pid)| is_alive(*pid) == (*worker <= count)));
    }
    fs::write(&file, format!("server: {{processes: 2, port: {}}}\n", server.address.port())).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_new_worker_that_cannot_start_ends_the_reload_and_the_old_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "2", "");
    let old = workers(&server);
    fs::write(folder.path().join("a.yaml"), "store: {url: 'sqlite:/dev/null/a'}\n").unwrap();
    server.signal("HUP");
    server.wait_for_line("the reload has ended");
    assert!(workers(&server) == old && old.values().all(|worker| is_alive(*worker)));
    fs::write(folder.path().join("a.yaml"), "").unwrap();
    server.signal("HUP");
    server.wait_for_line(" reloaded ");
}

/// The file that a process runs: its device and its number, also when another file has taken its name. None when the process has
/// ended.
fn running(process: u32) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{process}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Puts a copy of the program, one byte longer, in the place of a file, and returns which file that is. Other processes
/// write it: no child of this one may have it open for writing, or it could not be run.
fn replace(program: &Path) -> (u64, u64) {
    let new = program.with_extension("new");
    let script = "cp \"$1\" \"$2\" && printf x >>\"$2\" && mv \"$2\" \"$3\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(env!("CARGO_BIN_EXE_server")).arg(&new).arg(program);
    assert!(command.status().unwrap().success());
    let file = fs::metadata(program).unwrap();
    (file.dev(), file.ino())
}

#[test]
fn usr2_takes_the_program_that_is_on_the_disk_and_hup_keeps_the_one_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let first = replace(&path);
    fs::write(folder.path().join("a.yaml"), "").unwrap();
    let program = Program::new(path.to_str().unwrap().to_owned().leak());
    let mut server = program.start_in(folder.path(), &["--proc", "2", "--config", "a.yaml"]);
    until(|| workers(&server).len() == 2);
    let all_run =
        |server: &TestServer, file| workers(server).values().all(|worker| running(*worker) == Some(file));
    assert!(all_run(&server, first));

    let second = replace(&path);
    assert_ne!(first, second);
    let renew = |server: &mut TestServer, signal| {
        let old = workers(server);
        server.signal(signal);
        server.wait_for_line(" reloaded ");
        until(|| workers(server).iter().all(|(worker, pid)| old[worker] != *pid));
    };
    // The control.
    renew(&mut server, "HUP");
    assert!(all_run(&server, first));
    renew(&mut server, "USR2");
    assert!(all_run(&server, second));
    assert_eq!(running(server.process_id()), Some(first));

    // A worker that is replaced runs what the others run, and not what has come since.
    let third = replace(&path);
    let old = workers(&server)[&1];
    signal("KILL", old.into());
    until(|| workers(&server)[&1] != old);
    renew(&mut server, "HUP");
    assert!(all_run(&server, second));
    renew(&mut server, "USR2");
    assert!(all_run(&server, third));

    // A file that is no program ends the reload, and nothing else.
    fs::write(folder.path().join("text"), "no program").unwrap();
    fs::rename(folder.path().join("text"), &path).unwrap();
    let old = workers(&server);
    server.signal("USR2");
    server.wait_for_line("the reload has ended");
    assert!(workers(&server) == old && old.values().all(|worker| is_alive(*worker)));
}

#[test]
fn usr2_follows_the_link_by_which_the_program_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let inodes = ["first", "second"].map(|release| {
        fs::create_dir(folder.path().join(release)).unwrap();
        replace(&folder.path().join(release).join("program"))
    });
    let link = |release: &str| {
        symlink(release, folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), folder.path().join("current")).unwrap();
    };
    link("first");
    // As a person starts it, relative to the folder.
    let program = Program::new("current/program");
    let mut server = program.start_in(folder.path(), &["--proc", "2"]);
    until(|| workers(&server).len() == 2);
    assert_eq!(running(server.process_id()), Some(inodes[0]));

    link("second");
    server.signal("USR2");
    let line = server.wait_for_line("reloading");
    assert!(line.contains("second/program"), "{line}");
    server.wait_for_line(" reloaded ");
    until(|| workers(&server).values().all(|worker| running(*worker) == Some(inodes[1])));
}

/// How many of 50 clients that have connected get no response when the first of two listeners is closed.
async fn lost_clients(leaving: TcpListener, staying: TcpListener) -> usize {
    let address = staying.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    drop(leaving);
    staying.set_nonblocking(true).unwrap();
    let staying = tokio::net::TcpListener::from_std(staying).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = staying.accept().await {
            client.write_all(b"x").await.unwrap();
        }
    });
    let mut lost = 0;
    for mut client in clients {
        lost += usize::from(client.read_u8().await.is_err());
    }
    serving.abort();
    lost
}

/// Why the workers share one socket: with a listener for each, what waits to be accepted is lost with its listener. That none
/// of 50 clients waits there has one chance in 2^50: the kernel chooses by a hash of their ports.
#[tokio::test]
async fn a_listener_of_each_worker_would_lose_connections_and_a_shared_one_loses_none() {
    let listen = |port: u16| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        socket.listen(128).unwrap().into_std().unwrap()
    };
    let (one, own) = (listen(0), |one: &TcpListener| listen(one.local_addr().unwrap().port()));
    let other = own(&one);
    assert!(lost_clients(one, other).await > 0);
    let one = listen(0);
    let shared = one.try_clone().unwrap();
    assert_eq!(lost_clients(one, shared).await, 0);
}
