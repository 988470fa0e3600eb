//! What the log says of handshakes that fail.

use std::time::{Duration, Instant};

use platform::testing::{Connection, TestPair};

use super::start;

/// The number after `more=` in a line.
fn more(line: &str) -> usize {
    line.split(" more=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn handshakes_that_fail_have_one_line_a_second_which_counts_the_others() {
    let folder = tempfile::tempdir().unwrap();
    TestPair::for_this_machine().write(folder.path());
    let mut server = start(folder.path(), &[]);
    let begun = Instant::now();
    let fail = || Connection::open(server.address).send(b"\x16\x03\x01\x00\x01garbage").read_to_end();
    for _ in 0..300 {
        fail();
    }
    // One after a quiet second tells of all before it.
    std::thread::sleep(Duration::from_millis(1_100));
    fail();
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.remaining_lines();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("TLS handshake failed")).collect();
    assert!(lines.len() >= 2 && lines.len() <= seconds + 1, "{} lines in {seconds} s", lines.len());
    assert_eq!(lines.iter().map(|line| 1 + more(line)).sum::<usize>(), 301, "{lines:#?}");
    assert!(lines[0].contains(" peer=127.0.0.1:") && lines[0].contains(" error="), "{lines:#?}");
}
