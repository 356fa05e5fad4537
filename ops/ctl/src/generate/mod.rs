//! Files for the systems that watch a cluster, made from what this version measures.

mod dashboard;
mod rules;

pub use dashboard::grafana;
pub use rules::prometheus_rules;

/// Every expression over metrics in these files: the binary holds them against what it measures.
pub fn expressions() -> impl Iterator<Item = &'static str> {
    let of_panels = dashboard::PANELS.iter().flat_map(|panel| panel.queries).map(|(expr, _)| *expr);
    rules::RULES.iter().map(|rule| rule.expr).chain(of_panels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use dtm_types::text::{Lang, is_held};

    use super::dashboard::PANELS;
    use super::rules::RULES;
    use super::*;

    #[test]
    fn every_alert_has_words_and_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks");
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
