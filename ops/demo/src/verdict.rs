//! What the demo found, in words and as yes or no.

use std::time::Duration;

use crate::history::Findings;
use crate::quarantine::Refusals;
use crate::say::Say;
use crate::status::Roots;
use crate::table::cut;

/// Everything that was measured and counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Records sent.
    pub(crate) sent: u64,
    /// Records acknowledged, refusals included.
    pub(crate) acked: u64,
    /// What each node returned, by name.
    pub(crate) nodes: Vec<(String, Findings)>,
    /// Refused records.
    pub(crate) refusals: Refusals,
    /// Longest silence of each source around the kill, in order.
    pub(crate) gaps: Vec<Duration>,
    /// The ledgers.
    pub(crate) roots: Roots,
    /// Which node was killed.
    pub(crate) killed: String,
    /// Median and 99th percentile of the time to an ack, microseconds.
    pub(crate) latency_us: (u64, u64),
}

impl Verdict {
    /// Nothing lost, doubled, out of order or strange on any node; the ledgers agree; all that was
    /// sent was acknowledged.
    pub(crate) fn is_good(&self) -> bool {
        !self.nodes.is_empty()
            && self.nodes.iter().all(|(_, findings)| findings.is_clean())
            && self.refusals.are_as_meant()
            && self.roots.all_agree()
            && self.acked == self.sent
            && self.sent > 0
    }

    /// The report.
    pub(crate) fn lines(&self, say: Say) -> Vec<String> {
        let mut lines = vec![String::new(), say.text("verdict", &[])];
        let row = |key: &str, value: String| {
            let name = say.text(key, &[]);
            let pad = 26usize.saturating_sub(name.chars().count());
            format!("  {name}{} {value}", " ".repeat(pad))
        };
        let each = |of: fn(&Findings) -> u64| {
            let nodes = self.nodes.iter();
            let shown: Vec<_> =
                nodes.map(|(name, f)| format!("{name} {}", say.number(of(f)))).collect();
            shown.join("   ")
        };
        lines.push(row("sent", say.number(self.sent)));
        lines.push(row("acked", say.number(self.acked)));
        let (p50, p99) = (say.millis(self.latency_us.0), say.millis(self.latency_us.1));
        lines.push(row("latency", say.text("latency_value", &[("p50", &p50), ("p99", &p99)])));
        lines.push(row("stored", each(|f| f.stored)));
        lines.push(row("lost", each(|f| f.lost)));
        lines.push(row("doubled", each(|f| f.doubled)));
        lines.push(row("out_of_order", each(|f| f.out_of_order)));
        lines.push(row("strange", each(|f| f.strange)));
        lines.push(row("refused", say.number(self.refusals.kept + self.refusals.beyond_quota)));
        lines.extend(self.reasons(say));
        lines.push(row("gap", self.gap_text(say)));
        lines.push(row("ledgers", self.roots_text(say)));
        lines.push(String::new());
        lines.push(say.text(if self.is_good() { "good" } else { "bad" }, &[]));
        lines
    }

    fn reasons(&self, say: Say) -> Vec<String> {
        let mut rules: Vec<_> = self.refusals.by_rule.iter().collect();
        rules.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let mut lines: Vec<_> = rules
            .into_iter()
            .map(|(rule, (count, texts))| {
                let sample = cut(Refusals::sample(texts, say), 110);
                format!("    {:>6}  {rule}: {sample}", say.number(*count))
            })
            .collect();
        for (key, count) in
            [("refused_missing", self.refusals.missing), ("refused_wrong", self.refusals.wrong)]
        {
            if count > 0 {
                lines.push(format!("    ! {}", say.text(key, &[("count", &say.number(count))])));
            }
        }
        lines
    }

    fn gap_text(&self, say: Say) -> String {
        let at = |share: f64| {
            let last = self.gaps.len().saturating_sub(1);
            let index = (last as f64 * share).ceil() as usize;
            let gap = self.gaps.get(index).copied().unwrap_or_default();
            say.millis(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX))
        };
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        let values = [("node", self.killed.as_str()), ("max", &max), ("p99", &p99), ("p50", &p50)];
        say.text("gap_value", &values)
    }

    fn roots_text(&self, say: Say) -> String {
        if self.roots.all_agree() {
            let groups = self.roots.agree.to_string();
            return say.text("roots_agree", &[("groups", &groups)]);
        }
        let list = |groups: &[u32]| {
            let shown: Vec<_> = groups.iter().map(u32::to_string).collect();
            if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
        };
        let (differ, open) = (list(&self.roots.differ), list(&self.roots.open));
        say.text("roots_differ", &[("differ", &differ), ("open", &open)])
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    fn good() -> Verdict {
        let findings = Findings { stored: 9, ..Findings::default() };
        Verdict {
            sent: 10,
            acked: 10,
            nodes: ["n1", "n2", "n3"].map(|name| (name.to_owned(), findings.clone())).to_vec(),
            gaps: (1..=40).map(Duration::from_millis).collect(),
            roots: Roots { agree: 13, ..Roots::default() },
            ..Verdict::default()
        }
    }

    #[test]
    fn any_one_fault_is_a_bad_end() {
        assert!(good().is_good());
        let spoils: [fn(&mut Verdict); 9] = [
            |v| v.acked = 9,
            |v| v.nodes.clear(),
            |v| v.nodes[2].1.lost = 1,
            |v| v.nodes[1].1.doubled = 1,
            |v| v.nodes[0].1.out_of_order = 1,
            |v| v.nodes[0].1.strange = 1,
            |v| v.refusals.missing = 1,
            |v| v.roots.differ = vec![3],
            |v| v.roots.open = vec![3],
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut verdict = good();
            spoil(&mut verdict);
            assert!(!verdict.is_good(), "{at}");
        }
    }

    #[test]
    fn the_report_has_every_text() {
        for lang in [Lang::Vi, Lang::En] {
            let text = good().lines(Say(lang)).join("\n");
            assert!(!text.contains("demo."), "a text is missing: {text}");
            assert!(text.contains("n3 9") && text.contains("40"), "{text}");
        }
    }
}
