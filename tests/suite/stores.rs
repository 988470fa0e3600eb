//! Stores on this machine, through the program: files of another user, names that surprise, who may read what.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use platform::testing::{Program, TestServer};

use crate::support::PROGRAM;

/// Debian's `nobody`.
const USER: u32 = 65_534;

/// Whether the tests run as root, who may write to any file.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The program as a user who is not root, in a folder of that user.
fn command(folder: &Path) -> Command {
    if !is_root() {
        return PROGRAM.command(folder);
    }
    chown(folder, Some(USER), Some(USER)).unwrap();
    // The folder of the build may be closed to others.
    let copy = folder.join("program");
    if !copy.exists() {
        // By another process: one that this one has open for writing is busy in the children of other tests.
        let copied = Command::new("cp").arg(PROGRAM.command(folder).get_program()).arg(&copy).status();
        assert!(copied.unwrap().success());
    }
    let mut command = Program::new(copy.to_str().unwrap().to_owned().leak()).command(folder);
    command.uid(USER).gid(USER);
    command
}

/// Only root may write it or, where the tests do not run as root, nobody.
fn close(path: &Path, mode: u32) {
    if is_root() {
        chown(path, Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The user of the server may write it.
fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if is_root() {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
}

fn serve(command: &mut Command, folder: &Path, url: &str) -> TestServer {
    TestServer::spawn(command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", url]), folder)
}

/// What a server says that does not start.
fn refused(command: &mut Command, url: &str) -> String {
    let output = command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", url]).output().unwrap();
    let Output { status, stderr, .. } = output;
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

#[cfg(feature = "sqlite")]
#[test]
fn a_file_beside_the_database_of_another_user_is_named_at_the_start() {
    const URL: &str = "sqlite:var/a.sqlite";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut server = serve(&mut command(folder), folder, URL);
    // So that the two files stay.
    server.signal("KILL");
    server.wait();
    for name in ["a.sqlite-wal", "a.sqlite-shm", "a.sqlite"] {
        let path = folder.join("var").join(name);
        close(&path, 0o444);
        let text = refused(&mut command(folder), URL);
        let owner = format!("it belongs to user {}", fs::metadata(&path).unwrap().uid());
        assert!(text.contains("cannot write ") && text.contains(&format!("/var/{name}: ")), "{text}");
        assert!(text.contains(&owner) && text.contains("chown"), "{text}");
        open(&path, 0o640);
    }
    // The control: with all files its own, it starts.
    let mut server = serve(&mut command(folder), folder, URL);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_folder_that_cannot_be_written_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let var = folder.join("var");
    fs::create_dir(&var).unwrap();
    close(&var, 0o555);
    for (url, expected) in [
        ("sqlite:var/a.sqlite", "cannot write to the folder var: "),
        ("sqlite:var/b/a.sqlite", "cannot make the folder var/b: "),
        ("file:var/documents", "cannot make the folder var/documents: "),
    ] {
        let text = refused(&mut command(folder), url);
        assert!(text.contains(expected), "{text}");
    }
    // A database whose log is not there yet.
    let file = var.join("a.sqlite");
    fs::write(&file, "").unwrap();
    open(&file, 0o640);
    let text = refused(&mut command(folder), "sqlite:var/a.sqlite");
    assert!(text.contains("cannot write to the folder ") && text.contains("/var, where SQLite"), "{text}");
    // The control.
    open(&var, 0o755);
    let mut server = serve(&mut command(folder), folder, "sqlite:var/a.sqlite");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

/// A backup, for example: it can be read.
#[test]
fn a_folder_of_documents_that_cannot_be_written_is_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (documents, tasks) = (folder.join("documents"), folder.join("documents/tasks"));
    fs::create_dir_all(&tasks).unwrap();
    let warnings = || {
        let mut server = serve(&mut command(folder), folder, "file:documents");
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        let lines = server.remaining_lines();
        lines.into_iter().filter(|line| line.contains("cannot be written")).collect::<Vec<_>>()
    };
    for closed in [&documents, &tasks] {
        open(&documents, 0o755);
        open(&tasks, 0o755);
        close(closed, 0o555);
        let found = warnings();
        let name = closed.strip_prefix(folder).unwrap().display();
        assert!(found.len() == 1 && found[0].contains(&format!("{name}: Permission denied")), "{found:?}");
    }
    // The control.
    open(&tasks, 0o755);
    assert_eq!(warnings(), [""; 0]);
}

/// Runs a copy beside the server; it must say that both are equal.
#[cfg(feature = "sqlite")]
fn copy(folder: &Path, arguments: &[&str]) {
    let arguments = [&["store", "copy"], arguments, &["--db_url", "sqlite:var/a.sqlite"]].concat();
    let output = PROGRAM.run(folder, &arguments, &[]);
    let text = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&text));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_backup_and_a_restore_by_copies_work_beside_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |store: &str, id: &str, text: &str| {
        let tasks = folder.join(store).join("tasks");
        fs::create_dir_all(&tasks).unwrap();
        let document = format!(r#"{{"id":"{id}","version":3,"token":9,"body":{{"text":"{text}"}}}}"#);
        fs::write(tasks.join(format!("{id}.json")), document).unwrap();
    };
    for id in ["a", "b"] {
        write("seed", id, "good");
    }
    for id in ["b", "c"] {
        write("mistake", id, "bad");
    }
    let _server = PROGRAM.start_in(folder, &["--db_url", "sqlite:var/a.sqlite"]);
    copy(folder, &["file:seed", "store.url"]);
    copy(folder, &["store.url", "file:backup"]);
    copy(folder, &["file:mistake", "store.url", "--overwrite"]);
    copy(folder, &["file:backup", "store.url", "--overwrite"]);
    copy(folder, &["store.url", "file:found"]);
    let found = |id: &str| fs::read_to_string(folder.join(format!("found/tasks/{id}.json")));
    for id in ["a", "b"] {
        let text = found(id).unwrap();
        assert!(
            text.contains("good") && text.contains("\"version\": 3") && text.contains("\"token\": 9"),
            "{text}"
        );
    }
    assert!(found("c").is_err());
    // The control: a backup with a damaged file is none.
    fs::write(folder.join("backup/tasks/b.json"), "").unwrap();
    let arguments =
        ["store", "copy", "file:backup", "store.url", "--overwrite", "--db_url", "sqlite:var/a.sqlite"];
    let output = PROGRAM.run(folder, &arguments, &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FROM, collection tasks: ") && text.contains("b.json is damaged"), "{text}");
}

/// The files below a folder, whatever their depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn nothing_that_the_server_creates_is_for_everybody() {
    let sqlite = if cfg!(feature = "sqlite") { Some("sqlite:var/a.sqlite") } else { None };
    for url in sqlite.into_iter().chain(["file:var/documents"]) {
        let folder = tempfile::tempdir().unwrap();
        let rolled = ("SERVER__LOGGING__FILE__ROTATION", "daily");
        let mut command = PROGRAM.command(folder.path());
        let mut server = serve(command.envs([rolled]), folder.path(), url);
        let port = server.address.port().to_string();
        // It writes documents, and takes a lock.
        let doctor = ["doctor", "--host", "127.0.0.1", "--port", &port, "--db_url", url];
        fs::create_dir_all(folder.path().join("var/locks")).unwrap();
        let output = PROGRAM.run(folder.path(), &doctor, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        let found = files(folder.path());
        for path in &found {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o137, 0, "{}: {mode:o}", path.display());
        }
        let has = |part: &str| found.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(has("var/locks/.token") && has("logs/server.log") && has("/var/"), "{found:?}");
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_url_with_two_readings_makes_no_new_store() {
    let folder = tempfile::tempdir().unwrap();
    let local = ["sqlite:x.sqlite?mode=ro", "sqlite:~/x", "sqlite:my%20x", "sqlite:///x", "sqlite:$HOME/x"];
    let files = ["file:x?mode=rwc", "file:~/x", "file://host/x", "file:my%20x"];
    let local = if cfg!(feature = "sqlite") { &local[..] } else { &[] };
    for url in local.iter().chain(&files) {
        let output = PROGRAM.run(folder.path(), &["--port", "0", "--db_url", url], &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{url}: {text}");
        assert!(text.contains(&format!("store.url '{url}': ")), "{text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{url}");
    }
}
