//! Spans in batches to a collector: the SDK of OpenTelemetry, of which only the batches and the sending are used. A span is made
//! when its request has ended, so a request costs nothing before.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _,
};

use super::{Ended, Settings};
use crate::error::StartError;

/// The most spans in one request to the collector: the default of OpenTelemetry.
const BATCH: usize = 512;

pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Exporter {
    pub(super) fn open(settings: &Settings, service: &str) -> Result<Self, StartError> {
        let failed = |why: String| StartError::failed(format!("traces.endpoint: {why}"));
        let timeout = settings.timeout.get();
        // A blocking client has a runtime of its own, which must not be made inside of another one.
        let client = std::thread::spawn(move || {
            // As the connector: what is configured is what is connected to.
            let builder = reqwest::blocking::Client::builder().redirect(reqwest::redirect::Policy::none());
            builder.no_proxy().timeout(timeout).build().map_err(|error| error.to_string())
        });
        let client = client.join().map_err(|_| failed("no HTTP client".to_owned()))?.map_err(failed)?;
        let client = Configured { client, headers: headers(settings.headers.expose())? };
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(timeout)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let queue = settings.queue.as_usize();
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(queue)
            .with_max_export_batch_size(BATCH.min(queue))
            .with_scheduled_delay(settings.delay.get())
            .build();
        let told = Told { otlp, failing: AtomicBool::new(false) };
        let mut processor = BatchSpanProcessor::builder(told).with_batch_config(config).build();
        let resource = Resource::builder_empty().with_service_name(service.to_owned());
        let process = KeyValue::new("process.pid", i64::from(std::process::id()));
        processor.set_resource(&resource.with_attribute(process).build());
        let scope = InstrumentationScope::builder("platform").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, scope })
    }

    pub(super) fn send(&self, ended: Ended<'_>) {
        let (context, end) = (ended.context, SystemTime::now());
        let name = match ended.route {
            Some(route) => format!("{} {route}", ended.method),
            None => ended.method.to_string(),
        };
        let status = i64::from(ended.status);
        // The names are those of OpenTelemetry's semantic conventions for HTTP servers.
        let mut attributes = vec![
            KeyValue::new("http.request.method", ended.method),
            KeyValue::new("http.response.status_code", status),
            KeyValue::new("url.path", ended.path.to_owned()),
            KeyValue::new("url.scheme", ended.scheme),
            KeyValue::new("request_id", ended.request_id.to_owned()),
        ];
        attributes.extend(ended.route.map(|route| KeyValue::new("http.route", route.to_owned())));
        attributes.extend(ended.client.map(|client| KeyValue::new("client.address", client)));
        // A response of 4xx is no error of this server.
        let is_error = ended.status >= 500;
        if is_error {
            attributes.push(KeyValue::new("error.type", ended.status.to_string()));
        }
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(
                TraceId::from(context.trace),
                SpanId::from(context.span),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(context.parent),
            parent_span_is_remote: context.parent != 0,
            span_kind: SpanKind::Server,
            name: name.into(),
            start_time: end.checked_sub(ended.took).unwrap_or(end),
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if is_error { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }

    pub(super) fn close(&self, time: Duration) {
        // What could not be sent is in the log already.
        let _ = self.processor.shutdown_with_timeout(time);
    }
}

/// `NAME=VALUE,NAME=VALUE`, as `OTEL_EXPORTER_OTLP_HEADERS` has it.
fn headers(text: &str) -> Result<HeaderMap, StartError> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (name.trim(), value.trim());
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(header)) if !value.is_empty() => Ok((name, header)),
            // The values are secrets.
            _ => Err(StartError::config("traces.headers: expected NAME=VALUE,NAME=VALUE")),
        }
    });
    pairs.collect()
}

/// Sends the headers of the configuration. The exporter adds those of `OTEL_EXPORTER_OTLP_HEADERS`, which may be the
/// credentials of another collector.
struct Configured {
    client: reqwest::blocking::Client,
    headers: HeaderMap,
}

impl fmt::Debug for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configured")
    }
}

#[async_trait]
impl HttpClient for Configured {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let kind = request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        self.client.send_bytes(request).await
    }
}

/// Tells the log when the collector begins to fail, and when it responds again; not of each batch that is lost.
#[derive(Debug)]
struct Told {
    otlp: Otlp,
    failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.otlp.export(batch).await;
        let failed = result.is_err();
        match (self.failing.swap(failed, Ordering::Relaxed), &result) {
            (false, Err(error)) => {
                tracing::warn!(target: "server.traces", %error, "spans are lost: the collector does not take them");
            }
            (true, Ok(())) => tracing::info!(target: "server.traces", "the collector takes spans again"),
            _ => {}
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_and_an_error_does_not_quote_them() {
        assert!(headers("").unwrap().is_empty());
        let read = headers("x-api-key=hunter2, authorization=Basic YTpi==").unwrap();
        assert_eq!(
            (&read["x-api-key"], &read["authorization"]),
            (&"hunter2".try_into().unwrap(), &"Basic YTpi==".try_into().unwrap())
        );
        for wrong in ["hunter2", "x-api-key=", "x api=hunter2", "x=hun\nter2"] {
            let error = headers(wrong).unwrap_err().to_string();
            assert!(!error.contains("hun"), "{error}");
        }
    }
}
