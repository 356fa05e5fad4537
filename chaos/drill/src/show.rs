//! What is printed: one line a drill, and a table at the end.

use dtm_scenario::LatestDrill;

use crate::say;

/// How a drill ended, on one line.
pub(crate) fn verdict(drill: &LatestDrill) -> String {
    if let Some(why) = &drill.not_run {
        return say::text("drill.latest.not-run", &[("why", why)]);
    }
    let key = if drill.pass { "drill.latest.passed" } else { "drill.latest.failed" };
    // What was missed, and the targets of the product.
    let shown = drill.targets.iter().filter(|t| !t.pass || t.id.is_some());
    let shown: Vec<String> = shown.map(target).collect();
    let verdict = say::text(key, &[]);
    if shown.is_empty() { verdict } else { format!("{verdict}: {}", shown.join("; ")) }
}

fn target(target: &dtm_scenario::LatestTarget) -> String {
    let unknown = || say::text("drill.page.unknown", &[]);
    let value = target.value.map_or_else(unknown, |value| value.to_string());
    let id = target.id.as_ref().map(|id| format!("{id} ")).unwrap_or_default();
    format!("{id}{} {value} / {}", target.target, target.gate)
}

/// All drills of a run.
pub(crate) fn table(drills: &[LatestDrill]) -> String {
    let ms = |value: Option<u64>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let mut lines = vec![format!(
        "{:<18} {:>5} {:>9} {:>6} {:>10} {:>10} {:>10} {:>9}",
        "", "", "acked", "RPO", "RTO", "gap p50", "gap p99", "avail."
    )];
    lines.extend(drills.iter().map(|drill| {
        let measured = &drill.measured;
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
        let share = measured.availability_ppm;
        let share = share.map_or("-".to_owned(), |ppm| format!("{:.2} %", f64::from(ppm) / 1e4));
        format!(
            "{:<18} {:>5} {:>9} {:>6} {:>10} {:>10} {:>10} {:>9}",
            drill.name,
            if drill.pass { "ok" } else { "FAIL" },
            number(measured.acked),
            number(measured.lost),
            ms(measured.rto_ms),
            ms(measured.ack_gap_p50_ms),
            ms(measured.ack_gap_p99_ms),
            share
        )
    }));
    lines.join("\n")
}

/// The machine, for the report.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim())
}
