//! What an operator asks from a shell: `server doctor`, whether this machine and what the configuration names are fit for
//! the server; `server healthcheck`, whether the running server is ready.
//!
//! Nothing of it is part of a running server, and it changes nothing that lasts: what it writes it deletes again.

mod clock;
mod folders;
mod healthcheck;
mod machine;
mod parts;
mod port;

use std::io::{self, Write};

use crate::config::Config;
use crate::tls;

pub use healthcheck::healthcheck;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// To be known; the server works.
    Note,
    /// The server does not start, or does not do what the configuration says.
    Failed,
}

/// One line of the report.
#[derive(Debug)]
pub struct Finding {
    subject: &'static str,
    level: Level,
    /// What was found.
    text: String,
    /// What to do about it; empty when there is nothing to do.
    remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, level: Level::Ok, text: text.into(), remedy: String::new() }
    }

    fn note(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, level: Level::Note, text: text.into(), remedy: remedy.into() }
    }

    fn failed(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, level: Level::Failed, text: text.into(), remedy: remedy.into() }
    }

    /// Whether something is wrong.
    pub fn has_failed(&self) -> bool {
        self.level == Level::Failed
    }
}

/// Examines everything, in the order in which a start would need it.
pub async fn examine<A>(config: &Config<A>) -> Vec<Finding> {
    let watch = clock::Watch::start();
    let mut findings = port::all(config).await;
    findings.push(certificate(config.server.ssl, &config.server.tls));
    let (store, store_time) = parts::store(&config.store).await;
    findings.push(store);
    findings.push(parts::locks(&config.lock, &config.server.name).await);
    findings.push(parts::cache(&config.cache, &config.server.name).await);
    findings.push(machine::open_files(&config.http));
    findings.push(folders::log(&config.logging.file));
    findings.push(folders::disk_space(&folders::used(config)));
    // Last, so that the time of everything before it is watched.
    findings.push(watch.examine(&folders::used(config), store_time));
    findings
}

/// The certificate, and how many days it is valid.
fn certificate(ssl: bool, settings: &tls::Settings) -> Finding {
    if ssl {
        let file = settings.certificate.display();
        return match tls::Tls::load(settings) {
            Err(error) => Finding::failed("certificate", error.to_string(), "see docs/HTTPS.md"),
            Ok(tls) => {
                let text = format!("{file} is valid for {} more days", tls.days_left());
                if tls.expires_soon() {
                    Finding::note("certificate", text, "replace it; the server takes the new files by itself")
                } else {
                    Finding::ok("certificate", text)
                }
            }
        };
    }
    Finding::note(
        "certificate",
        "HTTPS is off: there is no certificate to look at",
        "where others reach this server, let a proxy in front of it speak HTTPS",
    )
}

/// A name that nobody else uses, for what is written for a moment.
fn unique() -> uuid::fmt::Simple {
    uuid::Uuid::now_v7().simple()
}

/// Writes the report: a line for each finding, below it what to do, and a last line with the sum.
pub fn write(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let width = findings.iter().map(|one| one.subject.len()).max().unwrap_or_default();
    for Finding { subject, level, text, remedy } in findings {
        let word = match level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Failed => "FAILED",
        };
        writeln!(out, "{word:6}  {subject:width$}  {text}")?;
        if !remedy.is_empty() {
            writeln!(out, "{:6}  {:width$}  -> {remedy}", "", "")?;
        }
    }
    let failed = findings.iter().filter(|one| one.has_failed()).count();
    writeln!(out, "{failed} of {} failed", findings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_a_line_for_each_finding_and_its_remedy_below_it() {
        let findings =
            [Finding::ok("port", "it is free"), Finding::failed("store", "it is down", "start it")];
        let mut report = Vec::new();
        write(&findings, &mut report).unwrap();
        let expected = "\
ok      port   it is free
FAILED  store  it is down
               -> start it
1 of 2 failed
";
        assert_eq!(String::from_utf8(report).unwrap(), expected);
    }
}
