//! A layer of `tracing-subscriber` that writes events as records to the sinks.
//!
//! Its filter is its own: a layer of the app beside it sees what no sink wants. A callsite that nobody wants is disabled when
//! it is first reached, until the thresholds change ([`Logging::set_levels`]).

use std::fmt::{self, Debug};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Logging;
use super::canonical::FOR_LAYERS;
use super::level::{Level, Threshold};
use super::line::{Line, name};
use super::scope;
use super::sink::Sink;
use super::value::Value;

pub(super) struct RecordLayer(pub(super) Logging);

/// Lets through what a sink wants.
pub(super) struct Wanted(pub(super) Logging);

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::from(*metadata.level());
        metadata.target() != FOR_LAYERS
            && self.0.inner.sinks.iter().any(|sink| sink.allows(metadata.target(), level))
    }
}

impl<S> Filter<S> for Wanted {
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Not `always`: a record would be lost after a question (`tracing::enabled!`) to which the answer was no
        // (tokio-rs/tracing#2519).
        if self.wants(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let threshold = self.0.inner.sinks.iter().map(Sink::most_verbose).max();
        Some(threshold.unwrap_or(Threshold::OFF).to_level_filter())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecordLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let (level, now) = (Level::from(*metadata.level()), SystemTime::now());
        let mut fields = Fields::default();
        event.record(&mut fields);
        // A record may have its own, of another request.
        let request =
            scope::current().filter(|_| !fields.others.iter().any(|(name, _)| *name == "request_id"));
        let mut record = Vec::new();
        for sink in &self.0.inner.sinks {
            if !sink.allows(metadata.target(), level) {
                continue;
            }
            record.clear();
            let worker = self.0.inner.worker;
            let reserved: &[_] = if worker.is_some() { &["worker"] } else { &[] };
            let mut line = Line::begin(&mut record, sink.format, (now, level, metadata.target()), reserved);
            if let Some(message) = &fields.message {
                line.message(message);
            }
            if let Some(worker) = worker {
                line.uint(name!("worker"), worker);
            }
            if let Some(request) = &request {
                line.text(name!("request_id"), request.request_id());
                if let Some(trace) = request.trace_id() {
                    line.text(name!("trace_id"), trace);
                }
            }
            for (name, value) in &fields.others {
                line.custom(name, value);
            }
            for span in context.event_scope(event).into_iter().flatten() {
                if let Some(fields) = span.extensions().get::<Fields>() {
                    // The name of the span tells its fields from those of the event.
                    for (name, value) in &fields.others {
                        line.custom(&format!("{}.{name}", span.name()), value);
                    }
                }
            }
            line.end();
            sink.append(level, &record);
        }
    }
}

/// The message and the fields of an event, or the fields of a span.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Sets a field. A value that is recorded again replaces the earlier one, so that a name is on a line once.
    fn set(&mut self, field: &Field, value: Value) {
        match self.others.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, old)) => *old = value,
            None => self.others.push((field.name(), value)),
        }
    }

    fn set_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" { self.message = Some(text) } else { self.set(field, Value::Text(text)) }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            // Writing to a String cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!(": {cause}"));
            source = cause.source();
        }
        self.set_text(field, text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Uint(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{debug, error, info, info_span};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    /// The lines that `log` writes, without their times.
    fn logged(log: impl FnOnce()) -> Vec<String> {
        let (logging, memory) = Logging::to_memory();
        tracing::subscriber::with_default(registry().with(RecordLayer(logging)), log);
        memory.lines().iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn an_event_is_a_record_with_its_message_and_fields() {
        let io = std::io::Error::other("disk on fire");
        let lines = logged(|| {
            info!(target: "here", port = 5000, ok = true, ratio = 0.5, debt = -1_i64, name = "a b", "listening on {}", 1);
            error!(target: "here", error = &io as &dyn std::error::Error, what = ?Some(1), level = %"x", "it failed");
        });
        assert_eq!(
            lines,
            [
                r#"level=info logger=here msg="listening on 1" port=5000 ok=true ratio=0.5 debt=-1 name="a b""#,
                r#"level=error logger=here msg="it failed" error="disk on fire" what=Some(1) _level=x"#,
            ]
        );
    }

    #[test]
    fn an_event_carries_the_fields_of_its_spans() {
        let lines = logged(|| {
            let outer = info_span!("import", file = "a.csv", rows = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("rows", 3);
            let _inner = info_span!("row", n = 7).entered();
            debug!(target: "here", n = 1, "bad\nlevel=info");
        });
        assert_eq!(
            lines,
            [
                r#"level=debug logger=here msg="bad\nlevel\u003dinfo" n=1 row.n=7 import.file=a.csv import.rows=3"#
            ]
        );
    }
}
