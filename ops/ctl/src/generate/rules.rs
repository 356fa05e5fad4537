//! Alerts for Prometheus: what an operator must hear of, in what words, and the page that says what
//! to do.

use std::fmt::Write;

use dtm_types::text::{Lang, render};

/// One alert.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Its name.
    pub(super) name: &'static str,
    /// When it is raised.
    pub(super) expr: &'static str,
    /// For how long that must hold first; empty = at once.
    pub(super) lasts: &'static str,
    /// `critical`: somebody gets up. `warning`: somebody looks tomorrow.
    pub(super) severity: &'static str,
    /// Key of its words in the catalogue.
    pub(super) text: &'static str,
    /// Page in docs/runbooks.
    pub(super) runbook: &'static str,
}

/// Every alert.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "DtmAckedLost",
        expr: "increase(dtm_ing1_alarms_total[10m]) > 0",
        lasts: "",
        severity: "critical",
        text: "alert.acked_lost",
        runbook: "ing-1-alarm",
    },
    Rule {
        name: "DtmReplicasDiffer",
        expr: "increase(dtm_raft1_alarms_total[10m]) > 0",
        lasts: "",
        severity: "critical",
        text: "alert.replicas_differ",
        runbook: "raft-1-alarm",
    },
    Rule {
        name: "DtmNodeStopped",
        expr: "dtm_stopped == 1",
        lasts: "",
        severity: "critical",
        text: "alert.node_stopped",
        runbook: "node-stopped",
    },
    Rule {
        name: "DtmNodeDown",
        expr: r#"up{job="dtm"} == 0"#,
        lasts: "1m",
        severity: "critical",
        text: "alert.node_down",
        runbook: "lost-node",
    },
    Rule {
        name: "DtmGroupWithoutLeader",
        expr: "sum(dtm_groups_led) < count(count by (group) (dtm_group_term))",
        lasts: "30s",
        severity: "critical",
        text: "alert.group_without_leader",
        runbook: "lost-node",
    },
    Rule {
        name: "DtmReplicaDown",
        expr: "dtm_cluster_replicas_down > 0",
        lasts: "5m",
        severity: "warning",
        text: "alert.replica_down",
        runbook: "lost-node",
    },
    Rule {
        name: "DtmBundlesMissing",
        expr: "dtm_cluster_missing_bundles > 0",
        lasts: "15m",
        severity: "warning",
        text: "alert.bundles_missing",
        runbook: "lost-node",
    },
    Rule {
        name: "DtmDamageFound",
        expr: "increase(dtm_log_damaged_reads_total[15m]) > 0 or increase(dtm_cluster_scrub_damaged_total[15m]) > 0 or increase(dtm_state_damaged_groups_total[15m]) > 0",
        lasts: "",
        severity: "warning",
        text: "alert.damage_found",
        runbook: "node-stopped",
    },
    Rule {
        name: "DtmDiskFull",
        expr: "increase(dtm_cluster_waits_for_disk_total[5m]) > 0",
        lasts: "",
        severity: "critical",
        text: "alert.disk_full",
        runbook: "disk-full",
    },
    Rule {
        name: "DtmDiskFillsUp",
        expr: "predict_linear(dtm_disk_free_bytes[6h], 86400) < 0",
        lasts: "30m",
        severity: "warning",
        text: "alert.disk_fills_up",
        runbook: "disk-full",
    },
    Rule {
        name: "DtmClockAstray",
        expr: "dtm_clock_astray == 1",
        lasts: "1m",
        severity: "warning",
        text: "alert.clock_astray",
        runbook: "clock",
    },
    Rule {
        name: "DtmCertificateExpires",
        expr: "dtm_certificate_expires_seconds < 2592000",
        lasts: "1h",
        severity: "warning",
        text: "alert.certificate_expires",
        runbook: "certificates",
    },
    Rule {
        name: "DtmAcksSlow",
        expr: "histogram_quantile(0.99, sum by (le) (rate(dtm_ack_seconds_bucket[5m]))) > 1",
        lasts: "10m",
        severity: "warning",
        text: "alert.acks_slow",
        runbook: "slow-acks",
    },
    Rule {
        name: "DtmSiteLags",
        expr: "dtm_sites_lagging == 1",
        lasts: "1m",
        severity: "warning",
        text: "alert.site_lags",
        runbook: "site-lag",
    },
    Rule {
        name: "DtmLineCut",
        expr: "dtm_sites_line_up == 0",
        lasts: "15s",
        severity: "critical",
        text: "alert.line_cut",
        runbook: "line-cut",
    },
    Rule {
        name: "DtmSecondChannel",
        expr: "dtm_sites_path > 0",
        lasts: "",
        severity: "warning",
        text: "alert.second_channel",
        runbook: "line-cut",
    },
    Rule {
        name: "DtmChannelAwaits",
        expr: "dtm_sites_awaits_confirmation == 1",
        lasts: "",
        severity: "critical",
        text: "alert.channel_confirm",
        runbook: "line-cut",
    },
    Rule {
        name: "DtmNoStandby",
        expr: "dtm_sites_without_standby == 1",
        lasts: "",
        severity: "critical",
        text: "alert.no_standby",
        runbook: "site-lag",
    },
    Rule {
        name: "DtmRowsDiffer",
        expr: "dtm_compare_differing_rows > 0",
        lasts: "",
        severity: "critical",
        text: "alert.rows_differ",
        runbook: "rows-differ",
    },
    Rule {
        name: "DtmRowsNotCompared",
        expr: "dtm_compare_age_seconds > 3600",
        lasts: "",
        severity: "warning",
        text: "alert.rows_not_compared",
        runbook: "rows-differ",
    },
    Rule {
        name: "DtmReplicaNotCompared",
        expr: "dtm_compare_absent_replicas > 0",
        lasts: "1h",
        severity: "warning",
        text: "alert.replica_not_compared",
        runbook: "rows-differ",
    },
    Rule {
        name: "DtmClearValues",
        expr: "increase(dtm_records_unmasked_total[10m]) > 0",
        lasts: "",
        severity: "warning",
        text: "alert.clear_values",
        runbook: "clear-values",
    },
    Rule {
        name: "DtmManyRefused",
        expr: "sum by (code) (rate(dtm_refusals_total[5m])) > 1",
        lasts: "10m",
        severity: "warning",
        text: "alert.many_refused",
        runbook: "refused-callers",
    },
];

/// Labels, and what else, that the words of an alert name.
const LABELS: [&str; 6] = ["group", "source", "code", "node", "site", "contact"];
/// Whom the nodes name (`sites.contact`); nothing where they name nobody.
const CONTACT: &str =
    r#"{{ with query "dtm_sites_contact" }}{{ (first .).Labels.contact }}{{ end }}"#;

/// A file for `rule_files` of Prometheus. The words are those of `lang`, the other language's stand
/// beside them.
pub fn prometheus_rules(lang: Lang) -> String {
    let mut file = String::from(
        "# Made by dtm generate prometheus-rules. Scrape every node's /metrics under the job dtm;\n\
         # the words name a node by its address there (label instance).\n\
         groups:\n  - name: dtm\n    rules:\n",
    );
    let other = if lang == Lang::Vi { Lang::En } else { Lang::Vi };
    for rule in RULES {
        let _ = writeln!(file, "      - alert: {}", rule.name);
        let _ = writeln!(file, "        expr: {}", quoted(rule.expr));
        if !rule.lasts.is_empty() {
            let _ = writeln!(file, "        for: {}", rule.lasts);
        }
        let _ = writeln!(file, "        labels:\n          severity: {}", rule.severity);
        let _ = writeln!(file, "        annotations:");
        let _ = writeln!(file, "          summary: {}", quoted(&words(rule, lang)));
        let _ = writeln!(file, "          description: {}", quoted(&words(rule, other)));
        let page = format!("docs/runbooks/{}.md", rule.runbook);
        let _ = writeln!(file, "          runbook: {}", quoted(&page));
    }
    file
}

/// The words with Prometheus' own placeholders for labels.
fn words(rule: &Rule, lang: Lang) -> String {
    let placeholder = |label: &str| match label {
        "node" => "{{ $labels.instance }}".to_owned(),
        "contact" => CONTACT.to_owned(),
        label => format!("{{{{ $labels.{label} }}}}"),
    };
    let values = LABELS.map(placeholder);
    let values: Vec<(&str, &str)> =
        LABELS.iter().copied().zip(values.iter().map(String::as_str)).collect();
    render(lang, rule.text, &values)
}

/// A text of YAML: those of JSON are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
