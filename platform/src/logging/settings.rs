//! The `logging:` section: where records go, how loud each sink is and in which format. The defaults and the
//! words for the reader are in `defaults/logging.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::level::Threshold;
use crate::setting::{Count, Size, Span};

/// The `logging:` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The terminal, or what collects the output of the process.
    pub console: Console,
    /// A file, rotated.
    pub file: LogFile,
    /// A syslog server that is reached by UDP.
    pub udp: Udp,
    /// The syslog daemon of this machine.
    pub syslog: LocalSyslog,
    /// Targets that are louder or quieter than the level of the sinks.
    pub levels: BTreeMap<String, Threshold>,
    /// What one sink holds for a reader that is slow; more is dropped and counted. The lower bound leaves room
    /// for a few long records, the upper one is there to find a typing error.
    pub buffer: Size<16_384, 1_073_741_824>,
    /// How long records are gathered before they are written together.
    pub flush_delay: Span<0, 1_000>,
}

/// `logging.console`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Whether there is one.
    pub enabled: bool,
    /// The quietest level that is written.
    pub level: Threshold,
    /// How a record looks.
    pub format: Format,
    /// Where it goes.
    pub stream: Stream,
}

/// `logging.file`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Whether there is one.
    pub enabled: bool,
    /// The file; its folder is made when it is missing.
    #[serde(deserialize_with = "file_path")]
    pub path: PathBuf,
    /// The quietest level that is written.
    pub level: Threshold,
    /// How a record looks.
    pub format: Format,
    /// When a new file is begun.
    pub rotation: Rotation,
    /// The largest file (rotation by size). Below the lower bound rotation would be most of the work.
    pub max_size: Size<65_536, 1_099_511_627_776>,
    /// How many older files are kept.
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
    /// The quietest level that is sent.
    pub level: Threshold,
    /// How the message part looks.
    pub format: Format,
    /// How the packet looks.
    pub protocol: Protocol,
    /// Under which heading the server files it.
    pub facility: Facility,
    /// The largest packet. 480: what every receiver must take (RFC 5424 §6.1); 65,507: what UDP over IPv4 carries.
    pub max_message: Size<480, 65_507>,
}

/// `logging.syslog`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSyslog {
    /// Whether records go there.
    pub enabled: bool,
    /// The quietest level that is sent.
    pub level: Threshold,
    /// How the message part looks.
    pub format: Format,
    /// Under which heading the daemon files it.
    pub facility: Facility,
}

/// How a record looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `key=value` pairs: for `grep`, and for machines.
    Logfmt,
    /// One JSON object a line.
    Json,
    /// Brief, for a person.
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

/// When a new file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// When the file would become too large: `server.log`, `server.log.1` … the oldest.
    Size,
    /// Every hour (UTC): `server.log.2026-11-21-05`.
    Hourly,
    /// Every day (UTC): `server.log.2026-11-21`.
    Daily,
}

/// Which syslog a packet speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The Syslog Protocol.
    Rfc5424,
    /// BSD syslog.
    Rfc3164,
}

/// The facilities of syslog that a service has use for (RFC 5424 §6.2.1).
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
