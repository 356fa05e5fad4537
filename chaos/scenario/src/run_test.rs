//! Runs with hands that only write down what they are asked for.

use std::cell::Cell;

use dtm_types::text::Lang;

use super::*;

/// A clock that only sleeping moves.
struct Slept(Cell<i64>);

impl Clock for Slept {
    fn now(&self) -> UnixMs {
        UnixMs(1_763_800_000_000 + self.0.get())
    }

    fn sleep(&self, time: Duration) {
        assert!(time <= PIECE);
        self.0.set(self.0.get() + i64::try_from(time.as_millis()).expect("short"));
    }
}

#[derive(Default)]
struct Fake<'f> {
    said: Vec<String>,
    /// The word of the action that fails, and how.
    fails: Option<(&'static str, Failure)>,
    panics_at: Option<&'static str>,
    undo_fails: Option<u64>,
    measured: Option<Measured>,
    /// Takes so long for each action.
    slow_ms: i64,
    clock: Option<&'f Slept>,
    stops_at: Option<(&'static str, &'f AtomicBool)>,
    next: u64,
}

impl Hands for Fake<'_> {
    fn act(&mut self, action: &Action, _: Duration) -> Result<Done, Failure> {
        let word = action.word();
        self.said.push(word.to_owned());
        if let Some(clock) = self.clock {
            clock.0.set(clock.0.get() + self.slow_ms);
        }
        if let Some((at, stop)) = self.stops_at
            && at == word
        {
            stop.store(true, Ordering::SeqCst);
        }
        assert!(self.panics_at != Some(word), "broken <hands>");
        match &self.fails {
            Some((at, failure)) if *at == word => Err(failure.clone()),
            _ => {
                self.next += 1;
                Ok(Done { told: format!("did {word}"), undo: Some(self.next) })
            }
        }
    }

    fn undo(&mut self, undo: u64) -> Result<(), String> {
        self.said.push(format!("undo {undo}"));
        if self.undo_fails == Some(undo) { Err("stuck".to_owned()) } else { Ok(()) }
    }

    fn measure(&mut self) -> Result<Measured, String> {
        self.said.push("measure".to_owned());
        self.measured.clone().ok_or_else(|| "no load".to_owned())
    }

    fn facts(&self) -> Vec<(String, String)> {
        vec![("cụm".to_owned(), "a|b <c>".to_owned())]
    }
}

const DRILL: &str = r#"
name = "three"
title = { vi = "Ba bước", en = "Three steps" }
[cluster]
sites = ["a:3", "b:3"]
[targets]
rpo_records = 0
rto = "5s"
availability_percent = 99.5
[[step]]
do = "load"
sources = 2
records_per_second = 10
[[step]]
do = "cut"
id = "wan"
from = "site:a"
to = "site:b"
after = "3s"
[[step]]
do = "kill"
who = "leader"
for = "10s"
within = "1s"
[[step]]
do = "heal"
step = "wan"
[[step]]
do = "wait"
for = "2s"
"#;

fn good() -> Measured {
    Measured {
        acked: Some(100),
        lost: Some(0),
        rto_ms: Some(1_500),
        availability_ppm: Some(999_000),
        ack_gap_p99_ms: Some(70),
        ..Measured::default()
    }
}

fn go(hands: &mut Fake<'_>) -> Report {
    go_until(hands, &Slept(Cell::new(0)), &AtomicBool::new(false))
}

fn go_until(hands: &mut Fake<'_>, clock: &Slept, stop: &AtomicBool) -> Report {
    let drill = Drill::parse(DRILL).unwrap_or_else(|error| panic!("{error}"));
    run(&drill, hands, clock, stop)
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.steps.iter().map(|step| step.outcome).collect()
}

#[test]
fn a_drill_does_its_steps_takes_them_back_and_is_judged() {
    let mut hands = Fake { measured: Some(good()), ..Fake::default() };
    let report = go(&mut hands);
    assert_eq!(report.verdict, Verdict::Passed);
    let said = ["load", "cut", "kill", "undo 3", "undo 2", "undo 1", "measure"];
    assert_eq!(hands.said, said);
    assert_eq!(outcomes(&report), [Outcome::Done; 5]);
    assert_eq!(report.ended.0 - report.began.0, 3_000 + 10_000 + 2_000);
    assert_eq!((report.steps[2].took_ms, report.steps[4].took_ms), (10_000, 2_000));
    let healed: Vec<usize> = report.healed.iter().map(|healing| healing.step).collect();
    assert_eq!(healed, [3, 2, 1]);
    assert!(report.judged.len() == 3 && report.judged.iter().all(|judged| judged.holds));
    assert_eq!(Report::from_json(&report.json()).expect("its own"), report);
}

#[test]
fn a_step_that_fails_ends_the_drill_and_everything_is_taken_back() {
    let failed = Failure::Failed("no such process".to_owned());
    let mut hands = Fake { fails: Some(("kill", failed)), ..Fake::default() };
    let report = go(&mut hands);
    assert_eq!(hands.said, ["load", "cut", "kill", "undo 2", "undo 1", "measure"]);
    assert_eq!(report.verdict, Verdict::StepFailed);
    let skipped = Outcome::Skipped;
    assert_eq!(outcomes(&report)[2..], [Outcome::Failed, skipped, skipped]);
    assert_eq!(report.steps[2].told, "no such process");
    assert_eq!(report.measured_not.as_deref(), Some("no load"));
    assert!(report.judged.iter().all(|judged| !judged.holds), "what is not known is missed");
}

#[test]
fn hands_that_panic_do_not_keep_the_rest_from_being_taken_back() {
    let mut hands = Fake { panics_at: Some("kill"), ..Fake::default() };
    let report = go(&mut hands);
    assert_eq!(hands.said, ["load", "cut", "kill", "undo 2", "undo 1", "measure"]);
    assert_eq!(report.steps[2].outcome, Outcome::Failed);
    assert!(report.steps[2].told.contains("broken <hands>"), "{}", report.steps[2].told);
}

#[test]
fn what_cannot_be_taken_back_is_the_verdict_and_the_others_are_taken_back() {
    let mut hands = Fake { undo_fails: Some(2), measured: Some(good()), ..Fake::default() };
    let report = go(&mut hands);
    // The heal step fails, the load is taken back all the same, and nothing is tried twice.
    assert_eq!(hands.said, ["load", "cut", "kill", "undo 3", "undo 2", "undo 1", "measure"]);
    assert_eq!((report.verdict, report.steps[3].outcome), (Verdict::NotHealed, Outcome::Failed));
    assert_eq!(report.healed[1].failed.as_deref(), Some("stuck"));
}

#[test]
fn somebody_may_stop_it() {
    let stop = AtomicBool::new(false);
    let mut hands =
        Fake { stops_at: Some(("cut", &stop)), measured: Some(good()), ..Fake::default() };
    let report = go_until(&mut hands, &Slept(Cell::new(0)), &stop);
    assert_eq!(hands.said, ["load", "cut", "undo 2", "undo 1", "measure"]);
    assert_eq!(report.verdict, Verdict::Stopped);
    assert_eq!(outcomes(&report)[1..3], [Outcome::Done, Outcome::Skipped]);
}

#[test]
fn a_step_that_takes_too_long_fails() {
    let clock = Slept(Cell::new(0));
    let mut hands = Fake { slow_ms: 1_001, clock: Some(&clock), ..Fake::default() };
    let report = go_until(&mut hands, &clock, &AtomicBool::new(false));
    assert_eq!(outcomes(&report)[2], Outcome::Late);
    assert_eq!(report.verdict, Verdict::StepFailed);
    // It was done all the same, so it is taken back.
    assert!(hands.said.contains(&"undo 3".to_owned()), "{:?}", hands.said);
}

#[test]
fn a_refusal_is_right_only_where_it_is_expected() {
    let refused = || Some(("kill", Failure::Refused("no".to_owned())));
    let mut hands = Fake { fails: refused(), measured: Some(good()), ..Fake::default() };
    assert_eq!(outcomes(&go(&mut hands))[2], Outcome::RefusedWrongly);
    let mut drill = Drill::parse(DRILL).unwrap_or_else(|error| panic!("{error}"));
    drill.steps[2].expect = Expect::Refused;
    let again =
        |hands: &mut Fake<'_>| run(&drill, hands, &Slept(Cell::new(0)), &AtomicBool::new(false));
    let mut hands = Fake { fails: refused(), measured: Some(good()), ..Fake::default() };
    let report = again(&mut hands);
    assert_eq!((report.steps[2].outcome, report.verdict), (Outcome::Refused, Verdict::Passed));
    let mut hands = Fake { measured: Some(good()), ..Fake::default() };
    let report = again(&mut hands);
    assert_eq!(report.steps[2].outcome, Outcome::DoneWrongly);
    assert!(hands.said.contains(&"undo 3".to_owned()), "{:?}", hands.said);
}

#[test]
fn a_missed_target_is_told_on_every_page_in_both_languages() {
    let measured =
        Measured { lost: Some(3), lost_ranges: vec!["tinh-01/main 7-9".to_owned()], ..good() };
    let mut hands = Fake { measured: Some(measured), ..Fake::default() };
    let report = go(&mut hands);
    assert_eq!(report.verdict, Verdict::TargetsMissed);
    let missed = report.judged.iter().find(|judged| !judged.holds).expect("one is missed");
    assert_eq!((missed.target.as_str(), missed.measured), ("rpo_records", Some(3)));
    let (vi, en) = (report.markdown(Lang::Vi), report.markdown(Lang::En));
    for words in ["# Ba bước", "mục tiêu không đạt", "99.5000 %", "1.500 s", "7-9", "a\\|b \\<c>"]
    {
        assert!(vi.contains(words), "{words} is not in\n{vi}");
    }
    for words in ["# Three steps", "a target was missed", "2025-11-22 15:26:40 +07:00"] {
        assert!(en.contains(words), "{words} is not in\n{en}");
    }
    let html = report.html(Lang::Vi);
    for words in ["<html lang=\"vi\">", "a|b &lt;c&gt;", "tinh-01/main 7-9", "class=\"bad\""] {
        assert!(html.contains(words), "{words} is not in\n{html}");
    }
    assert!(!html.contains("drill.") && !vi.contains("drill.") && !en.contains("drill."), "{vi}");
}
