//! A holder whose time of day jumps: libfaketime changes it for one process, and leaves the monotonic clock alone.

use std::time::Instant;

use platform::testing::PATIENCE;

use super::TestLocks;
use super::child::Child;

/// How many times the holder looks after each jump: 30 times 100 ms are longer than the time to live.
const LOOKS: usize = 30;

fn a_holder_whose_clock_jumps_by_an_hour_keeps_its_lock(locks: &TestLocks) {
    let library = std::env::var("TEST_FAKETIME")
        .expect("TEST_FAKETIME names no libfaketime.so.1; `make test-all` looks for it");
    let clock = locks.folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut holder = Child::start_with(&locks.settings, "watch", &variables);
    let mut look = || {
        let line = holder.read_line();
        let (valid, now) = line.split_once(' ').unwrap();
        (valid == "true", now.parse::<u64>().unwrap())
    };
    let (valid, begun) = look();
    assert!(valid);
    for (jump, expected) in [("+1h", 3_600), ("-1h", -3_600)] {
        std::fs::write(&clock, jump).unwrap();
        // The control: its clock does jump. Some lines may have been on their way. It cannot miss it: the library reads the file
        // each time that somebody asks for the time, and this waits for it.
        let is_there = |now: u64| (now.cast_signed() - begun.cast_signed() - expected).abs() < 600;
        let start = Instant::now();
        while !is_there(look().1) {
            assert!(start.elapsed() < PATIENCE, "the clock has not jumped");
        }
        assert!((0..LOOKS).all(|_| look().0), "{jump}: the lease was lost");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(super::is_held(&locks.open(), "a")));
}

mod file {
    #[test]
    #[ignore = "needs libfaketime: make test-all"]
    fn a_holder_whose_clock_jumps_by_an_hour_keeps_its_lock() {
        super::a_holder_whose_clock_jumps_by_an_hour_keeps_its_lock(&super::TestLocks::file());
    }
}

#[cfg(feature = "etcd")]
mod on_etcd {
    #[test]
    #[ignore = "needs libfaketime and etcd: make test-all"]
    fn a_holder_whose_clock_jumps_by_an_hour_keeps_its_lock() {
        super::a_holder_whose_clock_jumps_by_an_hour_keeps_its_lock(&super::TestLocks::etcd());
    }
}
