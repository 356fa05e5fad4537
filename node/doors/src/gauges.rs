//! What is measured when `/metrics` is asked for: levels, and the counters that the log keeps.

use super::shared::Shared;

impl Shared {
    /// Brings the levels up to date.
    pub fn measure(&self) {
        metrics::gauge!("dtm_in_flight_bytes").set(self.sources.in_flight_bytes() as f64);
        metrics::gauge!("dtm_arriving_bytes").set(self.room.arrivals.bytes() as f64);
        metrics::gauge!("dtm_disk_free_bytes").set(self.disk_free_bytes() as f64);
        metrics::gauge!("dtm_stopped").set(if self.stopped().is_some() { 1.0 } else { 0.0 });
        let left_us = self.material.not_after_us() - self.clock.now_us();
        metrics::gauge!("dtm_certificate_expires_seconds").set(left_us as f64 / 1e6);
        let settings = self.settings.now();
        metrics::gauge!("dtm_settings_version").set(settings.row.version as f64);
        metrics::gauge!("dtm_settings_pending").set(settings.pending.len() as f64);
        metrics::gauge!("dtm_settings_not_taken").set(settings.not_taken.len() as f64);
        self.states.figures();
        self.measure_groups();
        self.measure_log();
    }

    fn measure_groups(&self) {
        let groups = self.cluster.status();
        let led = groups.iter().filter(|group| group.leader == Some(self.node)).count();
        metrics::gauge!("dtm_groups_led").set(led as f64);
        for group in groups {
            let id = group.group.to_string();
            metrics::gauge!("dtm_group_term", "group" => id.clone()).set(group.term as f64);
            metrics::gauge!("dtm_group_applied_index", "group" => id.clone())
                .set(group.head.index as f64);
            metrics::gauge!("dtm_ledger_size", "group" => id).set(group.head.ledger_size as f64);
        }
    }

    fn measure_log(&self) {
        let log = self.log.metrics();
        metrics::counter!("dtm_log_rounds_total").absolute(log.rounds);
        metrics::counter!("dtm_log_syncs_total").absolute(log.round_syncs + log.idle_syncs);
        metrics::counter!("dtm_log_idle_syncs_total").absolute(log.idle_syncs);
        metrics::counter!("dtm_log_requests_total").absolute(log.requests);
        metrics::counter!("dtm_log_bytes_total").absolute(log.written_bytes);
        metrics::counter!("dtm_log_payload_bytes_total").absolute(log.payload_bytes);
        metrics::counter!("dtm_log_disk_reads_total").absolute(log.disk_reads);
        metrics::counter!("dtm_log_damaged_reads_total").absolute(log.damaged_reads);
        metrics::gauge!("dtm_log_cache_bytes").set(log.cache_bytes as f64);
        metrics::gauge!("dtm_log_segments").set(self.log.segments().len() as f64);
    }
}
