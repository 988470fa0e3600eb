//! The names of all figures, with their units. Those of HTTP and of the store are OpenTelemetry's, in the form of Prometheus
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>); those of a process are Prometheus's own.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

pub(super) fn describe() {
    let seconds = Unit::Seconds;
    describe_histogram!("http_server_request_duration_seconds", seconds, "Requests by route and status.");
    describe_gauge!("http_server_active_requests", "Requests that have no complete response yet.");
    describe_gauge!("http_server_open_connections", "Connections of clients.");
    describe_histogram!("db_client_operation_duration_seconds", seconds, "What the store was asked to do.");
    describe_counter!("cache_lookups_total", "Lookups in the cache; outcome: hit, miss, or failed.");
    describe_counter!(
        "lock_acquisitions_total",
        "Locks asked for; outcome: acquired, held by another, or failed."
    );
    describe_histogram!(
        "http_client_request_duration_seconds",
        seconds,
        "Calls to other services, all attempts."
    );
    describe_counter!("http_client_retries_total", "Attempts after the first one of a call.");
    describe_counter!("job_runs_total", "Runs of jobs by their outcome.");
    describe_histogram!("job_run_duration_seconds", seconds, "How long jobs run.");
    describe_gauge!(
        "log_dropped_records",
        "Log records dropped since the start, because a sink was slow or failed."
    );
    describe_counter!("worker_deaths_total", "Workers that have died.");
    describe_counter!("server_reloads_total", "Reloads by their outcome: done, refused, or failed.");
}

/// Begins the counts of a supervisor at 0: an alert sees the first one too.
pub fn begin_supervisor() {
    counter!("worker_deaths_total").absolute(0);
    for outcome in ["done", "refused", "failed"] {
        counter!("server_reloads_total", "outcome" => outcome).absolute(0);
    }
}
