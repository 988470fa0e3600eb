//! The canonical line of a request: the request, its response, its duration and its client.
//!
//! The HTTP middleware writes it to the sinks directly. With a macro of `tracing` a line would cost about 11,000
//! instructions, as much as the request itself.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::level::Level;
use super::line::{Line, name};
use super::settings::Format;
use super::value::Value;

/// The logger of these lines, for `logging.levels`.
pub const LOGGER: &str = "server.access";

/// The target of the event that tells the layers of the app of a failed request. No sink takes it: it has the line.
pub(super) const FOR_LAYERS: &str = "server.access.failed";

/// The field names of these lines. A custom field with one of these names is written with a `_` before it.
const NAMES: [&str; 10] =
    ["worker", "request_id", "method", "route", "path", "status", "bytes", "duration_ms", "peer", "error"];

/// What is known of a request when its response is complete. The texts can have any content: they are escaped here.
#[derive(Clone, Copy, Debug)]
pub struct Canonical<'a> {
    /// The level of the record, as a rule [`level_of`] the status.
    pub level: Level,
    /// The id of the request, as the client got it.
    pub request_id: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The template of the route (`/addresses/{id}`), empty when none matched.
    pub route: &'a str,
    /// The requested path, without its query: a query may hold what no log should keep.
    pub path: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// The number of body bytes in the response.
    pub bytes: u64,
    /// The time from the request head to the response head.
    pub duration: Duration,
    /// The client: address and port.
    pub peer: Option<&'a str>,
    /// The cause of a failure, which the response does not show.
    pub error: Option<&'a str>,
    /// The fields that the handler adds.
    pub fields: &'a [(Cow<'static, str>, Value)],
    /// The message of the response, where it says more than the status.
    pub message: Option<&'a str>,
}

/// Info below 400, warn below 500, error from 500 on.
pub fn level_of(status: u16) -> Level {
    match status {
        ..400 => Level::Info,
        400..500 => Level::Warn,
        500.. => Level::Error,
    }
}

/// Appends the line. `worker` is the number of this process among several.
pub(super) fn write(
    out: &mut Vec<u8>,
    format: Format,
    now: SystemTime,
    worker: Option<u64>,
    request: &Canonical<'_>,
) {
    let names = if worker.is_some() { &NAMES[..] } else { &NAMES[1..] };
    let mut line = Line::begin(out, format, (now, request.level, LOGGER), names);
    if format == Format::Human {
        line.word(request.method);
        line.word(request.path);
        line.outcome(request.status, request.duration);
        line.text(name!("id"), request.request_id);
    } else {
        line.text(name!("request_id"), request.request_id);
        line.text(name!("method"), request.method);
        line.text(name!("route"), request.route);
        line.text(name!("path"), request.path);
        line.uint(name!("status"), u64::from(request.status));
        line.uint(name!("bytes"), request.bytes);
        line.millis(name!("duration_ms"), request.duration);
        if let Some(peer) = request.peer {
            line.text(name!("peer"), peer);
        }
    }
    if let Some(worker) = worker {
        line.uint(name!("worker"), worker);
    }
    if let Some(error) = request.error {
        line.text(name!("error"), error);
    }
    for (name, value) in request.fields {
        line.custom(name, value);
    }
    if let Some(message) = request.message {
        line.message(message);
    }
    line.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json};

    fn request<'a>(path: &'a str, fields: &'a [(Cow<'static, str>, Value)]) -> Canonical<'a> {
        Canonical {
            level: level_of(201),
            request_id: "abc123",
            method: "POST",
            route: "/addresses",
            path,
            status: 201,
            bytes: 42,
            duration: Duration::from_micros(12_345),
            peer: Some("127.0.0.1:5000"),
            error: None,
            fields,
            message: None,
        }
    }

    fn written(format: Format, request: &Canonical<'_>) -> String {
        let mut out = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_240_380_123);
        write(&mut out, format, now, None, request);
        String::from_utf8(out).unwrap()
    }

    /// A strict parser of logfmt: `key=bare` or `key="JSON string"`, one space between.
    fn parse_logfmt(line: &str) -> Vec<(String, String)> {
        let mut rest = line.strip_suffix('\n').unwrap();
        let mut pairs = Vec::new();
        loop {
            let (key, value) = rest.split_once('=').unwrap();
            assert!(!key.contains(['"', ' ']), "{line}");
            let length = if value.starts_with('"') {
                let mut strings = serde_json::Deserializer::from_str(value).into_iter::<String>();
                pairs.push((key.to_owned(), strings.next().unwrap().unwrap()));
                strings.byte_offset()
            } else {
                let length = value.find(' ').unwrap_or(value.len());
                pairs.push((key.to_owned(), value[..length].to_owned()));
                length
            };
            rest = &value[length..];
            match rest.strip_prefix(' ') {
                Some(next) => rest = next,
                None => break,
            }
        }
        assert_eq!(rest, "");
        pairs
    }

    #[test]
    fn a_request_looks_like_this_in_each_format() {
        let fields = [(Cow::from("address_id"), Value::from("7f")), (Cow::from("n"), Value::from(3_u64))];
        let request = request("/addresses", &fields);
        assert_eq!(
            written(Format::Logfmt, &request),
            "time=2026-11-21T05:53:00.123Z level=info logger=server.access request_id=abc123 method=POST \
             route=/addresses path=/addresses status=201 bytes=42 duration_ms=12.345 peer=127.0.0.1:5000 \
             address_id=7f n=3\n"
        );
        assert_eq!(
            written(Format::Json, &request),
            "{\"time\":\"2026-11-21T05:53:00.123Z\",\"level\":\"info\",\"logger\":\"server.access\",\
             \"request_id\":\"abc123\",\"method\":\"POST\",\"route\":\"/addresses\",\"path\":\"/addresses\",\
             \"status\":201,\"bytes\":42,\"duration_ms\":12.345,\"peer\":\"127.0.0.1:5000\",\
             \"address_id\":\"7f\",\"n\":3}\n"
        );
        assert_eq!(
            written(Format::Human, &Canonical { error: Some("no such table"), ..request }),
            "2026-11-21T05:53:00.123Z INFO  server.access POST /addresses 201 12.3ms id=abc123 \
             error=\"no such table\" address_id=7f n=3\n"
        );
    }

    #[test]
    fn the_level_is_that_of_the_status() {
        assert_eq!([200, 399, 400, 499, 500, 599].map(level_of), {
            use Level::{Error, Info, Warn};
            [Info, Info, Warn, Warn, Error, Error]
        });
    }

    #[test]
    fn no_text_can_forge_a_pair_even_for_a_reader_that_ignores_quotes() {
        let hostile = "x\" status=500 level=error\n time=now status=\"500\r\u{1b}[2J\u{2028}status=500";
        let fields =
            [(Cow::from("status"), Value::from(hostile)), (Cow::from(hostile), Value::from(hostile))];
        let request = Canonical {
            error: Some(hostile),
            request_id: hostile,
            method: hostile,
            route: hostile,
            message: Some(hostile),
            ..request(hostile, &fields)
        };
        for format in [Format::Logfmt, Format::Human] {
            let line = written(format, &request);
            assert_eq!(line.matches('\n').count(), 1);
            for forged in ["status=500", "status=\"500", "level=error", "time=now"] {
                assert!(!line.contains(forged), "{forged} in {line}");
            }
        }
        let object: Map<String, Json> = serde_json::from_str(&written(Format::Json, &request)).unwrap();
        assert_eq!(object["status"], 201);
        assert_eq!(object["_status"], hostile);
        // The control: quoting alone keeps a parser right, and not a reader that splits at spaces.
        assert!(format!("path={hostile:?} status=201").contains(" status=500"));
    }

    proptest! {
        #[test]
        fn any_texts_stay_on_one_line_and_come_back(
            texts in proptest::array::uniform6(any::<String>()), name in any::<String>(), status in any::<u16>(),
        ) {
            let [path, request_id, method, route, error, extra] = &texts;
            let fields = [(Cow::from(name), Value::from(extra.as_str()))];
            let request = Canonical { request_id, method, route, status, error: Some(error), message: Some(extra), ..request(path, &fields) };
            for format in [Format::Logfmt, Format::Human, Format::Json] {
                let line = written(format, &request);
                prop_assert_eq!(line.find(|c: char| c.is_control()), Some(line.len() - 1));
            }
            let pairs = parse_logfmt(&written(Format::Logfmt, &request));
            let expected = [
                ("request_id", request_id), ("method", method), ("route", route), ("path", path), ("error", error), ("msg", extra),
            ];
            prop_assert_eq!(pairs.len(), 14);
            for (name, text) in expected {
                let found: Vec<_> = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect();
                prop_assert_eq!(found, vec![text]);
            }
            let object: Map<String, Json> = serde_json::from_str(&written(Format::Json, &request)).unwrap();
            prop_assert_eq!(object.len(), 14);
            for (name, text) in expected {
                prop_assert_eq!(&object[name], text.as_str());
            }
        }
    }
}
