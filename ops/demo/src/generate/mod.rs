//! Records of one source: valid by the data contracts, with a small share that breaks them.
//!
//! Payloads are canonical as they leave here (members in order, no blanks), so that the digest of
//! what was sent is the digest of what is stored.

mod broken;
mod dossier;
mod other;
mod people;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dtm_catalog::definition::CodeList;
use dtm_catalog::dossier::{Day, DossierSequence};
use dtm_catalog::{Definition, Rule};
use jiff::Span;
use jiff::civil::Date;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::roster::SourcePlan;

/// Dossiers that later records may be about.
const RECENT_MAX: usize = 256;
/// First day of dossier codes of the centralised form.
const FIRST_DAY: Date = jiff::civil::date(2026, 1, 25);

/// What the demo sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dataset {
    /// dossier_sync
    Dossier,
    /// dossier_progress
    Progress,
    /// petition_sync
    Petition,
    /// payment
    Payment,
}

impl Dataset {
    /// All, with their share of a source's traffic in hundredths.
    pub(crate) const SHARES: [(Self, u32); 4] =
        [(Self::Dossier, 40), (Self::Progress, 35), (Self::Petition, 10), (Self::Payment, 15)];

    /// Id of the data set; also the name of the stream.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Dossier => "dossier_sync",
            Self::Progress => "dossier_progress",
            Self::Petition => "petition_sync",
            Self::Payment => "payment",
        }
    }
}

/// A record to send.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    /// JSON, or something like it where it is broken.
    pub(crate) payload: Vec<u8>,
    /// Unique in the source and data set.
    pub(crate) message_id: String,
    /// The rule it breaks; none = it is valid.
    pub(crate) breaks: Option<Rule>,
}

/// A dossier that was sent.
#[derive(Clone, Debug)]
struct Dossier {
    code: String,
    procedure: &'static dossier::Procedure,
    handler: (String, String),
    received: Date,
    state: String,
}

/// Makes the records of one source, the same ones for the same seed and day.
#[derive(Debug)]
pub(crate) struct Generator {
    plan: Arc<SourcePlan>,
    rng: StdRng,
    today: Date,
    sequences: HashMap<(String, Day, String), DossierSequence>,
    recent: VecDeque<Dossier>,
    made: u64,
    broken_permille: u32,
    states: CodeList,
}

impl Generator {
    /// For a source; `today` is the last day of receipt.
    pub(crate) fn new(plan: Arc<SourcePlan>, seed: u64, today: Date, broken_permille: u32) -> Self {
        let definition = Definition::built_in(Dataset::Progress.id()).expect("it is built in");
        let states =
            definition.code_lists.get("dossier_state").expect("the data set uses it").clone();
        Self {
            plan,
            rng: StdRng::seed_from_u64(seed),
            today: today.max(FIRST_DAY),
            sequences: HashMap::new(),
            recent: VecDeque::new(),
            made: 0,
            broken_permille,
            states,
        }
    }

    /// The next record of a data set.
    pub(crate) fn next(&mut self, dataset: Dataset) -> Generated {
        let value = match dataset {
            Dataset::Dossier => self.dossier(),
            Dataset::Progress => self.progress(),
            Dataset::Petition => self.petition(),
            Dataset::Payment => self.payment(),
        };
        self.made += 1;
        let message_id = format!("{}-{}-{:08}", self.plan.code, dataset.id(), self.made);
        if self.rng.random_range(0..1_000) < self.broken_permille {
            let which = self.rng.random_range(0..broken::count(dataset));
            let (payload, rule) = broken::make(dataset, which, value);
            return Generated { payload, message_id, breaks: Some(rule) };
        }
        Generated { payload: value.to_string().into_bytes(), message_id, breaks: None }
    }

    /// A dossier that was sent lately; a new one where there is none yet.
    fn some_dossier(&mut self) -> usize {
        if self.recent.is_empty() {
            self.register();
        }
        self.rng.random_range(0..self.recent.len())
    }

    /// A day of receipt on which the form for centralised services is in force.
    fn day(&mut self) -> Date {
        let days = FIRST_DAY.until(self.today).map_or(0, |span| i64::from(span.get_days()));
        let after = self.rng.random_range(0..=days);
        self.later(FIRST_DAY, after)
    }

    fn later(&self, day: Date, days: i64) -> Date {
        day.checked_add(Span::new().days(days)).expect("days of this century")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn date_time(&mut self, day: Date) -> Value {
        let (hour, minute, second) = (
            self.rng.random_range(7..18),
            self.rng.random_range(0..60),
            self.rng.random_range(0..60),
        );
        format!("{day}T{hour:02}:{minute:02}:{second:02}+07:00").into()
    }
}

#[cfg(test)]
#[path = "generate_test.rs"]
mod tests;
