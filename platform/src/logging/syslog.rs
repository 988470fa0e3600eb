//! Syslog: a server that is reached by UDP (`fasyslog` formats the packets), and the daemon of this machine
//! (`syslog-tracing` calls syslog(3)). Each record is one message.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use fasyslog::format::SyslogContext;
use fasyslog::{SDElement, Severity};
use syslog_tracing::{Options, Syslog};
use tracing::{Metadata, debug_span, error_span, trace_span, warn_span};
use tracing_subscriber::fmt::MakeWriter;

use super::batch::Batch;
use super::level::Level;
use super::settings::{Facility, Protocol, Udp};
use super::sink::{Failure, Output};
use crate::error::StartError;

/// The longest APP-NAME (RFC 5424 §6).
const MAX_APP_NAME: usize = 48;
/// The longest TAG (RFC 3164 §4.1.3).
const MAX_TAG: usize = 32;
/// The largest packet (RFC 3164 §4.1).
const MAX_RFC_3164: usize = 1_024;

/// Sends each record as one packet.
pub(super) struct UdpSyslog {
    host: String,
    port: u16,
    protocol: Protocol,
    max_message: usize,
    context: SyslogContext,
    socket: Option<UdpSocket>,
    packet: String,
}

impl UdpSyslog {
    /// Does not resolve the host yet: a slow name server must not delay the start.
    pub(super) fn new(settings: &Udp, service: &str) -> Self {
        let mut context = SyslogContext::new();
        let name = match settings.protocol {
            Protocol::Rfc5424 => app_name(service),
            Protocol::Rfc3164 => tag(service),
        };
        context.facility(facility(settings.facility)).appname(name);
        Self {
            host: settings.host.clone(),
            port: u16::try_from(settings.port.get()).unwrap_or(u16::MAX),
            protocol: settings.protocol,
            max_message: settings.max_message.as_usize(),
            context,
            socket: None,
            packet: String::new(),
        }
    }

    fn connect(&self) -> io::Result<UdpSocket> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("'{}' has no address", self.host));
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            let local: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            // A connected socket gets the error of a closed port.
            match UdpSocket::bind(local).and_then(|socket| socket.connect(address).map(|()| socket)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Formats the packet of a record. The crate adds the present time; the time of the record is in the message.
    fn format(&mut self, level: Level, record: &[u8]) {
        let (severity, record) = (severity(level), String::from_utf8_lossy(record));
        self.packet.clear();
        // Writing to a String cannot fail.
        let _ = match self.protocol {
            Protocol::Rfc5424 => {
                let (id, elements) = (None::<String>, Vec::<SDElement>::new());
                write!(self.packet, "{}", self.context.format_rfc5424(severity, id, elements, Some(record)))
            }
            Protocol::Rfc3164 => {
                write!(self.packet, "{}", self.context.format_rfc3164(severity, Some(record)))
            }
        };
        let longest = match self.protocol {
            Protocol::Rfc5424 => self.max_message,
            Protocol::Rfc3164 => self.max_message.min(MAX_RFC_3164),
        };
        self.packet.truncate(self.packet.floor_char_boundary(longest));
    }
}

impl Output for UdpSyslog {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().map_err(|error| Failure { lost: batch.len(), error })?,
        };
        let (mut lost, mut failed) = (0, None);
        for (level, record) in batch.records() {
            self.format(level, record);
            if let Err(error) = socket.send(self.packet.as_bytes()) {
                lost += 1;
                failed = Some(error);
            }
        }
        match failed {
            None => {
                self.socket = Some(socket);
                Ok(())
            }
            // The socket is dropped, so the next batch resolves the host again: the server may have moved.
            Some(error) => Err(Failure { lost, error }),
        }
    }

    fn destination(&self) -> String {
        format!("udp {}:{}", self.host, self.port)
    }
}

/// Gives each record to syslog(3).
pub(super) struct LocalSyslog {
    syslog: Syslog,
}

impl LocalSyslog {
    /// A process has one connection to syslog(3): a second call is refused.
    pub(super) fn open(at: Facility, service: &str, options: Options) -> Result<Self, StartError> {
        // `app_name` leaves no NUL, so this cannot fail.
        let identity = CString::new(app_name(service)).unwrap_or_default();
        Syslog::new(identity, options, local_facility(at))
            .map(|syslog| Self { syslog })
            .ok_or_else(|| StartError::failed("logging.syslog: this process already writes to syslog(3)"))
    }
}

impl Output for LocalSyslog {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        for (level, record) in batch.records() {
            let mut writer = match metadata(level) {
                Some(metadata) => self.syslog.make_writer_for(metadata),
                None => self.syslog.make_writer(),
            };
            // The writer sends the message when it is dropped. syslog(3) does not report failures.
            let _ = writer.write_all(record);
        }
        Ok(())
    }

    fn destination(&self) -> String {
        "syslog(3)".to_owned()
    }
}

/// The metadata from which the crate takes the severity. It wants the metadata of a callsite, and the only public way
/// to that is a span, enabled or not. The crate maps `info` to notice and `debug` to info, so the next lower level is
/// given for these: info and debug then have the severities that RFC 5424 calls so.
fn metadata(level: Level) -> Option<&'static Metadata<'static>> {
    match level {
        Level::Error => error_span!("syslog").metadata(),
        Level::Warn => warn_span!("syslog").metadata(),
        Level::Info => debug_span!("syslog").metadata(),
        Level::Debug | Level::Trace => trace_span!("syslog").metadata(),
    }
}

/// RFC 5424 §6.2.5: printable ASCII without spaces.
fn app_name(service: &str) -> String {
    let name: String = service.chars().filter(char::is_ascii_graphic).take(MAX_APP_NAME).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// RFC 3164 §4.1.3: a character that is not alphanumeric ends a tag. In practice receivers accept `-`, `_` and `.`, but
/// not the colon and the bracket, which come after the tag.
fn tag(service: &str) -> String {
    let name: String =
        service.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(MAX_TAG).collect();
    if name.is_empty() { "server".to_owned() } else { name }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::ERROR,
        Level::Warn => Severity::WARNING,
        Level::Info => Severity::INFORMATIONAL,
        Level::Debug | Level::Trace => Severity::DEBUG,
    }
}

fn facility(at: Facility) -> fasyslog::Facility {
    match at {
        Facility::User => fasyslog::Facility::USER,
        Facility::Daemon => fasyslog::Facility::DAEMON,
        Facility::Local0 => fasyslog::Facility::LOCAL0,
        Facility::Local1 => fasyslog::Facility::LOCAL1,
        Facility::Local2 => fasyslog::Facility::LOCAL2,
        Facility::Local3 => fasyslog::Facility::LOCAL3,
        Facility::Local4 => fasyslog::Facility::LOCAL4,
        Facility::Local5 => fasyslog::Facility::LOCAL5,
        Facility::Local6 => fasyslog::Facility::LOCAL6,
        Facility::Local7 => fasyslog::Facility::LOCAL7,
    }
}

fn local_facility(at: Facility) -> syslog_tracing::Facility {
    match at {
        Facility::User => syslog_tracing::Facility::User,
        Facility::Daemon => syslog_tracing::Facility::Daemon,
        Facility::Local0 => syslog_tracing::Facility::Local0,
        Facility::Local1 => syslog_tracing::Facility::Local1,
        Facility::Local2 => syslog_tracing::Facility::Local2,
        Facility::Local3 => syslog_tracing::Facility::Local3,
        Facility::Local4 => syslog_tracing::Facility::Local4,
        Facility::Local5 => syslog_tracing::Facility::Local5,
        Facility::Local6 => syslog_tracing::Facility::Local6,
        Facility::Local7 => syslog_tracing::Facility::Local7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::process::Command;
    use std::time::Duration;

    fn server() -> UdpSocket {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        server
    }

    fn client(server: &UdpSocket, protocol: &str) -> UdpSyslog {
        named_client(server, protocol, "my server\n", 480)
    }

    fn named_client(server: &UdpSocket, protocol: &str, name: &str, max_message: usize) -> UdpSyslog {
        let settings = json!({
            "host": "127.0.0.1", "port": server.local_addr().unwrap().port(), "level": "info", "format": "logfmt",
            "protocol": protocol, "facility": "local0", "max_message": max_message,
        });
        UdpSyslog::new(&serde_json::from_value(settings).unwrap(), name)
    }

    fn batch(records: &[(Level, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (level, record) in records {
            batch.push(*level, format!("{record}\n").as_bytes());
        }
        batch
    }

    fn packet(server: &UdpSocket) -> String {
        let mut buffer = [0; 4_096];
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_record_is_a_packet_of_rfc_5424() {
        let server = server();
        assert!(
            client(&server, "rfc5424").write(&batch(&[(Level::Warn, "a=1"), (Level::Info, "b=2")])).is_ok()
        );
        let first = packet(&server);
        // local0 is 16, warning 4: 16 * 8 + 4.
        let fields: Vec<_> = first.split(' ').collect();
        let [version, time, host, app, process, id, data, message] = fields[..] else { panic!("{first}") };
        assert_eq!((version, app, id, data, message), ("<132>1", "myserver", "-", "-", "a=1"));
        assert!(time.parse::<jiff::Timestamp>().is_ok() && !host.is_empty());
        assert_eq!(process, std::process::id().to_string());
        assert!(packet(&server).starts_with("<134>1 "));
    }

    #[test]
    fn a_record_is_a_packet_of_rfc_3164() {
        let server = server();
        assert!(client(&server, "rfc3164").write(&batch(&[(Level::Error, "a=1")])).is_ok());
        let packet = packet(&server);
        let (head, message) = packet.split_once(": ").unwrap();
        assert_eq!(message, "a=1");
        assert!(head.starts_with("<131>"), "{packet}");
        assert!(head.ends_with(&format!(" myserver[{}]", std::process::id())), "{packet}");
        // `Mmm dd hh:mm:ss`
        let time = &head["<131>".len()..][..15];
        assert!(jiff::fmt::strtime::parse("%b %e %T", time).is_ok(), "{time:?}");
    }

    #[test]
    fn rfc_3164_has_shorter_tags_and_packets() {
        let (server, name) = (server(), format!("my[odd]: {}", "x".repeat(60)));
        let long = batch(&[(Level::Info, &"y".repeat(4_000))]);
        for (protocol, tag, longest) in [
            ("rfc3164", format!(" myodd{}[", "x".repeat(27)), 1_024),
            ("rfc5424", format!(" my[odd]:{}", "x".repeat(39)), 2_048),
        ] {
            assert!(named_client(&server, protocol, &name, 2_048).write(&long).is_ok());
            let packet = packet(&server);
            assert!(packet.contains(&tag) && packet.len() == longest, "{} {packet:.100}", packet.len());
        }
    }

    #[test]
    fn a_packet_is_cut_between_characters() {
        let server = server();
        assert!(client(&server, "rfc5424").write(&batch(&[(Level::Info, &"€".repeat(1_000))])).is_ok());
        let packet = packet(&server);
        assert!((478..=480).contains(&packet.len()) && packet.ends_with('€'), "{}", packet.len());
    }

    #[test]
    fn a_closed_port_is_a_failure_and_a_server_that_comes_back_is_found() {
        let old = server();
        let address = old.local_addr().unwrap();
        let mut client = client(&old, "rfc5424");
        drop(old);
        let one = batch(&[(Level::Info, "lost")]);
        let refused =
            (0..100).find_map(|_| client.write(&one).err()).expect("the system reports the refusal");
        assert_eq!((refused.lost, refused.error.kind()), (1, io::ErrorKind::ConnectionRefused));

        let new = UdpSocket::bind(address).unwrap();
        new.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(client.write(&batch(&[(Level::Info, "found")])).is_ok());
        assert!(packet(&new).ends_with(" found"));
    }

    #[test]
    fn a_name_without_address_loses_the_whole_batch() {
        let mut client = client(&server(), "rfc5424");
        client.host = "name.invalid".to_owned();
        assert_eq!(client.write(&batch(&[(Level::Info, "a"), (Level::Info, "b")])).unwrap_err().lost, 2);
    }

    #[test]
    fn the_local_daemon_is_given_one_message_for_each_record() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "logging::syslog::tests::one_process_that_logs"])
            .output()
            .unwrap();
        let shown = String::from_utf8(child.stderr).unwrap();
        let lines: Vec<_> = shown.lines().filter(|line| line.starts_with("myserver")).collect();
        assert_eq!(lines, ["myserver: a=1", "myserver: b=100%s"], "{shown}");
    }

    /// With `LOG_PERROR`, syslog(3) prints a copy on standard error.
    #[test]
    #[ignore = "the process of the test above, which starts it"]
    fn one_process_that_logs() {
        let mut syslog = LocalSyslog::open(Facility::User, "my server", Options::LOG_PERROR).unwrap();
        assert!(syslog.write(&batch(&[(Level::Info, "a=1"), (Level::Error, "b=100%s")])).is_ok());
        let again = LocalSyslog::open(Facility::User, "again", Options::LOG_PERROR);
        assert!(again.is_err_and(|error| error.to_string().contains("already writes")));
    }

    #[test]
    fn severities_have_the_names_of_the_rfc() {
        // The crate maps ERROR to 3, WARN to 4, DEBUG to 6 and TRACE to 7.
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
        let mapped = levels.map(|level| *metadata(level).unwrap().level());
        assert_eq!(
            mapped,
            [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::DEBUG, tracing::Level::TRACE]
        );
        assert_eq!(levels.map(|level| severity(level).code()), [3, 4, 6, 7]);
    }
}
