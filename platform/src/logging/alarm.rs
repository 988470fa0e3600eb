//! How a sink that fails is heard of: in one record of another sink that works, or on standard error when there is
//! none.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::LOGGER;
use super::level::Level;
use super::line::{Line, name};
use super::settings::Format;
use super::sink::Sink;

/// An output that fails and recovers in turns (UDP to a closed port does) is one outage.
const QUIET_FOR: Duration = Duration::from_mins(1);

/// All sinks, the console first, from the moment at which all are started.
#[derive(Clone, Default)]
pub(super) struct Voices(Arc<OnceLock<Vec<Sink>>>);

impl Voices {
    /// Tells which sinks there are. Once.
    pub(super) fn set(&self, sinks: &[Sink]) {
        // A second call would be a mistake of this room, and changes nothing.
        let _ = self.0.set(sinks.to_vec());
    }

    /// Says something of the sink `subject`.
    pub(super) fn say(
        &self,
        subject: &'static str,
        level: Level,
        text: &str,
        more: impl FnOnce(&mut Line<'_>),
    ) {
        let sinks = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let voice = sinks.iter().find(|sink| sink.name != subject && sink.is_working());
        let format = voice.map_or(Format::Human, |voice| voice.format);
        let mut record = Vec::new();
        let mut line = Line::begin(&mut record, format, (SystemTime::now(), level, LOGGER), &[]);
        line.message(text);
        line.text(name!("sink"), subject);
        more(&mut line);
        line.end();
        match voice {
            Some(voice) => voice.append(level, &record),
            // Nobody is left to tell when this fails too.
            None => drop(io::stderr().write_all(&record)),
        }
    }
}

/// Says once what is wrong with one sink.
#[derive(Default)]
pub(super) struct Alarm {
    voices: Voices,
    last: Option<Instant>,
}

impl Alarm {
    /// Says it in the other sinks.
    pub(super) fn new(voices: &Voices) -> Self {
        Self { voices: voices.clone(), last: None }
    }

    /// Says that `sink` cannot write to `place`, unless that was said lately.
    pub(super) fn raise(&mut self, sink: &'static str, place: &str, error: &io::Error) {
        let now = Instant::now();
        let again = self.last.is_some_and(|last| now.duration_since(last) < QUIET_FOR);
        self.last = Some(now);
        if again {
            return;
        }
        let text = "a log sink fails, its records are dropped until it works again";
        self.voices.say(sink, Level::Error, text, |line| {
            line.text(name!("place"), place);
            line.text(name!("error"), &error.to_string());
        });
    }
}
