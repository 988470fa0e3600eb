//! What the operating system allows the process.

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::http::Settings;

/// How many files the process may open. Each connection is one. A server raises its limit as far as it may.
pub(super) fn open_files(http: &Settings) -> Finding {
    judge(getrlimit(Resource::Nofile).maximum, http.max_connections.get(), http.reserved_files.get())
}

fn judge(limit: Option<u64>, max_connections: u64, reserved: u64) -> Finding {
    const SUBJECT: &str = "open files";
    let Some(limit) = limit else { return Finding::ok(SUBJECT, "no limit") };
    let needed = max_connections.saturating_add(reserved);
    let remedy = format!(
        "raise it to {needed} (systemd: LimitNOFILE=, Docker: --ulimit nofile=, a shell: ulimit -n), or lower \
         http.max_connections"
    );
    if limit < reserved * 2 {
        return Finding::failed(
            SUBJECT,
            format!("the limit is {limit}: too few for the server itself"),
            remedy,
        );
    }
    if limit < needed {
        let text = format!(
            "the limit is {limit}: enough for {} connections, and not for the {max_connections} of \
             http.max_connections",
            limit - reserved
        );
        return Finding::note(SUBJECT, text, remedy);
    }
    Finding::ok(SUBJECT, format!("the limit is {limit}"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_limit_is_too_low_for_the_server_or_for_its_connections_or_high_enough() {
        let level = |limit| judge(limit, 1_000, 128).level;
        assert_eq!(level(Some(255)), Level::Failed);
        assert_eq!(level(Some(256)), Level::Note);
        assert_eq!(level(Some(1_127)), Level::Note);
        assert_eq!(level(Some(1_128)), Level::Ok);
        assert_eq!(level(None), Level::Ok);
    }
}
