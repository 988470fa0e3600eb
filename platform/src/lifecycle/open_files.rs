//! How many files the process may open (`ulimit -n`), and how many connections it has therefore.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::Settings;

/// Raises the limit as far as the process may, and has no more connections than that allows: without it, 1,008 idle clients
/// would take what the store and the log need.
pub(super) fn fit(http: &mut Settings) {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        // It is as low as 1,024 for programs that still use select(2).
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(target: "server", limit = before.current, %error, "cannot raise the limit of open files");
        }
    }
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let configured = http.max_connections.get();
    http.fit_files(limit);
    let (connections, reserved) = (http.max_connections.get(), http.reserved_files.get());
    if connections < configured {
        tracing::warn!(
            target: "server", limit, reserved, connections, configured,
            "the limit of open files allows fewer connections than http.max_connections"
        );
    }
}
