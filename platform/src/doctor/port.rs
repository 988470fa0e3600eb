//! Whether the port is free, and who has it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::http;
use crate::setting::Host;

/// Every port that the configuration has.
pub(super) async fn all<A>(config: &Config<A>) -> Vec<Finding> {
    let server = &config.server;
    let mut findings = vec![examine("port", "server.port", &server.host, server.port.get()).await];
    if let Some(address) = config.metrics.listen.0
        && let Ok(host) = Host::parse(&address.ip().to_string())
    {
        findings.push(examine("metrics port", "metrics.listen", &host, u64::from(address.port())).await);
    }
    let redirect = &server.tls.redirect;
    if server.ssl && redirect.enabled {
        let key = "server.tls.redirect.port";
        findings.push(examine("redirect port", key, &server.host, redirect.port.get()).await);
    }
    findings
}

/// Listens on the port for a moment. `key` is its setting.
async fn examine(subject: &'static str, key: &str, host: &Host, port: u64) -> Finding {
    let address = format!("{}:{port}", host.in_url());
    let port = u16::try_from(port).unwrap_or_default();
    let error = match http::server::bind(host.as_str(), port, 1, false).await {
        Ok(_) if port == 0 => {
            return Finding::note(
                subject,
                format!("{address}: any free one is taken, another one at each start"),
                format!("set {key}, so that others know where the server is"),
            );
        }
        Ok(_) => return Finding::ok(subject, format!("{address} is free")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::AddrInUse => in_use(subject, key, &address, port),
        ErrorKind::PermissionDenied => Finding::failed(
            subject,
            format!("{address}: {error}"),
            format!("choose a port from 1024 in {key}, or give the program CAP_NET_BIND_SERVICE"),
        ),
        _ => Finding::failed(
            subject,
            format!("cannot listen on {address}: {error}"),
            "set server.host or metrics.listen to an address of this machine, or to 0.0.0.0 for all of them",
        ),
    }
}

fn in_use(subject: &'static str, key: &str, address: &str, port: u16) -> Finding {
    match owner(Path::new("/proc"), port) {
        Owner::Itself(id) => Finding::note(
            subject,
            format!("{address} is in use by this server itself (process {id})"),
            "nothing, if it is meant to run; `server healthcheck` asks it whether it is ready",
        ),
        Owner::Process(id, name) => Finding::failed(
            subject,
            format!("{address} is in use by '{name}' (process {id})"),
            format!("end that process, or choose another port in {key}"),
        ),
        Owner::Hidden => Finding::failed(
            subject,
            format!("{address} is in use by a process that this user cannot see"),
            format!("ask again as root for its name, or choose another port in {key}"),
        ),
    }
}

/// Who listens on a port.
enum Owner {
    /// A process of this program, by its id.
    Itself(u32),
    /// Another process, with its name.
    Process(u32, String),
    /// A process of another user, of another container, or of a system without /proc.
    Hidden,
}

/// Looks for the processes that have a listening socket of this port. Of a supervisor and its workers, which share one, it
/// is the oldest.
fn owner(proc: &Path, port: u16) -> Owner {
    let tables =
        ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(proc.join(table)).unwrap_or_default());
    let sockets: Vec<PathBuf> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| listening_inode(line, port))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    let has_one = |id: u32| {
        let files = fs::read_dir(proc.join(id.to_string()).join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| sockets.contains(&target))
    };
    let ids = fs::read_dir(proc).into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let Some(id) = ids.filter(|id| has_one(*id)).min() else { return Owner::Hidden };
    let process = proc.join(id.to_string());
    let program = |process: &Path| {
        let path = fs::read_link(process.join("exe")).ok()?;
        // What the kernel adds when the file has been replaced, by a new release for example.
        Some(path.to_str()?.trim_end_matches(" (deleted)").to_owned())
    };
    if program(&process).is_some_and(|theirs| Some(theirs) == program(&proc.join("self"))) {
        return Owner::Itself(id);
    }
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Owner::Process(id, name.trim_end().to_owned())
}

/// The inode of the socket that a line of /proc/net/tcp is about, if it listens on this port.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    /// The state of a socket that listens, `TCP_LISTEN`.
    const LISTENS: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let is_it = state == LISTENS && u16::from_str_radix(local, 16) == Ok(port);
    words.nth(5).filter(|_| is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "  0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4242 1 x 100";
        assert_eq!(listening_inode(line, 5000), Some("4242"));
        assert_eq!(listening_inode(line, 5001), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 5000), None);
        assert_eq!(listening_inode("  sl  local_address rem_address   st tx_queue rx_queue", 5000), None);
    }

    #[tokio::test]
    async fn a_port_that_this_program_has_is_its_own() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let host = Host::parse("127.0.0.1").unwrap();
        let finding = examine("port", "server.port", &host, u64::from(port)).await;
        let own = format!("by this server itself (process {})", std::process::id());
        assert!(finding.text.ends_with(&own) && !finding.has_failed(), "{finding:?}");
        drop(taken);
        // The control.
        let finding = examine("port", "server.port", &host, u64::from(port)).await;
        assert_eq!(
            (finding.level, finding.text),
            (super::super::Level::Ok, format!("127.0.0.1:{port} is free"))
        );
    }

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_is_named() {
        // 192.0.2.0/24 is reserved for documentation (RFC 5737).
        let finding = examine("port", "server.port", &Host::parse("192.0.2.1").unwrap(), 5000).await;
        assert!(finding.has_failed() && finding.text.contains("192.0.2.1:5000"), "{finding:?}");
    }
}
