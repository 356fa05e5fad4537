//! Files for the systems that watch a cluster, made from what this version measures.

mod dashboard;
mod rules;

pub use dashboard::grafana;
pub use rules::prometheus_rules;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use dtm_types::text::{Lang, is_held};

    use super::dashboard::PANELS;
    use super::rules::RULES;
    use super::*;
    use crate::telemetry::{METRICS, MetricKind};

    /// Names of this software's metrics in an expression.
    fn named(expr: &str) -> BTreeSet<&str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        expr.split(|c: char| !is_part(c)).filter(|word| word.starts_with("dtm_")).collect()
    }

    fn is_measured(name: &str) -> bool {
        METRICS.iter().any(|metric| match metric.kind {
            MetricKind::Histogram => name.strip_suffix("_bucket") == Some(metric.name),
            _ => name == metric.name,
        })
    }

    #[test]
    fn every_expression_is_about_metrics_that_there_are() {
        let of_panels = PANELS.iter().flat_map(|panel| panel.queries).map(|(expr, _)| *expr);
        let mut seen = 0;
        for expr in RULES.iter().map(|rule| rule.expr).chain(of_panels) {
            for name in named(expr) {
                assert!(is_measured(name), "{name} in {expr}");
                seen += 1;
            }
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
        }
        assert!(seen > 20, "{seen}");
        assert!(!is_measured("dtm_nothing_total"));
    }

    #[test]
    fn every_alert_has_words_and_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
        for rule in RULES {
            assert!(is_held(rule.text), "{}", rule.text);
            let page = pages.join(rule.runbook).with_extension("md");
            assert!(page.exists(), "{} names {}", rule.name, page.display());
        }
        for lang in [Lang::Vi, Lang::En] {
            let file = prometheus_rules(lang);
            assert_eq!(file.matches("- alert: ").count(), RULES.len());
            assert!(file.contains("{{ $labels.instance }}") && !file.contains("alert."), "{file}");
        }
    }

    #[test]
    fn the_dashboard_reads_and_shows_each_panel_once() {
        for lang in [Lang::Vi, Lang::En] {
            let dashboard: serde_json::Value =
                serde_json::from_str(&grafana(lang)).expect("it is JSON");
            let panels = dashboard["panels"].as_array().expect("a list");
            let at = |panel: &serde_json::Value| panel["gridPos"].to_string();
            let places: BTreeSet<String> = panels.iter().map(at).collect();
            assert_eq!((panels.len(), places.len()), (PANELS.len(), PANELS.len()));
            for panel in panels {
                let title = panel["title"].as_str().unwrap_or_default();
                assert!(!title.is_empty() && !title.starts_with("dashboard."), "{title}");
            }
        }
    }
}
