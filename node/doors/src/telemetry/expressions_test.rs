//! What the files of `dtm generate` ask for is measured.

use std::collections::BTreeSet;

use super::{METRICS, MetricKind};

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
    let mut seen = 0;
    for expr in dtm_ctl::generate::expressions() {
        for name in named(expr) {
            assert!(is_measured(name), "{name} in {expr}");
            seen += 1;
        }
        assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
    }
    assert!(seen > 20, "{seen}");
    assert!(!is_measured("dtm_nothing_total"));
}
