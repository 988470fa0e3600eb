//! How a sink that fails is heard of: one record on the console, or on standard error when there is no console.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use super::LOGGER;
use super::level::Level;
use super::line::Line;
use super::settings::Format;
use super::sink::Sink;

/// An output that fails and recovers in turns (UDP to a closed port does) is one outage.
const QUIET_FOR: Duration = Duration::from_mins(1);

/// Says once what is wrong with one sink.
pub(super) struct Alarm {
    console: Option<Sink>,
    last: Option<Instant>,
}

impl Alarm {
    /// Says it on `console`, or on standard error.
    pub(super) fn new(console: Option<&Sink>) -> Self {
        Self { console: console.cloned(), last: None }
    }

    /// Says that `sink` fails, unless that was said lately.
    pub(super) fn raise(&mut self, sink: &'static str, error: &io::Error) {
        let now = Instant::now();
        let again = self.last.is_some_and(|last| now.duration_since(last) < QUIET_FOR);
        self.last = Some(now);
        if again {
            return;
        }
        let format = self.console.as_ref().map_or(Format::Human, |console| console.format);
        let mut record = Vec::new();
        let mut line = Line::begin(&mut record, format, (SystemTime::now(), Level::Error, LOGGER), &[]);
        line.message("a log sink fails, its records are dropped until it works again");
        line.text("sink", sink);
        line.text("error", &error.to_string());
        line.end();
        match &self.console {
            Some(console) => console.append(Level::Error, &record),
            // Nobody is left to tell when this fails too.
            None => drop(io::stderr().write_all(&record)),
        }
    }
}
