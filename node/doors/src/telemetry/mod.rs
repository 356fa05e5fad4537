//! What the process says about itself: logs, metrics, and what it must not leave behind.
//!
//! Logs are JSON lines on stderr. Metrics go to one recorder whose text `/metrics` shows; every
//! name stands in [`METRICS`], from which `docs/metrics.md` comes. No payload, key or token goes
//! into either (SEC-1).
//!
//! Owner of the state: the process (global subscriber and recorder), set once at the start.

mod contained;
mod harden;
mod metrics;

#[cfg(test)]
mod expressions_test;

pub use contained::is_contained;
pub use contained::{ContainCalls, contained, contained_blocking};
pub use harden::{abort_on_panic, keep_files_private, leave_no_core};
pub use metrics::{METRICS, Metric, MetricKind, describe, markdown};

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

/// How often histograms are folded.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not one.
    #[error(
        "telemetry.log: {0:?} is not a log level or filter; write it like info,dtm_cluster=debug"
    )]
    Filter(String),
    /// Something has set a subscriber or recorder before.
    #[error("telemetry is set up already")]
    Twice,
    /// The recorder refused its settings.
    #[error("metrics cannot start: {0}")]
    Metrics(String),
}

/// Sends logs to stderr as JSON lines.
///
/// # Errors
/// [`Error::Filter`], [`Error::Twice`].
pub fn start_logs(filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|_| Error::Filter(filter.to_owned()))?;
    let logs = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    logs.try_init().map_err(|_| Error::Twice)
}

/// Whether [`start_logs`] would take it.
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

/// Starts the recorder; the returned function renders `/metrics`. Call inside a runtime.
///
/// # Errors
/// [`Error::Twice`], [`Error::Metrics`].
pub fn start_metrics() -> Result<Arc<dyn Fn() -> String + Send + Sync>, Error> {
    let failed = |e: metrics_exporter_prometheus::BuildError| Error::Metrics(e.to_string());
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| !metric.buckets.is_empty()) {
        let matcher = Matcher::Full(metric.name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, metric.buckets).map_err(failed)?;
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| Error::Twice)?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Values of histograms pile up until they are folded, whether anybody scrapes or not.
        let mut ticks = tokio::time::interval(FOLD_EVERY);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(Arc::new(move || handle.render()))
}
