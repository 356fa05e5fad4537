//! A dashboard for Grafana over the metrics of all nodes.

use dtm_types::text::{Lang, render};
use serde_json::{Value, json};

/// One graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    /// Key of its title in the catalogue.
    pub(super) title: &'static str,
    /// Unit as Grafana calls it.
    pub(super) unit: &'static str,
    /// What it draws, and how each line is called.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

/// Every graph, in reading order.
pub(super) const PANELS: &[Panel] = &[
    Panel {
        title: "dashboard.records",
        unit: "ops",
        queries: &[("sum by (dataset) (rate(dtm_records_total[1m]))", "{{dataset}}")],
    },
    Panel {
        title: "dashboard.refused",
        unit: "ops",
        queries: &[("sum by (dataset) (rate(dtm_records_refused_total[1m]))", "{{dataset}}")],
    },
    Panel {
        title: "dashboard.acks",
        unit: "s",
        queries: &[
            ("histogram_quantile(0.5, sum by (le) (rate(dtm_ack_seconds_bucket[1m])))", "p50"),
            ("histogram_quantile(0.99, sum by (le) (rate(dtm_ack_seconds_bucket[1m])))", "p99"),
        ],
    },
    Panel {
        title: "dashboard.streams",
        unit: "short",
        queries: &[("dtm_sessions_open", "{{instance}}")],
    },
    Panel {
        title: "dashboard.leaders",
        unit: "short",
        queries: &[("dtm_groups_led", "{{instance}}")],
    },
    Panel {
        title: "dashboard.in_flight",
        unit: "bytes",
        queries: &[("dtm_in_flight_bytes", "{{instance}}")],
    },
    Panel {
        title: "dashboard.log_round",
        unit: "s",
        queries: &[(
            "histogram_quantile(0.99, sum by (le, instance) (rate(dtm_log_round_seconds_bucket[1m])))",
            "{{instance}}",
        )],
    },
    Panel {
        title: "dashboard.disk_free",
        unit: "bytes",
        queries: &[("dtm_disk_free_bytes", "{{instance}}")],
    },
    Panel {
        title: "dashboard.behind",
        unit: "short",
        queries: &[("dtm_cluster_missing_bundles", "{{instance}} {{group}}")],
    },
    Panel {
        title: "dashboard.clocks",
        unit: "s",
        queries: &[("dtm_clock_spread_seconds", "{{instance}}")],
    },
    Panel {
        title: "dashboard.callers",
        unit: "ops",
        queries: &[("sum by (code) (rate(dtm_refusals_total[5m]))", "{{code}}")],
    },
    Panel {
        title: "dashboard.alarms",
        unit: "short",
        queries: &[
            ("increase(dtm_ing1_alarms_total[1h])", "ING-1 {{instance}}"),
            ("increase(dtm_raft1_alarms_total[1h])", "RAFT-1 {{group}}"),
            ("dtm_compare_differing_rows", "P-20.3 {{group}}"),
            ("dtm_sites_without_standby", "P-20.1 {{group}}"),
        ],
    },
];

/// Graphs beside each other, and their size on Grafana's grid of 24 columns.
const ACROSS: usize = 3;
const WIDTH: usize = 24 / ACROSS;
const HEIGHT: usize = 8;

/// A dashboard to import; it asks for the Prometheus data source.
pub fn grafana(lang: Lang) -> String {
    let panels: Vec<Value> =
        PANELS.iter().enumerate().map(|(at, of)| panel(at, of, lang)).collect();
    let dashboard = json!({
        "__inputs": [{ "name": "DS", "label": "Prometheus", "type": "datasource",
                       "pluginId": "prometheus", "pluginName": "Prometheus" }],
        "title": render(lang, "dashboard.title", &[]),
        "uid": "dtm-cluster",
        "tags": ["dtm"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "panels": panels,
    });
    format!("{dashboard:#}")
}

fn panel(at: usize, panel: &Panel, lang: Lang) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${DS}" });
    let target = |(at, (expr, legend)): (usize, &(&str, &str))| {
        let id = char::from(b'A' + u8::try_from(at).unwrap_or(25)).to_string();
        json!({ "refId": id, "expr": expr, "legendFormat": legend, "datasource": source })
    };
    let targets: Vec<Value> = panel.queries.iter().enumerate().map(target).collect();
    json!({
        "id": at + 1,
        "type": "timeseries",
        "title": render(lang, panel.title, &[]),
        "datasource": source,
        "gridPos": { "x": at % ACROSS * WIDTH, "y": at / ACROSS * HEIGHT, "w": WIDTH, "h": HEIGHT },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "targets": targets,
    })
}
