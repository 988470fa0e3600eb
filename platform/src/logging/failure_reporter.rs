//! Reports the failure of one sink through another one: in one record of a sink that works, or on standard error when
//! there is none.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::LOGGER;
use super::level::Level;
use super::line::{Line, name};
use super::settings::Format;
use super::sink::{OnFailure, Sink};

/// Failures that follow each other within this time are one outage. An output may fail and recover in turns: UDP to a
/// closed port does.
const SAME_OUTAGE: Duration = Duration::from_mins(1);

/// Knows all sinks, the console first, once all of them are started.
#[derive(Clone, Default)]
pub(super) struct FailureReporter(Arc<OnceLock<Vec<Sink>>>);

impl FailureReporter {
    /// Sets the sinks; a second call changes nothing.
    pub(super) fn set_sinks(&self, sinks: &[Sink]) {
        let _ = self.0.set(sinks.to_vec());
    }

    /// Writes a record about the sink `subject` to the first other sink that works.
    pub(super) fn report(
        &self,
        subject: &'static str,
        level: Level,
        message: &str,
        add_fields: impl FnOnce(&mut Line<'_>),
    ) {
        let sinks = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let sink = sinks.iter().find(|sink| sink.name != subject && sink.is_working());
        let format = sink.map_or(Format::Human, |sink| sink.format);
        let mut record = Vec::new();
        let mut line = Line::begin(&mut record, format, (SystemTime::now(), level, LOGGER), &[]);
        line.message(message);
        line.text(name!("sink"), subject);
        add_fields(&mut line);
        line.end();
        match sink {
            Some(sink) => sink.append(level, &record),
            // When this fails too, there is nothing left to report it to.
            None => drop(io::stderr().write_all(&record)),
        }
    }

    /// The callback of the sink `subject`: reports each outage once.
    pub(super) fn on_failure(&self, subject: &'static str) -> OnFailure {
        let (reporter, mut last) = (self.clone(), None::<Instant>);
        Box::new(move |destination, error| {
            let now = Instant::now();
            let same_outage = last.is_some_and(|last| now.duration_since(last) < SAME_OUTAGE);
            last = Some(now);
            if same_outage {
                return;
            }
            let message = "a log sink fails, its records are dropped until it works again";
            reporter.report(subject, Level::Error, message, |line| {
                line.text(name!("place"), destination);
                line.text(name!("error"), &error.to_string());
            });
        })
    }
}
