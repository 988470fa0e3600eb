//! The events that the code logs in the thread of a test.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::dispatcher::DefaultGuard;
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Every event of every level, of our libraries too: `LEVEL target message field=value`, with quotes around texts.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

/// Events are kept until it is dropped.
pub struct Guard {
    _default: DefaultGuard,
    _second: Dispatch,
}

impl Events {
    /// Keeps the events of this thread. A runtime with several threads has other ones.
    pub fn keep() -> (Self, Guard) {
        let events = Self::default();
        let subscriber = || Dispatch::new(tracing_subscriber::registry().with(events.clone()));
        // Where there is one subscriber only, `tracing` asks nobody but the thread that reaches an event first, and another
        // test's thread would disable it for all.
        let guard =
            Guard { _second: subscriber(), _default: tracing::dispatcher::set_default(&subscriber()) };
        (events, guard)
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Those of a target.
    pub fn of(&self, target: &str) -> Vec<String> {
        let of_target = |line: &String| line.split(' ').nth(1) == Some(target);
        self.all().into_iter().filter(of_target).collect()
    }
}
