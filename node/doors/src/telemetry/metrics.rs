//! The table of metrics.

use std::fmt::Write;

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Spread of values.
    Histogram,
}

/// What is known about a metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static str,
    /// What it tells.
    pub meaning: &'static str,
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}

/// Seconds from half a millisecond to half a minute.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

macro_rules! metrics {
    ($($kind:ident $name:literal [$labels:literal] $unit:literal: $meaning:literal;)*) => {
        /// Every metric, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: $unit,
            labels: $labels,
            meaning: $meaning,
            buckets: if matches!(MetricKind::$kind, MetricKind::Histogram) { SECONDS } else { &[] },
        },)*];
    };
}

metrics! {
    Counter "dtm_connections_total" ["door"] "connections": "Connections that finished their handshake.";
    Counter "dtm_connections_refused_total" ["door, reason"] "connections": "Connections refused before any request. Reasons: connections_max, connections_per_address_max, socket, handshake, handshake_timeout.";
    Counter "dtm_opens_refused_total" ["code"] "streams": "Streams that were not opened, by error code (docs/errors).";
    Counter "dtm_refusals_total" ["code"] "calls": "Calls of those who are unknown or may not, by error code (docs/errors).";
    Gauge "dtm_sessions_open" [""] "streams": "Streams open on this node.";
    Counter "dtm_streams_cut_total" ["cause"] "streams": "Streams ended by this node because their right is gone or was changed (revoked) or cannot be known here (cut-off).";
    Counter "dtm_requests_late_total" [""] "calls": "Calls ended because a request of theirs was begun and not completed within `limits.request_within_ms`.";
    Counter "dtm_requests_crowded_total" [""] "calls": "Calls ended because too many requests of their connection waited for room within `limits.arriving_bytes_max` already.";
    Counter "dtm_reads_ended_total" ["cause"] "reads": "Reads ended by this node because their caller took nothing while others waited for the room of its answers (stalled).";
    Counter "dtm_sessions_failed_total" ["code"] "streams": "Streams that this node ended with an error, by error code.";
    Counter "dtm_sessions_crashed_total" [""] "streams": "Sessions that panicked; their clients reconnect and resume. Anything above 0 is a bug.";
    Counter "dtm_records_received_total" [""] "records": "Records that were checked and sealed, resends included.";
    Counter "dtm_records_total" ["dataset"] "records": "Records committed through this node, refused ones not included.";
    Counter "dtm_records_refused_total" ["dataset"] "records": "Records that broke their contract and went to quarantine.";
    Counter "dtm_records_reported_total" ["source, rule"] "findings": "Findings in records that were accepted and marked, such as a dossier code of another day. At most 1,000 sources a node, further ones as `other`.";
    Counter "dtm_records_unmasked_total" ["source"] "records": "Records with a clear value in a field agreed as masked; masked or refused before anything was stored. Anything above 0 is an alarm. Sources as above.";
    Counter "dtm_records_unknown_state_total" [""] "records": "Records with a dossier state that the data set's list does not know.";
    Counter "dtm_record_bytes_total" [""] "bytes": "Bytes of records and envelopes committed through this node, before compression.";
    Counter "dtm_duplicates_total" [""] "records": "Records whose message id was held already.";
    Counter "dtm_batches_proposed_again_total" [""] "rounds": "Rounds in which batches without an outcome were proposed again.";
    Counter "dtm_resend_conflicts_total" [""] "batches": "Resends whose content differs from what is held.";
    Histogram "dtm_ack_seconds" [""] "seconds": "From the seal of a batch to its acknowledgement; records that waited in an open batch have waited before.";
    Gauge "dtm_arriving_bytes" [""] "bytes": "Room of requests that have begun and are not yet complete and taken in.";
    Gauge "dtm_in_flight_bytes" [""] "bytes": "Bytes taken in and not yet committed: of each frame its request, or what it takes in memory where that is more.";
    Counter "dtm_ing1_alarms_total" [""] "streams": "ING-1: a client showed the token of an acknowledgement beyond what is held. Anything above 0 is an incident.";
    Counter "dtm_ing1_unproven_total" [""] "streams": "A client said so without that token.";
    Counter "dtm_raft1_alarms_total" ["group"] "groups": "RAFT-1: replicas differ at one index. Anything above 0 is an incident.";
    Counter "dtm_led1_alarms_total" ["group"] "groups": "LED-1: a ledger has fewer leaves than were anchored, or another root at their number. Anything above 0 is an incident.";
    Counter "dtm_ledger_anchors_total" [""] "anchors": "Anchors of all ledgers that this node entered as the leader of meta.";
    Gauge "dtm_ledger_anchor_age_seconds" [""] "seconds": "Since the newest anchor that this node knows. Above 120 nobody enters them: meta has no leader, or its clock is held back.";
    Counter "dtm_raft1_compared_total" [""] "comparisons": "Ledgers of two replicas compared at one index.";
    Gauge "dtm_clock_offset_seconds" ["peer"] "seconds": "The clock of another node less this node's, by its quickest recent answer; true to half of that round trip. A node that no longer answers keeps its last value.";
    Gauge "dtm_clock_spread_seconds" [""] "seconds": "Between the slowest and the fastest clock that this node hears, its own included. Above `raft.clock_offset_max_ms` it is an alarm.";
    Gauge "dtm_clock_astray" [""] "0 or 1": "1 while this node's clock is further than `raft.clock_offset_max_ms` from the median: it neither leads nor stamps where another node can.";
    Gauge "dtm_clock_held_back_seconds" [""] "seconds": "How far this node's stamps are held behind its clock, because the clocks do not agree on it or were all set forward.";
    Counter "dtm_sessions_moved_total" [""] "streams": "Streams that were asked to move to the new leader of their group.";
    Counter "dtm_cluster_takeovers_total" [""] "groups": "Groups that elected at once because their leader's process was gone.";
    Counter "dtm_cluster_moves_total" [""] "replicas": "Replicas that the controller on this node let move to another node: to even out, to spread, or because theirs was given up.";
    Gauge "dtm_settings_version" [""] "version": "Version of the cluster's settings that this node goes by; 0 = none.";
    Gauge "dtm_settings_pending" [""] "keys": "Settings that this node takes only at its next start.";
    Gauge "dtm_settings_not_taken" [""] "keys": "Settings that this node does not take: its software does not know them, or they do not go with its own file. Above 0 it is an alarm.";
    Gauge "dtm_groups_led" [""] "groups": "Groups that this node leads.";
    Gauge "dtm_group_term" ["group"] "term": "Term of a group as this node knows it.";
    Gauge "dtm_group_applied_index" ["group"] "index": "Last applied entry on this node.";
    Gauge "dtm_ledger_size" ["group"] "leaves": "Leaves of a group's ledger on this node.";
    Counter "dtm_bundles_total" [""] "entries": "Commit rounds that this node began as a leader: one bundle of commands, one Raft entry each.";
    Counter "dtm_commands_total" [""] "commands": "Commands in them.";
    Counter "dtm_cluster_logs_went_back_total" [""] "answers": "Answers of replicas whose log lacks what it had held: their node runs on an old copy of its disk.";
    Counter "dtm_cluster_append_stalls_total" [""] "streams": "Append streams that were given up because a follower was silent.";
    Counter "dtm_cluster_group_failures_total" ["group"] "groups": "Groups that stopped on this node because apply failed.";
    Counter "dtm_cluster_peer_refused_total" ["cause"] "calls": "Peers refused: certificate, cluster, incarnation, origin, removed, unlisted, old-copy, handshakes (a new connection took the place of one that said nothing).";
    Counter "dtm_cluster_replicas_recovering_total" [""] "replicas": "Replicas found damaged at the start.";
    Counter "dtm_log_rounds_total" [""] "rounds": "Rounds of the node's log: one write for all groups.";
    Counter "dtm_log_syncs_total" [""] "calls": "fdatasync calls of the log.";
    Counter "dtm_log_idle_syncs_total" [""] "calls": "Of those, calls that proved the last round after a while without work.";
    Counter "dtm_log_requests_total" [""] "requests": "Requests of groups that the rounds carried.";
    Histogram "dtm_log_round_seconds" [""] "seconds": "One round of the node's log, write and fdatasync.";
    Counter "dtm_log_bytes_total" [""] "bytes": "Bytes written to the log.";
    Counter "dtm_log_payload_bytes_total" [""] "bytes": "Of those, entries.";
    Counter "dtm_log_disk_reads_total" [""] "reads": "Entries read from disk, not from memory.";
    Counter "dtm_log_damaged_reads_total" [""] "blocks": "Blocks found damaged when read. Anything above 0 is an incident.";
    Gauge "dtm_log_cache_bytes" [""] "bytes": "Entries kept in memory.";
    Gauge "dtm_log_segments" [""] "files": "Sealed segment files of the log.";
    Counter "dtm_state_batches_total" [""] "batches": "Write batches of rows.";
    Counter "dtm_state_batch_bytes_total" [""] "bytes": "Bytes in them.";
    Counter "dtm_state_flushes_total" [""] "flushes": "Rows brought to disk.";
    Counter "dtm_state_failures_total" [""] "failures": "Failures that closed the state for writing.";
    Counter "dtm_state_damaged_groups_total" [""] "groups": "Groups whose rows were found damaged.";
    Gauge "dtm_state_memory_bytes" [""] "bytes": "Rows in memory and not yet flushed.";
    Gauge "dtm_state_disk_bytes" [""] "bytes": "Rows on disk.";
    Gauge "dtm_state_merge_debt_bytes" [""] "bytes": "Rows that wait to be merged.";
    Gauge "dtm_state_frozen_views" [""] "views": "Frozen views that readers hold.";
    Gauge "dtm_state_background_errors" [""] "errors": "Errors of the state's background work.";
    Gauge "dtm_cluster_missing_bundles" ["group"] "bundles": "Committed bundles that this replica does not hold and fetches from another.";
    Gauge "dtm_cluster_replicas_down" [""] "replicas": "Replicas of this node that neither vote nor serve while they are mended.";
    Counter "dtm_cluster_replicas_mended_total" [""] "replicas": "Replicas that were mended and run again.";
    Counter "dtm_cluster_entries_repaired_total" [""] "entries": "Log entries fetched from other replicas in place of damaged ones.";
    Gauge "dtm_compare_age_seconds" ["group"] "seconds": "Since the last whole comparison of the rows of the group's replicas began, or since this node leads the group. 0 where another node leads it. A difference that is younger may not have been seen.";
    Gauge "dtm_compare_differing_rows" ["group"] "rows": "Rows that the last comparison found not to be the same on all replicas, by the group's leader; 0 again once they are.";
    Gauge "dtm_compare_absent_replicas" ["group"] "replicas": "Members of the group that the last comparison left out: away, or too far behind.";
    Counter "dtm_compare_rows_differ_total" ["group, table"] "rows": "Rows that were found to differ and named in the log, by table (docs/formats.md).";
    Counter "dtm_compare_repairs_total" ["group"] "replicas": "Replicas whose rows were ordered to be rebuilt, because they are not those of a majority of the voters.";
    Counter "dtm_compare_bytes_total" [""] "bytes": "Bytes of rows that this node compared with those of other replicas, of groups that it leads.";
    Counter "dtm_cluster_states_rebuilt_total" [""] "replicas": "Rows rebuilt from another replica's snapshot.";
    Counter "dtm_cluster_snapshots_needless_total" [""] "snapshots": "Snapshots that came when the log held their last entry; nothing was installed.";
    Counter "dtm_cluster_snapshots_cut_total" [""] "snapshots": "Snapshots that were cut off; what they lacked is fetched later.";
    Counter "dtm_cluster_waits_for_disk_total" ["what"] "tries": "Writes of a group (log, rows, flush) put off because the disk is full.";
    Counter "dtm_cluster_scrub_damaged_total" [""] "blocks": "Damaged blocks found by reading segments again.";
    Counter "dtm_cluster_bundles_fetched_total" [""] "bundles": "Missing bundles fetched from other replicas.";
    Counter "dtm_cluster_scrubbed_bytes_total" [""] "bytes": "Bytes of sealed segments read again to find damage.";
    Counter "dtm_cluster_forward_streams_failed_total" [""] "streams": "Streams for forwarded commands that a leader's node did not open.";
    Counter "dtm_cluster_appends_turned_away_total" [""] "messages": "Appends of a leader turned away because the disk is full.";
    Gauge "dtm_sites_line_up" ["node"] "lines": "1 while there is a connection to a node of another site, else 0; not a number once no line is kept to it.";
    Gauge "dtm_sites_path" ["node"] "position": "Position of the path in use to that node, 0 for the first; -1 = cut.";
    Gauge "dtm_sites_first_path_cut_seconds" ["node"] "seconds": "How long the first path to that node has been cut, since the last good message over it.";
    Gauge "dtm_sites_awaits_confirmation" ["node"] "lines": "1 while the second path to that node waits for `dtm site confirm`, else 0.";
    Gauge "dtm_sites_contact" ["contact"] "contacts": "1; its label is whom to tell of a line that is cut (`sites.contact`). Not there where nobody is named.";
    Gauge "dtm_sites_rtt_seconds" ["node"] "seconds": "Round trip of the connection in use to that node.";
    Counter "dtm_sites_packets_lost_total" ["node"] "packets": "Packets to that node that were lost.";
    Counter "dtm_sites_sent_bytes_total" ["node"] "bytes": "Bytes sent to that node, headers of QUIC included.";
    Counter "dtm_sites_received_bytes_total" ["node"] "bytes": "Bytes received from that node, headers of QUIC included.";
    Counter "dtm_sites_cuts_total" ["node"] "cuts": "Times that no path to that node had a connection any more.";
    Counter "dtm_sites_switches_total" ["node"] "switches": "Changes of the path in use to that node, returns to the first included.";
    Counter "dtm_sites_incidents_total" ["node"] "incidents": "Times that the first path to that node was cut for 30 seconds.";
    Counter "dtm_sites_entries_lost_total" [""] "entries": "Entries about lines that were given up, since the ledger took none for too long.";
    Counter "dtm_sites_standby_ordered_total" ["node"] "orders": "Times that the standby channel was ordered: the first path was cut for the time of the rule.";
    Gauge "dtm_primacy_may_acknowledge" [""] "0 or 1": "1 while this node may acknowledge: always, but where a register decides which site is primary.";
    Counter "dtm_primacy_refused_total" [""] "commands": "Commands of sessions that were not proposed, because this node may not acknowledge.";
    Counter "dtm_primacy_untold_total" [""] "commands": "Outcomes that were not told, because the right to acknowledge ended meanwhile.";
    Gauge "dtm_sites_through_index" ["group"] "index": "Where the layout has a standby: through which index of the group's log a majority of the replicas there has everything on disk, by the group's leader. 0: not known.";
    Counter "dtm_site_acks_late_total" [""] "streams": "Streams at ack level `site` that were ended, or not opened, because the standby had made no progress for `limits.site_ack_within_ms`.";
    Counter "dtm_site_actions_late_total" [""] "actions": "Changes of meta that others depend on and that were answered `outcome-unknown`, because the standby did not have them within `limits.site_ack_within_ms`.";
    Gauge "dtm_sites_lag_entries" ["group, site"] "entries": "Committed entries that the replica furthest behind at another site does not hold, by the group's leader.";
    Gauge "dtm_sites_lag_seconds" ["group, site"] "seconds": "Age of the oldest of them, as far back as that leader has led.";
    Gauge "dtm_sites_lagging" ["group, site"] "groups": "1 while that is above `sites.lag_alarm_ms`, else 0.";
    Gauge "dtm_sites_standby_sets" ["group"] "replicas": "Where the layout has a standby: copies of the group there that answer and are not late, by the group's leader.";
    Gauge "dtm_sites_without_standby" ["group"] "groups": "1 where the layout has a standby and there is no such copy: the data have no standby set in time. Else 0.";
    Counter "dtm_sites_refused_total" ["cause"] "connections": "Connections and lanes between sites that were refused. Causes: certificate, handshake, handshakes, lane.";
    Counter "dtm_state_disk_full_total" [""] "tries": "Writes and flushes of rows refused because the disk is full.";
    Counter "dtm_state_moved_aside_total" [""] "folders": "Damaged folders of rows moved aside at a start.";
    Gauge "dtm_disk_free_bytes" [""] "bytes": "Free space where the data folder lies.";
    Gauge "dtm_stopped" [""] "0 or 1": "1 when the fail-stop latch fell after a failed disk write.";
    Gauge "dtm_certificate_expires_seconds" [""] "seconds": "Time left on this node's certificate.";
    Counter "dtm_backups_total" [""] "backups": "Backups written by this node, read back and entered in the ledger.";
    Counter "dtm_backups_failed_total" [""] "backups": "Backups that were begun, asked for or due by schedule, and not written.";
    Gauge "dtm_backup_newest_cut_seconds" [""] "seconds": "Group time of meta at the anchor of the newest backup that this run of the node wrote, Unix seconds: what was acknowledged before is in it.";
}

/// Tells the recorder units and meanings, so that `/metrics` carries them, and begins the counters
/// without labels at 0: a first alarm is seen as a rise from there, not as a new series.
pub fn describe() {
    for metric in METRICS {
        if metric.kind == MetricKind::Counter && metric.labels.is_empty() {
            ::metrics::counter!(metric.name).increment(0);
        }
        match metric.kind {
            MetricKind::Counter => ::metrics::describe_counter!(metric.name, metric.meaning),
            MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.meaning),
            MetricKind::Histogram => ::metrics::describe_histogram!(metric.name, metric.meaning),
        }
    }
}

/// `docs/metrics.md` as it is committed.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated by `dtm config docs --page metrics`; do not edit.\n\n\
         `/metrics` on the HTTPS port, Prometheus text format, with the certificate of an operator or \
         auditor. Counters without labels are there from the start, others from their first \
         event.\n\n\
         Open to everybody on the same port: `/healthz` answers 200 while the process lives; \
         `/readyz` answers 200 while this node can commit and takes sessions (`ready`, or `ready, \
         degraded:` with the replicas that are being mended), else 503 with the reason: a group \
         without a leader, no majority, a node that is drained, has stopped itself or lacks the \
         cluster key. It is what a load balancer asks; `grpc.health.v1` on the gRPC port says the same \
         of `dtm.ingest.v1.IngestService`.\n\n| name | kind | labels | unit | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = writeln!(
            page,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.name, metric.labels, metric.unit, metric.meaning
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_without_labels_are_there_before_the_first_event() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, describe);
        let text = handle.render();
        for name in ["dtm_ing1_alarms_total", "dtm_log_damaged_reads_total"] {
            assert!(text.lines().any(|line| line == format!("{name} 0")), "{name}: {text}");
        }
        assert!(!text.contains("\ndtm_raft1_alarms_total"), "its labels are not known yet");
    }

    #[test]
    fn names_follow_the_convention() {
        for metric in METRICS {
            assert!(
                metric.name.starts_with("dtm_") && !metric.meaning.is_empty(),
                "{}",
                metric.name
            );
            assert_eq!(
                metric.kind == MetricKind::Counter,
                metric.name.ends_with("_total"),
                "{}: counters, and only they, end in _total",
                metric.name
            );
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
