//! The report as Markdown and as a page to print, in either language.

use std::fmt::Write;
use std::time::Duration;

use dtm_types::text::{Lang, render};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use crate::report::judge;
use crate::{ClusterPlan, Drill, Judged, Measured, Report, StepReport, UnixMs};

/// Hours before UTC of the times on pages: Vietnam's.
const HOURS_AHEAD: i8 = 7;

/// A table: its head, its lines.
type Table = (Vec<String>, Vec<Vec<String>>);

impl Report {
    /// For files that people read as text.
    #[must_use]
    pub fn markdown(&self, lang: Lang) -> String {
        let mut page = String::new();
        let verdict = self.verdict_text(lang);
        let title = self.title.of(lang);
        let _infallible = writeln!(page, "# {}\n\n**{}**\n", markdown(title), markdown(&verdict));
        for (name, value) in self.facts_of(lang) {
            let _infallible = writeln!(page, "- {}: {}", markdown(&name), markdown(&value));
        }
        for (heading, (head, lines)) in self.tables(lang) {
            if lines.is_empty() {
                continue;
            }
            let _infallible = writeln!(page, "\n## {heading}\n");
            let row = |cells: &[String]| {
                let cells: Vec<String> = cells.iter().map(|cell| markdown(cell)).collect();
                format!("| {} |", cells.join(" | "))
            };
            let _infallible = writeln!(page, "{}\n|{}", row(&head), "---|".repeat(head.len()));
            for line in lines {
                let _infallible = writeln!(page, "{}", row(&line));
            }
        }
        page
    }

    /// A page of its own, without anything from elsewhere, for a browser and a printer.
    #[must_use]
    pub fn html(&self, lang: Lang) -> String {
        let mut body = String::new();
        let class = if self.verdict == crate::Verdict::Passed { "good" } else { "bad" };
        let _infallible = writeln!(
            body,
            "<h1>{}</h1>\n<p class=\"{class}\">{}</p>\n<ul>",
            html(self.title.of(lang)),
            html(&self.verdict_text(lang))
        );
        for (name, value) in self.facts_of(lang) {
            let _infallible = writeln!(body, "<li>{}: {}</li>", html(&name), html(&value));
        }
        body.push_str("</ul>\n");
        for (heading, (head, lines)) in self.tables(lang) {
            if lines.is_empty() {
                continue;
            }
            let row = |cell: &str, cells: &[String]| {
                let cells: Vec<String> =
                    cells.iter().map(|text| format!("<{cell}>{}</{cell}>", html(text))).collect();
                format!("<tr>{}</tr>\n", cells.concat())
            };
            let lines: Vec<String> = lines.iter().map(|line| row("td", line)).collect();
            let _infallible = writeln!(
                body,
                "<h2>{}</h2>\n<table>\n<thead>{}</thead>\n<tbody>{}</tbody>\n</table>",
                html(&heading),
                row("th", &head),
                lines.concat()
            );
        }
        let code = if lang == Lang::Vi { "vi" } else { "en" };
        let sign = html(&render(lang, "drill.page.sign", &[]));
        format!(
            "<!doctype html>\n<html lang=\"{code}\"><head><meta charset=\"utf-8\">\
             <title>{}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\
             <p class=\"sign\">{sign}</p>\n</body></html>\n",
            html(self.title.of(lang))
        )
    }

    fn verdict_text(&self, lang: Lang) -> String {
        render(lang, &format!("drill.verdict.{}", word(&self.verdict)), &[])
    }

    fn facts_of(&self, lang: Lang) -> Vec<(String, String)> {
        let text = |key: &str| render(lang, key, &[]);
        let mut facts = vec![
            (text("drill.page.name"), self.name.clone()),
            (text("drill.page.began"), time(self.began)),
            (text("drill.page.ended"), time(self.ended)),
        ];
        if let Some(cluster) = &self.cluster {
            facts.extend(stands(cluster, lang));
        }
        facts.extend(self.facts.iter().cloned());
        if let Some(why) = &self.measured_not {
            facts.push((text("drill.page.measured-not"), why.clone()));
        }
        facts
    }

    fn tables(&self, lang: Lang) -> Vec<(String, Table)> {
        let text = |key: &str| render(lang, key, &[]);
        let head = |keys: &[&str]| keys.iter().map(|key| text(key)).collect::<Vec<_>>();
        let targets = self.judged.iter().map(|judged| target(judged, lang)).collect();
        let steps = self.steps.iter().map(|step| step_line(step, lang)).collect();
        let healed = self.healed.iter().map(|healing| {
            let action = render(lang, &format!("drill.do.{}", healing.does), &[]);
            let outcome = healing.failed.clone().unwrap_or_else(|| text("drill.outcome.done"));
            vec![healing.step.to_string(), action, time(healing.at), outcome]
        });
        let lost = self.measured.lost_ranges.iter().map(|range| vec![range.clone()]).collect();
        let page = |key: &str| text(&format!("drill.page.{key}"));
        let measured = measured(self, lang);
        vec![
            (
                page("targets"),
                (
                    head(&[
                        "drill.page.target",
                        "drill.page.wanted",
                        "drill.page.measured",
                        "drill.page.holds",
                    ]),
                    targets,
                ),
            ),
            (page("measurements"), (head(&["drill.page.what", "drill.page.measured"]), measured)),
            (page("lost"), (head(&["drill.page.range"]), lost)),
            (
                page("steps"),
                (
                    head(&[
                        "drill.page.step",
                        "drill.page.what",
                        "drill.page.when",
                        "drill.page.took",
                        "drill.page.outcome",
                        "drill.page.told",
                    ]),
                    steps,
                ),
            ),
            (
                page("healed"),
                (
                    head(&[
                        "drill.page.step",
                        "drill.page.what",
                        "drill.page.when",
                        "drill.page.outcome",
                    ]),
                    healed.collect(),
                ),
            ),
        ]
    }
}

impl UnixMs {
    /// The day in Viet Nam.
    #[must_use]
    pub fn day(self) -> String {
        time(self).chars().take(10).collect()
    }
}

impl Drill {
    /// What it is held on: layout with sites, and the lines between several.
    #[must_use]
    pub fn cluster_told(&self, lang: Lang) -> Vec<(String, String)> {
        stands(&self.cluster, lang)
    }

    /// Each target: its key in the file, its words, and what it asks for.
    #[must_use]
    pub fn targets_told(&self, lang: Lang) -> Vec<[String; 3]> {
        let nothing_measured = judge(self, &Measured::default());
        let told = nothing_measured.iter().map(|judged| {
            let mut cells = target(judged, lang).into_iter();
            let mut next = || cells.next().unwrap_or_default();
            [judged.target.clone(), next(), next()]
        });
        told.collect()
    }

    /// Each step: its number, line, what it does, to whom, when and for how long.
    #[must_use]
    pub fn steps_told(&self, lang: Lang) -> Vec<[String; 6]> {
        let shown = |time: Duration| {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            if ms == 0 { String::new() } else { seconds(ms) }
        };
        let told = self.steps.iter().zip(1..).map(|(step, number)| {
            let action = render(lang, &format!("drill.do.{}", step.action.word()), &[]);
            let title = step.title.as_ref().map(|title| title.of(lang));
            [
                number.to_string(),
                step.line.to_string(),
                title.map_or(action.clone(), |title| format!("{title} ({action})")),
                step.action.details(),
                shown(step.after),
                shown(step.lasts.unwrap_or_default()),
            ]
        });
        told.collect()
    }
}

const STYLE: &str = "body{font:11pt/1.5 'Times New Roman',serif;max-width:60em;margin:2em auto;\
    color:#111}table{border-collapse:collapse;width:100%;margin-bottom:1em}\
    th,td{border:1px solid #888;padding:.25em .5em;text-align:left;vertical-align:top}\
    th{background:#eee}.good,.bad{font-weight:bold;font-size:13pt}.good{color:#060}.bad{color:#900}\
    .sign{margin-top:4em}@media print{body{margin:0}tr,h2{break-inside:avoid}h2{break-after:avoid}}";

fn target(judged: &Judged, lang: Lang) -> Vec<String> {
    let shown = |value: u64| match judged.target.as_str() {
        "rpo_records" => value.to_string(),
        "availability_percent" => percent(value),
        _ => seconds(value),
    };
    let unknown = render(lang, "drill.page.unknown", &[]);
    let holds = if judged.holds { "drill.page.yes" } else { "drill.page.no" };
    let target = render(lang, &format!("drill.target.{}", judged.target), &[]);
    let id = judged.id.as_ref().map(|id| format!(" ({id})"));
    vec![
        target + &id.unwrap_or_default(),
        shown(judged.wanted),
        judged.measured.map_or(unknown, shown),
        render(lang, holds, &[]),
    ]
}

/// The sites and the lines between them.
fn stands(cluster: &ClusterPlan, lang: Lang) -> Vec<(String, String)> {
    let text = |key: &str| render(lang, key, &[]);
    let sites = cluster.sites.iter().map(|site| format!("{} {}", site.name, site.nodes));
    let sites = sites.collect::<Vec<_>>().join(" + ");
    let layout = format!("{} ({sites})", cluster.layout.word());
    let mut facts = vec![(text("drill.page.layout"), layout)];
    if cluster.sites.len() > 1 {
        let link = cluster.link;
        let (delay, round_trip) = (link.delay_ms.to_string(), (2 * link.delay_ms).to_string());
        let (jitter, loss) = (link.jitter_ms.to_string(), percent(link.loss_ppm.into()));
        let rate = link.bytes_per_second.map(|rate| format!(", {rate} B/s")).unwrap_or_default();
        let values = [
            ("delay", &*delay),
            ("round_trip", &*round_trip),
            ("jitter", &*jitter),
            ("loss", &*loss),
            ("rate", &*rate),
        ];
        facts.push((text("drill.page.link"), render(lang, "drill.page.link-is", &values)));
    }
    facts
}

fn measured(report: &Report, lang: Lang) -> Vec<Vec<String>> {
    let measured = &report.measured;
    let number = |value: u64| value.to_string();
    let lines = [
        ("acked", measured.acked.map(number)),
        ("lost", measured.lost.map(number)),
        ("rpo", measured.rpo_ms.map(seconds)),
        ("rto", measured.rto_ms.map(seconds)),
        ("first-ack", measured.first_ack_ms.map(seconds)),
        ("last-ack", measured.last_ack_ms.map(seconds)),
        ("ack-gap-p50", measured.ack_gap_p50_ms.map(seconds)),
        ("ack-gap-p99", measured.ack_gap_p99_ms.map(seconds)),
        ("availability", measured.availability_ppm.map(|ppm| percent(ppm.into()))),
    ];
    let known = lines.into_iter().filter_map(|(key, value)| Some((key, value?)));
    known
        .map(|(key, value)| vec![render(lang, &format!("drill.measured.{key}"), &[]), value])
        .collect()
}

fn step_line(step: &StepReport, lang: Lang) -> Vec<String> {
    let action = render(lang, &format!("drill.do.{}", step.does), &[]);
    let title = step.title.as_ref().map(|title| title.of(lang));
    vec![
        step.number.to_string(),
        title.map_or(action.clone(), |title| format!("{title} ({action})")),
        step.began.map(time).unwrap_or_default(),
        step.began.map(|_| seconds(step.took_ms)).unwrap_or_default(),
        render(lang, &format!("drill.outcome.{}", word(&step.outcome)), &[]),
        step.told.clone(),
    ]
}

/// The word under which it stands in JSON.
fn word(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

pub(crate) fn percent(ppm: u64) -> String {
    format!("{}.{:04} %", ppm / 10_000, ppm % 10_000)
}

/// Seconds are enough for people; the JSON has milliseconds.
pub(crate) fn time(at: UnixMs) -> String {
    let zone = TimeZone::fixed(Offset::constant(HOURS_AHEAD));
    let known = Timestamp::from_millisecond(at.0).ok();
    let shown = known.map(|at| at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string());
    shown.unwrap_or_else(|| at.0.to_string())
}

pub(crate) fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '<' | '[' => safe.extend(['\\', c]),
            '\n' | '\r' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}
