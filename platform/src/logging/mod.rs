//! Logging: records go to a console, a file, a syslog server and the local syslog, each with its own level and format.
//!
//! There are two ways to log: [`Logging::canonical`] for the one line of a request, and the macros of `tracing` for
//! everything else. Neither waits for a sink (`sink.rs`), and no logged text can end its line or look like another
//! field (`escape.rs`). This module does not import HTTP; it only knows the fields of that line.

mod batch;
pub mod canonical;
mod console;
mod escape;
mod failure_reporter;
mod file;
mod layer;
mod level;
mod line;
mod memory;
mod rolling;
mod scope;
mod settings;
mod sink;
mod syslog;
mod timestamp;
mod value;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::Subscriber;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

pub use canonical::{Canonical, level_of};
pub use escape::lossy;
pub use level::{Level, Threshold};
pub use memory::MemoryLog;
pub use scope::{Labels, Within, enter};
pub use settings::{
    Console, Facility, Format, LocalSyslog, LogFile, Protocol, Rotation, Settings, Stream, Udp,
};
pub use value::Value;

use crate::error::StartError;
use failure_reporter::FailureReporter;
use level::Filter;
use line::name;
use sink::{Output, Sink, SinkConfig};

/// The logger of records about logging itself.
const LOGGER: &str = "server.logging";
/// The initial capacity for a line; most lines of requests fit.
const LINE_CAPACITY: usize = 512;

/// A layer of the app beside the sinks ([`App::tracing_layer`](crate::App::tracing_layer)).
pub type AppLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// How the process identifies itself to syslog.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the service.
    pub service: String,
    /// The number of this process, when it is one of several: it is on every line.
    pub worker: Option<u16>,
}

/// A handle on the sinks. Clones share them; when the last clone is dropped, the threads of the sinks end.
#[derive(Clone)]
pub struct Logging {
    inner: Arc<Inner>,
}

struct Inner {
    sinks: Vec<Sink>,
    failure_reporter: FailureReporter,
    worker: Option<u64>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sinks.iter().for_each(Sink::close);
    }
}

impl Logging {
    /// Starts the sinks, each with its own thread. A sink that cannot write yet is not an error: the failure is
    /// reported on the console, and the sink tries again.
    pub fn start(settings: &Settings, identity: &Identity) -> Result<Self, StartError> {
        let mut sinks = Vec::new();
        let failure_reporter = FailureReporter::default();
        let mut start = |name, level, format, output: Box<dyn Output>| {
            let config = SinkConfig {
                name,
                filter: Filter::new(level, &settings.levels),
                format,
                limit: settings.buffer.as_usize(),
                delay: settings.flush_delay.get(),
                on_failure: failure_reporter.on_failure(name),
            };
            sinks.push(Sink::start(config, output)?);
            Ok::<_, StartError>(())
        };

        if settings.console.enabled {
            let Console { level, format, stream, .. } = settings.console;
            let output = console::Console::open(stream, identity.worker.is_some())
                .map_err(|error| StartError::failed(format!("logging.console: {error}")))?;
            start("console", level, format, Box::new(output))?;
        }
        if settings.file.enabled {
            start("file", settings.file.level, settings.file.format, file_output(&settings.file)?)?;
        }
        if !settings.udp.host.is_empty() {
            let output = syslog::UdpSyslog::new(&settings.udp, &identity.service);
            start("udp", settings.udp.level, settings.udp.format, Box::new(output))?;
        }
        if settings.syslog.enabled {
            let LocalSyslog { level, format, facility, .. } = settings.syslog;
            let output =
                syslog::LocalSyslog::open(facility, &identity.service, syslog_tracing::Options::LOG_PID)?;
            start("syslog", level, format, Box::new(output))?;
        }
        Ok(Self::new(sinks, failure_reporter, identity.worker.map(u64::from)))
    }

    fn new(sinks: Vec<Sink>, failure_reporter: FailureReporter, worker: Option<u64>) -> Self {
        failure_reporter.set_sinks(&sinks);
        Self { inner: Arc::new(Inner { sinks, failure_reporter, worker }) }
    }

    /// A log without sinks.
    pub fn discard() -> Self {
        Self::new(Vec::new(), FailureReporter::default(), None)
    }

    /// A log in memory, for tests: every level, in logfmt.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn to_memory() -> (Self, MemoryLog) {
        let config = SinkConfig {
            name: "memory",
            filter: Filter::new(Threshold::ALL, &BTreeMap::new()),
            format: Format::Logfmt,
            limit: usize::MAX,
            delay: Duration::ZERO,
            on_failure: Box::new(|_, _| {}),
        };
        let lines = memory::Lines::default();
        let sink = match Sink::start(config, Box::new(lines.clone())) {
            Ok(sink) => sink,
            Err(error) => panic!("{error}"),
        };
        let logging = Self::new(vec![sink.clone()], FailureReporter::default(), None);
        (logging, MemoryLog { sink, lines })
    }

    /// Sends the events of `tracing` to the sinks and these layers, for the whole process. Can be called once.
    pub fn install(&self, layers: Vec<AppLayer>) -> Result<(), StartError> {
        tracing::subscriber::set_global_default(self.subscriber(layers))
            .map_err(|error| StartError::failed(format!("logging: {error}")))
    }

    fn subscriber(&self, layers: Vec<AppLayer>) -> impl Subscriber + Send + Sync + use<> {
        let records = layer::RecordLayer(self.clone()).with_filter(layer::Wanted(self.clone()));
        // An empty list would let nothing through.
        let layers = (!layers.is_empty()).then_some(layers);
        Registry::default().with(layers).with(records)
    }

    /// Takes the levels of these settings from now on; which sinks there are does not change.
    pub fn set_levels(&self, settings: &Settings) {
        for sink in &self.inner.sinks {
            let level = match sink.name {
                "console" => settings.console.level,
                "file" => settings.file.level,
                "udp" => settings.udp.level,
                "syslog" => settings.syslog.level,
                _ => continue,
            };
            sink.set_filter(Filter::new(level, &settings.levels));
        }
        tracing::callsite::rebuild_interest_cache();
    }

    /// Writes the line of a request. Never waits for a sink. Costs about 3,500 instructions with the file alone, and
    /// 1,700 more with the console (callgrind).
    pub fn canonical(&self, request: &Canonical<'_>) {
        let mut record = Vec::with_capacity(LINE_CAPACITY);
        let now = SystemTime::now();
        for sink in self.inner.sinks.iter().filter(|sink| sink.allows_access(request.level)) {
            record.clear();
            canonical::write(&mut record, sink.format, now, self.inner.worker, request);
            sink.append(request.level, &record);
        }
        if request.level == Level::Error {
            let Canonical { request_id, method, route, path, status, error, .. } = *request;
            tracing::error!(target: canonical::FOR_LAYERS, request_id, method, route, path, status, error, "a request failed");
        }
    }

    /// Waits until every record that was logged before is written, or dropped and counted. False when that is not done
    /// after `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        // All sinks start at once: a slow one must not use up the time of the others.
        self.inner.sinks.iter().for_each(Sink::request_flush);
        let late = self.inner.sinks.iter().filter(|sink| !sink.flush(until)).count();
        late == 0
    }

    /// The last flush, within `timeout`. Drops that a sink could not report itself are reported by another sink.
    pub fn finish(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        self.flush(timeout);
        for sink in &self.inner.sinks {
            let drops = sink.unreported_drops();
            if drops > 0 {
                let message = "log records dropped";
                let reporter = &self.inner.failure_reporter;
                reporter.report(sink.name, Level::Warn, message, |line| line.uint(name!("dropped"), drops));
            }
        }
        self.flush(until.saturating_duration_since(Instant::now()));
    }

    /// The number of records that all sinks together have dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.inner.sinks.iter().map(Sink::dropped).sum()
    }
}

fn file_output(settings: &LogFile) -> Result<Box<dyn Output>, StartError> {
    let path = settings.path.as_path();
    let (Some(name), Some(folder)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return Err(StartError::config(format!("logging.file.path: '{}' names no file", path.display())));
    };
    // The parent of a bare file name is "", which is not a folder that can be read.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let rolling = |period| rolling::RollingFile::new(folder, name, period, settings.max_files.as_usize());
    Ok(match settings.rotation {
        Rotation::Size => {
            Box::new(file::SizedFile::new(path, settings.max_size.get(), settings.max_files.get()))
        }
        Rotation::Hourly => Box::new(rolling(rolling::Period::HOURLY)),
        Rotation::Daily => Box::new(rolling(rolling::Period::DAILY)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};
    use std::fs;
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::registry::LookupSpan;

    const SOON: Duration = Duration::from_secs(10);

    /// Settings with only the file enabled; `change` sets the rest.
    fn settings(path: &Path, change: impl FnOnce(&mut Json)) -> Settings {
        let mut settings = json!({
            "console": {"enabled": false, "level": "info", "format": "human", "stream": "stderr"},
            "file": {"enabled": true, "path": path, "level": "info", "format": "logfmt", "rotation": "size",
                     "max_size": "100MB", "max_files": 5},
            "udp": {"host": "", "port": 514, "level": "info", "format": "json", "protocol": "rfc5424",
                    "facility": "local0", "max_message": 2048},
            "syslog": {"enabled": false, "level": "warn", "format": "logfmt", "facility": "user"},
            "levels": {}, "buffer": "1MiB", "flush_delay": "20ms",
        });
        change(&mut settings);
        serde_json::from_value(settings).unwrap()
    }

    fn start(settings: &Settings) -> Logging {
        Logging::start(settings, &Identity { service: "test".to_owned(), worker: None }).unwrap()
    }

    fn request(status: u16) -> Canonical<'static> {
        Canonical {
            level: level_of(status),
            request_id: "id",
            method: "GET",
            route: "/x",
            path: "/x",
            status,
            bytes: 1,
            duration: Duration::from_millis(1),
            peer: None,
            error: None,
            fields: &[],
            message: None,
        }
    }

    #[test]
    fn a_request_is_one_line_in_a_file_whose_folder_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/logs/server.log");
        let logging = start(&settings(&path, |_| {}));
        logging.canonical(&request(200));
        assert!(logging.flush(SOON));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(" logger=server.access request_id=id method=GET "), "{text}");
    }

    #[test]
    fn each_sink_has_its_own_level_and_a_target_may_have_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let settings = settings(&path, |settings| {
            settings["file"]["level"] = json!("warn");
            settings["udp"]["host"] = json!("127.0.0.1");
            settings["udp"]["port"] = json!(server.local_addr().unwrap().port());
            settings["udp"]["level"] = json!("error");
            settings["levels"] = json!({"quiet": "off", "loud": "debug"});
        });
        let logging = start(&settings);
        let subscriber = logging.subscriber(Vec::new());
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::DEBUG));
        tracing::subscriber::with_default(subscriber, || {
            for status in [200, 404, 500] {
                logging.canonical(&request(status));
            }
            tracing::error!(target: "quiet", "one");
            tracing::info!(target: "other", "two");
            tracing::debug!(target: "loud::part", "three");
            assert!(!tracing::enabled!(target: "loud", tracing::Level::TRACE));
        });
        assert!(logging.flush(SOON));
        let text = fs::read_to_string(&path).unwrap();
        let found: Vec<_> = text.lines().map(|line| line.split(" level=").nth(1).unwrap()).collect();
        assert_eq!(found.len(), 3, "{text}");
        assert!(
            found[0].starts_with("warn logger=server.access")
                && found[1].starts_with("error logger=server.access")
        );
        assert_eq!(found[2], "debug logger=loud::part msg=three");

        let mut buffer = [0; 2_048];
        for expected in ["\"status\":500", "\"msg\":\"three\""] {
            let length = server.recv(&mut buffer).unwrap();
            let packet = String::from_utf8_lossy(&buffer[..length]);
            assert!(packet.contains(expected), "{packet}");
        }
    }

    /// Counts the events that it is shown, and the spans that are open around the last one.
    #[derive(Clone, Default)]
    struct Counts(Arc<[AtomicUsize; 2]>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counts {
        fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
            self.0[0].fetch_add(1, Ordering::Relaxed);
            self.0[1].store(context.event_scope(event).into_iter().flatten().count(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_layer_of_the_app_sees_what_its_own_filter_allows_and_changes_nothing_for_the_sinks() {
        let (all, errors, off) = (Counts::default(), Counts::default(), None::<Counts>);
        let of_errors = || errors.clone().with_filter(LevelFilter::ERROR).boxed();
        let sets = [
            vec![off.clone().boxed()],
            vec![of_errors()],
            vec![off.boxed(), all.clone().boxed(), of_errors()],
        ];
        for layers in sets {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("server.log");
            let logging = start(&settings(&path, |_| {}));
            tracing::subscriber::with_default(logging.subscriber(layers), || {
                let _span = tracing::debug_span!("hidden", secret = 1).entered();
                // Twice: the second time the callsite is known.
                for _ in 0..2 {
                    tracing::trace!("one");
                    tracing::info!("two");
                    // A question changes nothing for the next event.
                    let _ = tracing::enabled!(tracing::Level::TRACE);
                    tracing::error!("three");
                }
                logging.canonical(&request(404));
                logging.canonical(&request(500));
            });
            assert!(logging.flush(SOON));
            let text = fs::read_to_string(&path).unwrap();
            let messages: Vec<_> = text.lines().filter_map(|line| line.split(" msg=").nth(1)).collect();
            assert_eq!(messages, ["two", "three", "two", "three"]);
            assert_eq!(text.lines().count(), 6, "each request is one line: {text}");
        }
        let seen = |counts: &Counts| counts.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!((seen(&all), seen(&errors)), ([7, 1], [6, 0]));
    }

    #[test]
    fn a_file_that_cannot_be_written_fails_no_request_and_is_reported_once_on_the_console() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let path = file.join("server.log");
        let (console, memory) = Logging::to_memory();
        let settings = settings(&path, |_| {});
        let reporter = FailureReporter::default();
        let config = SinkConfig {
            name: "file",
            filter: Filter::new(Threshold::ALL, &BTreeMap::new()),
            format: Format::Logfmt,
            limit: settings.buffer.as_usize(),
            delay: Duration::ZERO,
            on_failure: reporter.on_failure("file"),
        };
        let sink = Sink::start(config, file_output(&settings.file).unwrap()).unwrap();
        let both = [sink.clone(), console.inner.sinks[0].clone()];
        let logging = Logging::new(vec![sink], FailureReporter::default(), None);
        reporter.set_sinks(&both);
        for dropped in 1..=3 {
            logging.canonical(&request(200));
            assert!(logging.flush(SOON));
            assert_eq!(logging.dropped(), dropped);
        }
        let lines = memory.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("level=error logger=server.logging") && lines[0].contains("sink=file"),
            "{lines:?}"
        );
        assert!(lines[0].contains(&format!("place={}", path.display())), "{lines:?}");

        fs::remove_file(&file).unwrap();
        logging.canonical(&request(200));
        assert!(logging.flush(SOON));
        let text = fs::read_to_string(&path).unwrap();
        let [notice, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(notice.ends_with(" dropped=3") && line.contains("status=200"), "{text}");
    }

    #[test]
    fn drops_that_a_sink_could_not_report_are_reported_by_another_one_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let logging = start(&settings(&path, |all| {
            all["udp"]["host"] = json!("name.invalid");
            all["udp"]["port"] = json!(nobody);
        }));
        for _ in 0..3 {
            logging.canonical(&request(200));
        }
        logging.finish(SOON);
        let text = fs::read_to_string(&path).unwrap();
        let [outage, end] = text.lines().filter(|line| line.contains("sink=udp")).collect::<Vec<_>>()[..]
        else {
            panic!("{text}")
        };
        assert!(outage.contains(&format!("place=\"udp name.invalid:{nobody}\"")), "{text}");
        assert!(end.ends_with("msg=\"log records dropped\" sink=udp dropped=3"), "{text}");
        // The control: a flush alone does not report them.
        assert_eq!(logging.dropped(), 3);
    }

    #[test]
    fn without_sinks_nothing_is_written_and_nothing_is_dropped() {
        let logging = Logging::discard();
        logging.canonical(&request(500));
        assert!(logging.flush(Duration::ZERO));
        assert_eq!(logging.dropped(), 0);
    }
}
