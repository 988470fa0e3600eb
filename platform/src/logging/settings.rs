//! The section `logging`: the sinks, each with its level and its format. The defaults and the manual are in
//! `defaults/logging.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::level::Threshold;
use crate::setting::{Count, Size, Span};

/// The section `logging`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The terminal, or the program that collects the output of the process.
    pub console: Console,
    /// A file, rotated.
    pub file: LogFile,
    /// A syslog server, reached by UDP.
    pub udp: Udp,
    /// The syslog daemon of this machine.
    pub syslog: LocalSyslog,
    /// Loggers (targets of `tracing`) with a level of their own.
    pub levels: BTreeMap<String, Threshold>,
    /// The most that one sink holds while its output is slow; further records are dropped and counted. The lower bound
    /// leaves room for a few long records, the upper bound finds typing errors.
    pub buffer: Size<16_384, 1_073_741_824>,
    /// How long records are collected before they are written together.
    pub flush_delay: Span<0, 1_000>,
}

/// `logging.console`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Whether this sink is on.
    pub enabled: bool,
    /// The least severe level that is written.
    pub level: Threshold,
    /// The format of a record.
    pub format: Format,
    /// Standard output or standard error.
    pub stream: Stream,
}

/// `logging.file`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Whether this sink is on.
    pub enabled: bool,
    /// The path; its folder is created when it is missing.
    #[serde(deserialize_with = "file_path")]
    pub path: PathBuf,
    /// The least severe level that is written.
    pub level: Threshold,
    /// The format of a record.
    pub format: Format,
    /// When a new file is started.
    pub rotation: Rotation,
    /// The largest file, for rotation by size. With smaller files, rotation would be most of the work.
    pub max_size: Size<65_536, 1_099_511_627_776>,
    /// The number of older files that are kept.
    pub max_files: Count<1, 1_000>,
}

fn file_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.file_name().is_none() {
        return Err(D::Error::custom(format_args!("'{}' names no file", path.display())));
    }
    Ok(path)
}

/// `logging.udp`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Udp {
    /// Name or address of the server; empty: none.
    pub host: String,
    /// Its port.
    pub port: Count<1, 65_535>,
    /// The least severe level that is sent.
    pub level: Threshold,
    /// The format of the message part.
    pub format: Format,
    /// The format of the packet.
    pub protocol: Protocol,
    /// The syslog facility.
    pub facility: Facility,
    /// The largest packet. Every receiver must accept 480 bytes (RFC 5424 §6.1); UDP over IPv4 carries at most 65,507.
    pub max_message: Size<480, 65_507>,
}

/// `logging.syslog`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSyslog {
    /// Whether this sink is on.
    pub enabled: bool,
    /// The least severe level that is sent.
    pub level: Threshold,
    /// The format of the message part.
    pub format: Format,
    /// The syslog facility.
    pub facility: Facility,
}

/// The format of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `key=value` pairs, for `grep` and for programs.
    Logfmt,
    /// One JSON object a line.
    Json,
    /// Short lines for people.
    Human,
}

/// A stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// When a new file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// When the file would become too large: `server.log`, then `server.log.1`, and so on to the oldest.
    Size,
    /// Every hour (UTC): `server.log.2026-11-21-05`.
    Hourly,
    /// Every day (UTC): `server.log.2026-11-21`.
    Daily,
}

/// The protocol of a syslog packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The Syslog Protocol.
    Rfc5424,
    /// BSD syslog.
    Rfc3164,
}

/// The syslog facilities that a service can use (RFC 5424 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum Facility {
    User,
    Daemon,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}
