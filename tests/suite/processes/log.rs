//! The log of several processes.

use std::collections::BTreeMap;
use std::fs;

use super::start;

const CLIENTS: usize = 8;

/// How many requests each client sends, in a long run and otherwise.
fn requests() -> usize {
    if std::env::var("TEST_LONG").is_ok_and(|long| long == "1") { 12_500 } else { 1_250 }
}

#[test]
fn every_line_of_four_workers_is_whole_and_there_once_while_files_are_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "4", "logging: {file: {max_size: 64KiB, max_files: 1000}}\n");
    let address = server.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            std::thread::spawn(move || {
                let mut connection = platform::testing::Connection::open(address);
                for number in 0..requests() {
                    let head = format!("GET /nowhere/{client}/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
                    connection.send(head).read_response();
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));

    let (mut seen, mut files) = (BTreeMap::<String, usize>::new(), 0);
    for entry in fs::read_dir(folder.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{}", path.display());
        files += usize::from(!text.is_empty());
        for line in text.lines() {
            assert!(line.starts_with("time=") && line.matches("time=").count() == 1, "{line}");
            if let Some(path) = super::field(line, "path") {
                assert!(line.ends_with("error=\"Unknown Endpoint\""), "{line}");
                *seen.entry(path.to_owned()).or_default() += 1;
            }
        }
    }
    assert!(files > 10, "{files} files: not much was rotated");
    assert_eq!(seen.len(), CLIENTS * requests());
    assert!(seen.values().all(|times| *times == 1), "a line is there twice");

    // The console is a pipe here, as in a container.
    let lines = server.remaining_lines();
    let whole = |line: &&String| {
        line.starts_with("20")
            && line.matches("server.access").count() == 1
            && line.ends_with("error=\"Unknown Endpoint\"")
    };
    let requests_of = |line: &&String| line.contains("/nowhere/");
    assert_eq!(
        lines.iter().filter(requests_of).filter(whole).count(),
        lines.iter().filter(requests_of).count()
    );
    assert_eq!(lines.iter().filter(requests_of).count(), CLIENTS * requests());
}
