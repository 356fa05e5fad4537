//! Runs a drill: does its steps in order, stops at the first that is not as expected, takes back
//! what was done, measures, judges.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::report::judge;
use crate::{
    Action, Clock, Done, Drill, Expect, Failure, Hands, Healing, Measured, Outcome, Report, Step,
    StepReport, UnixMs, Until, Verdict,
};

/// The longest piece of a wait.
const PIECE: Duration = Duration::from_millis(200);

/// Runs a drill to its end. Returns a report in every case: a step that fails or panics, or `stop`
/// (set by whoever wants it to end), skips the rest, and all that was done is taken back.
pub fn run(drill: &Drill, hands: &mut dyn Hands, clock: &dyn Clock, stop: &AtomicBool) -> Report {
    let began = clock.now();
    let mut run =
        Run { hands, clock, stop, open: Vec::new(), healed: Vec::new(), was_stopped: false };
    let mut steps = Vec::with_capacity(drill.steps.len());
    let mut goes_on = true;
    for (number, step) in (1..).zip(&drill.steps) {
        let report = if goes_on { run.step(number, step) } else { skipped(number, step) };
        goes_on = goes_on && report.outcome.is_good();
        steps.push(report);
    }
    run.heal_all();
    let measured = guarded(|| run.hands.measure());
    let (measured, measured_not) = match measured {
        Ok(measured) => (measured, None),
        Err(why) => (Measured::default(), Some(why)),
    };
    let judged = judge(drill, &measured);
    let verdict = if run.healed.iter().any(|healing| healing.failed.is_some()) {
        Verdict::NotHealed
    } else if steps.iter().any(|s| !s.outcome.is_good() && s.outcome != Outcome::Skipped) {
        Verdict::StepFailed
    } else if run.was_stopped {
        Verdict::Stopped
    } else if judged.iter().any(|judged| !judged.holds) {
        Verdict::TargetsMissed
    } else {
        Verdict::Passed
    };
    Report {
        version: 1,
        name: drill.name.clone(),
        title: drill.title.clone(),
        cluster: Some(drill.cluster.clone()),
        facts: run.hands.facts(),
        began,
        ended: clock.now(),
        steps,
        healed: run.healed,
        measured,
        measured_not,
        judged,
        verdict,
    }
}

/// What is still to be taken back.
struct Open {
    number: usize,
    id: Option<String>,
    does: &'static str,
    undo: u64,
}

struct Run<'r> {
    hands: &'r mut dyn Hands,
    clock: &'r dyn Clock,
    stop: &'r AtomicBool,
    /// In the order in which it was done.
    open: Vec<Open>,
    healed: Vec<Healing>,
    was_stopped: bool,
}

impl Run<'_> {
    fn step(&mut self, number: usize, step: &Step) -> StepReport {
        if !self.wait(step.after) {
            return skipped(number, step);
        }
        let began = self.clock.now();
        let acted = self.act(number, step);
        let took = since(began, self.clock.now());
        let late = took > step.within && step.action != Action::Wait(Until::Elapsed);
        let (outcome, told) = match (acted, step.expect) {
            (Ok(told), Expect::Done) if late => (Outcome::Late, told),
            (Ok(told), Expect::Done) => (Outcome::Done, told),
            (Ok(told), Expect::Refused) => (Outcome::DoneWrongly, told),
            (Err(Failure::Refused(why)), Expect::Refused) => (Outcome::Refused, why),
            (Err(Failure::Refused(why)), Expect::Done) => (Outcome::RefusedWrongly, why),
            (Err(Failure::Failed(why)), _) => (Outcome::Failed, why),
        };
        if outcome.is_good()
            && let Some(lasts) = step.lasts
        {
            // A wait is nothing but this time.
            let was_whole = self.wait(lasts);
            self.heal(|open| open.number == number);
            if !was_whole && step.action == Action::Wait(Until::Elapsed) {
                return skipped(number, step);
            }
        }
        let took_ms = u64::try_from(since(began, self.clock.now()).as_millis()).unwrap_or(u64::MAX);
        StepReport { began: Some(began), took_ms, outcome, told, ..skipped(number, step) }
    }

    fn act(&mut self, number: usize, step: &Step) -> Result<String, Failure> {
        match &step.action {
            Action::Wait(Until::Elapsed) => return Ok(String::new()),
            Action::Heal(id) => {
                let before = self.healed.len();
                self.heal(|open| id.is_none() || open.id == *id);
                let failed = self.healed[before..].iter().find_map(|h| h.failed.clone());
                return failed.map_or_else(|| Ok(String::new()), |why| Err(Failure::Failed(why)));
            }
            _ => {}
        }
        let acted = guarded(|| {
            // A refusal is no panic: it goes through as a value.
            Ok(self.hands.act(&step.action, step.within))
        });
        let Done { told, undo } = acted.unwrap_or_else(|why| Err(Failure::Failed(why)))?;
        if let Some(undo) = undo {
            let (id, does) = (step.id.clone(), step.action.word());
            self.open.push(Open { number, id, does, undo });
        }
        Ok(told)
    }

    /// Returns whether the whole time passed.
    fn wait(&mut self, time: Duration) -> bool {
        let mut left = time;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                self.was_stopped = true;
                return false;
            }
            if left.is_zero() {
                return true;
            }
            let piece = left.min(PIECE);
            self.clock.sleep(piece);
            left -= piece;
        }
    }

    fn heal_all(&mut self) {
        self.heal(|_| true);
    }

    /// Takes back what is meant, last first; what fails is noted and not tried again.
    fn heal(&mut self, is_meant: impl Fn(&Open) -> bool) {
        for at in (0..self.open.len()).rev() {
            if !is_meant(&self.open[at]) {
                continue;
            }
            let open = self.open.remove(at);
            let at = self.clock.now();
            let failed = guarded(|| self.hands.undo(open.undo)).err();
            self.healed.push(Healing { step: open.number, does: open.does.to_owned(), at, failed });
        }
    }
}

fn skipped(number: usize, step: &Step) -> StepReport {
    StepReport {
        number,
        does: step.action.word().to_owned(),
        line: step.line,
        title: step.title.clone(),
        expected: step.expect,
        began: None,
        took_ms: 0,
        outcome: Outcome::Skipped,
        told: String::new(),
    }
}

fn since(began: UnixMs, now: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(now.0 - began.0).unwrap_or(0))
}

/// A panic of the hands is a failure: the rest must be taken back all the same.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panicked| {
        let text = panicked.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panicked.downcast_ref::<String>().cloned());
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
