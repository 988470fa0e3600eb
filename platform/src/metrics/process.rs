//! What this process uses, as Linux tells it; nothing elsewhere.

use std::fmt::Write as _;
use std::fs;

/// The figures, as text.
pub(super) fn page() -> String {
    let mut text = String::new();
    let Some(used) = Used::read() else { return text };
    let mut figure = |name: &str, kind: &str, help: &str, value: f64| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    figure("process_cpu_seconds_total", "counter", "Time on a CPU.", used.cpu);
    figure("process_resident_memory_bytes", "gauge", "Memory in use.", used.memory);
    figure("process_threads", "gauge", "Threads.", used.threads);
    figure("process_open_fds", "gauge", "Open file descriptors.", used.descriptors);
    text
}

struct Used {
    cpu: f64,
    memory: f64,
    threads: f64,
    descriptors: f64,
}

impl Used {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may have spaces. proc_pid_stat(5) numbers the fields from 1; the first
        // one after it is the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let (ticks, page) =
            (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as f64);
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as f64;
        Some(Self {
            cpu: (field(14)? + field(15)?) / ticks,
            memory: field(24)? * page,
            threads: field(20)?,
            descriptors,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_figures_of_this_process_are_there() {
        let used = super::Used::read().unwrap();
        assert!(used.cpu >= 0.0 && used.memory > 1e6 && used.threads >= 1.0 && used.descriptors >= 3.0);
        assert!(super::page().contains("\nprocess_open_fds "));
    }
}
