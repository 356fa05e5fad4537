//! What the newest run of each drill came to: `latest.json`, and a page of it.

use std::fmt::Write;

use dtm_types::text::{Lang, render};
use serde::{Deserialize, Serialize};

use crate::page::{markdown, percent, seconds, time};
use crate::{ClusterPlan, Drill, Judged, Measured, Report, Titles, UnixMs, Verdict};

/// The newest run of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestDrill {
    /// Its name.
    pub name: String,
    /// For people.
    pub title: Titles,
    /// Its layout and the nodes of each site: `standby 3 + 3 + 1`; None in old results.
    #[serde(default)]
    pub layout: Option<String>,
    /// Whether it passed. One that could not be run did not.
    pub pass: bool,
    /// Why it could not be run on this machine; None: it was run.
    pub not_run: Option<String>,
    /// When it began, or was to begin.
    pub began: UnixMs,
    /// The end of it; None: it could not be run.
    pub verdict: Option<Verdict>,
    /// Each target: value, gate, pass.
    pub targets: Vec<LatestTarget>,
    /// All that was measured.
    pub measured: Measured,
    /// Its report, a path from the folder of results; None: it could not be run.
    pub report: Option<String>,
}

/// A target: times in milliseconds, availability in millionths, records in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestTarget {
    /// Its key in the drill's file.
    pub target: String,
    /// Under which the product's targets list it, where they do: `P19`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What was measured; None: it is not known, which is a miss.
    pub value: Option<u64>,
    /// What was asked for.
    pub gate: u64,
    /// Whether it holds.
    pub pass: bool,
}

impl From<&Judged> for LatestTarget {
    fn from(judged: &Judged) -> Self {
        Self {
            target: judged.target.clone(),
            id: judged.id.clone(),
            value: judged.measured,
            gate: judged.wanted,
            pass: judged.holds,
        }
    }
}

impl LatestDrill {
    /// Of a run whose report lies at `path` below the folder of results.
    #[must_use]
    pub fn ran(report: &Report, path: String) -> Self {
        Self {
            name: report.name.clone(),
            title: report.title.clone(),
            layout: report.cluster.as_ref().map(ClusterPlan::told),
            pass: report.verdict == Verdict::Passed,
            not_run: None,
            began: report.began,
            verdict: Some(report.verdict),
            targets: report.judged.iter().map(LatestTarget::from).collect(),
            measured: report.measured.clone(),
            report: Some(path),
        }
    }

    /// Of a drill that this machine cannot run.
    #[must_use]
    pub fn not_run(drill: &Drill, began: UnixMs, why: String) -> Self {
        Self {
            name: drill.name.clone(),
            title: drill.title.clone(),
            layout: Some(drill.cluster.told()),
            pass: false,
            not_run: Some(why),
            began,
            verdict: None,
            targets: Vec::new(),
            measured: Measured::default(),
            report: None,
        }
    }
}

/// The newest run of each drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// Of this format: 1.
    pub version: u32,
    /// In the order in which they were first run.
    pub drills: Vec<LatestDrill>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { version: 1, drills: Vec::new() }
    }
}

impl Latest {
    /// Takes a run in the place of an earlier one of that drill.
    pub fn put(&mut self, drill: LatestDrill) {
        match self.drills.iter_mut().find(|known| known.name == drill.name) {
            Some(known) => *known = drill,
            None => self.drills.push(drill),
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers have a form in JSON")
    }

    /// Reads what [`Latest::json`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// A table for people.
    #[must_use]
    pub fn markdown(&self, lang: Lang) -> String {
        let text = |key: &str| render(lang, key, &[]);
        let mut page = format!("# {}\n\n", text("drill.latest.title"));
        let heads = [
            "drill.page.name",
            "drill.page.layout",
            "drill.page.began",
            "drill.page.outcome",
            "drill.measured.acked",
            "drill.measured.lost",
            "drill.measured.rto",
            "drill.measured.ack-gap-p50",
            "drill.measured.ack-gap-p99",
            "drill.measured.availability",
        ];
        let heads: Vec<String> = heads.iter().map(|key| text(key)).collect();
        let _infallible =
            writeln!(page, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
        for drill in &self.drills {
            let _infallible = writeln!(page, "| {} |", drill.line(lang).join(" | "));
        }
        page
    }
}

impl LatestDrill {
    fn line(&self, lang: Lang) -> Vec<String> {
        let title = markdown(self.title.of(lang));
        let named = match &self.report {
            None => title,
            Some(report) => format!("[{title}]({})", page_of(report, lang)),
        };
        let outcome = match (&self.not_run, self.pass) {
            (Some(why), _) => render(lang, "drill.latest.not-run", &[("why", &markdown(why))]),
            (None, true) => render(lang, "drill.latest.passed", &[]),
            (None, false) => render(lang, "drill.latest.failed", &[]),
        };
        let measured = &self.measured;
        let shown = |value: Option<u64>, show: fn(u64) -> String| value.map(show);
        let number: fn(u64) -> String = |value| value.to_string();
        let values = [
            shown(measured.acked, number),
            shown(measured.lost, number),
            shown(measured.rto_ms, seconds),
            shown(measured.ack_gap_p50_ms, seconds),
            shown(measured.ack_gap_p99_ms, seconds),
            shown(measured.availability_ppm.map(u64::from), percent),
        ];
        let layout = self.layout.clone().unwrap_or_default();
        let mut line = vec![named, layout, time(self.began), outcome];
        line.extend(values.into_iter().map(Option::unwrap_or_default));
        line
    }
}

/// Beside the report in JSON lies its page in each language.
fn page_of(report: &str, lang: Lang) -> String {
    let code = if lang == Lang::Vi { "vi" } else { "en" };
    format!("{}.{code}.md", report.strip_suffix(".json").unwrap_or(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> Report {
        let judged = Judged {
            target: "rto".to_owned(),
            id: Some("P19".to_owned()),
            wanted: 2_000,
            measured: Some(1_100),
            holds: verdict == Verdict::Passed,
        };
        Report {
            version: 1,
            name: "leader-kill".to_owned(),
            title: Titles { vi: "Giết".to_owned(), en: "Kill".to_owned() },
            cluster: Some(ClusterPlan::default()),
            facts: Vec::new(),
            began: UnixMs(1_763_800_000_000),
            ended: UnixMs(1_763_800_060_000),
            steps: Vec::new(),
            healed: Vec::new(),
            measured: Measured { lost: Some(0), rto_ms: Some(1_100), ..Measured::default() },
            measured_not: None,
            judged: vec![judged],
            verdict,
        }
    }

    #[test]
    fn each_drill_stands_once_with_value_gate_and_pass() {
        let mut latest = Latest::default();
        latest.put(LatestDrill::ran(&report(Verdict::TargetsMissed), "leader-kill/1.json".into()));
        let disk = "name = \"disk\"\ntitle = { vi = \"Đĩa\", en = \"Disk\" }\n[targets]\n\
                    rto = \"1s\"\n[[step]]\ndo = \"rolling-restart\"\n";
        let disk = Drill::parse(disk).unwrap_or_else(|error| panic!("{error}"));
        let why = "no /dev/fuse".to_owned();
        latest.put(LatestDrill::not_run(&disk, UnixMs(0), why));
        latest.put(LatestDrill::ran(&report(Verdict::Passed), "leader-kill/2.json".into()));
        assert_eq!(Latest::from_json(&latest.json()).expect("its own"), latest);
        let [kill, disk] = &latest.drills[..] else { panic!("{latest:?}") };
        let (target, id) = ("rto".to_owned(), Some("P19".to_owned()));
        let target = LatestTarget { target, id, value: Some(1_100), gate: 2_000, pass: true };
        assert!(kill.pass && kill.targets == [target], "{kill:?}");
        assert!(!disk.pass && disk.verdict.is_none(), "what did not run did not pass");
        let (vi, en) = (latest.markdown(Lang::Vi), latest.markdown(Lang::En));
        for words in ["[Giết](leader-kill/2.vi.md)", "1.100 s", "no /dev/fuse", "single 3"] {
            assert!(vi.contains(words), "{words} is not in\n{vi}");
        }
        assert!(en.contains("[Kill](leader-kill/2.en.md)") && !en.contains("drill."), "{en}");
    }
}
