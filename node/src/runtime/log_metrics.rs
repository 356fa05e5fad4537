//! What the log counts, as metrics. Sampled when `/metrics` is asked for.

use dtm_storage::log::LogMetrics;

/// Hands the log's counters to the recorder.
pub(super) fn sample(log: &LogMetrics) {
    metrics::counter!("dtm_log_rounds_total").absolute(log.rounds);
    metrics::counter!("dtm_log_syncs_total").absolute(log.round_syncs + log.idle_syncs);
    metrics::counter!("dtm_log_bytes_total").absolute(log.written_bytes);
}
