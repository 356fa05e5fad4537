//! A drill: its name, its targets, its steps.

use std::time::Duration;

use dtm_types::text::{Lang, Told};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::action::Action;
use crate::fields::{Fields, TIME_MAX, name, number, percent, refuse_at, text, time, word};
use crate::plan::Laid;
use crate::{ClusterPlan, Error, Until};

/// A title in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Titles {
    /// Vietnamese.
    pub vi: String,
    /// English.
    pub en: String,
}

impl Titles {
    /// In one language.
    #[must_use]
    pub fn of(&self, lang: Lang) -> &str {
        match lang {
            Lang::Vi => &self.vi,
            Lang::En => &self.en,
        }
    }
}

/// What a drill is judged by; at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Acked records that may be lost (RPO).
    pub rpo_records: Option<u64>,
    /// Longest time without service (RTO).
    pub rto_ms: Option<u64>,
    /// Availability at least, in millionths.
    pub availability_ppm: Option<u32>,
    /// Longest wait between two acks of a source, of which half of the sources stay below.
    pub ack_gap_p50_ms: Option<u64>,
    /// Longest wait between two acks of a source, of which 99 % of the sources stay below.
    pub ack_gap_p99_ms: Option<u64>,
    /// Longest time before the loss of a site of which acked records may be lost (RPO as a time).
    pub rpo_ms: Option<u64>,
    /// Longest time from the loss of a site to the first ack of another node.
    pub first_ack_ms: Option<u64>,
    /// Longest time from a fault after which nobody may ack to the last ack.
    pub last_ack_ms: Option<u64>,
}

/// A target of the product that a target of a drill is: `rto` is `P19`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetId {
    /// The key in the drill's file.
    pub target: String,
    /// Under which the product's targets list it.
    pub id: String,
}

/// What a step should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// It is done.
    Done,
    /// The cluster refuses it, as it should.
    Refused,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// By which a later `heal` names it.
    pub id: Option<String>,
    /// What it does.
    pub action: Action,
    /// What the report says beside the action.
    pub title: Option<Titles>,
    /// So long nothing happens before it.
    pub after: Duration,
    /// So long it lasts; then it is taken back. None: until a `heal` or the end.
    pub lasts: Option<Duration>,
    /// So long it may take to be done.
    pub within: Duration,
    /// What it should come to.
    pub expect: Expect,
    /// The line where it stands.
    pub line: usize,
}

/// A drill that may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// Its name.
    pub name: String,
    /// For people.
    pub title: Titles,
    /// What it is judged by.
    pub targets: Targets,
    /// Which of them are targets of the product.
    pub ids: Vec<TargetId>,
    /// What it is held on.
    pub cluster: ClusterPlan,
    /// In order.
    pub steps: Vec<Step>,
}

/// Bytes of a file.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Steps of a drill.
const STEPS_MAX: usize = 200;
/// What a step may take where nothing is said.
const WITHIN: Duration = Duration::from_secs(60);

impl Drill {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line, its key and what is allowed. A drill without
    /// targets or steps is refused: it would prove nothing.
    pub fn parse(file: &str) -> Result<Self, Error> {
        if file.len() > FILE_BYTES_MAX {
            let why = Told::new("drill.too-long").with("bytes", FILE_BYTES_MAX);
            return Err(refuse_at(file, 0, "drill", why));
        }
        let parsed = DeTable::parse(file).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let why = Told::new("drill.no-toml").with("why", error.message());
            refuse_at(file, at, "toml", why)
        })?;
        let mut fields = Fields::new(file, "", 0..0, parsed.get_ref());
        let drill_name = fields.required("name", name)?;
        let title = titles(&mut fields)?;
        let title = title.ok_or_else(|| fields.refuse("title", Told::new("drill.missing")))?;
        let (targets, ids) = targets(&mut fields)?;
        let cluster = match fields.table("cluster")? {
            None => ClusterPlan::default(),
            Some(table) => ClusterPlan::read(table)?,
        };
        let tables = fields.tables("step")?;
        if tables.is_empty() || tables.len() > STEPS_MAX {
            let why = Told::new("drill.steps").with("most", STEPS_MAX);
            return Err(fields.refuse("step", why));
        }
        fields.finish()?;
        let mut steps: Vec<Step> = Vec::with_capacity(tables.len());
        let mut laid = Laid::new(&cluster);
        for table in tables {
            let step = read_step(table, &steps, &laid)?;
            match &step.action {
                Action::Layout(asked) if step.expect == Expect::Done => laid.put(asked),
                Action::Promote { site, .. } | Action::Failback { site }
                    if step.expect == Expect::Done =>
                {
                    laid.promoted(site);
                }
                _ => {}
            }
            steps.push(step);
        }
        Ok(Self { name: drill_name, title, targets, ids, cluster, steps })
    }

    /// Whether a production cluster asks for a second approval first.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        self.steps.iter().any(|step| step.action.is_destructive())
    }

    /// The longest that it can take, without healing and measuring.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let step = |step: &Step| step.after + step.within + step.lasts.unwrap_or_default();
        self.steps.iter().map(step).sum()
    }
}

fn titles(fields: &mut Fields<'_>) -> Result<Option<Titles>, Error> {
    let Some(mut table) = fields.table("title")? else { return Ok(None) };
    let titles = Titles { vi: table.required("vi", text)?, en: table.required("en", text)? };
    table.finish()?;
    Ok(Some(titles))
}

fn targets(fields: &mut Fields<'_>) -> Result<(Targets, Vec<TargetId>), Error> {
    let none = Told::new("drill.no-targets");
    let Some(mut table) = fields.table("targets")? else {
        return Err(fields.refuse("targets", none));
    };
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let targets = Targets {
        rpo_records: table.optional("rpo_records", number(0, 1 << 50))?,
        rto_ms: table.optional("rto", time)?.map(ms),
        availability_ppm: table.optional("availability_percent", percent)?,
        ack_gap_p50_ms: table.optional("ack_gap_p50", time)?.map(ms),
        ack_gap_p99_ms: table.optional("ack_gap_p99", time)?.map(ms),
        rpo_ms: table.optional("rpo", time)?.map(ms),
        first_ack_ms: table.optional("first_ack", time)?.map(ms),
        last_ack_ms: table.optional("last_ack", time)?.map(ms),
    };
    let ids = ids(&mut table, &targets)?;
    let place = table.refuse("", none);
    // A key that is misspelt is named first.
    table.finish()?;
    if targets == Targets::default() { Err(place) } else { Ok((targets, ids)) }
}

/// `ids = { rto = "P19" }`: only targets that the drill has.
fn ids(table: &mut Fields<'_>, targets: &Targets) -> Result<Vec<TargetId>, Error> {
    let Some(mut named) = table.table("ids")? else { return Ok(Vec::new()) };
    let mut ids = Vec::new();
    for target in targets.named() {
        if let Some(id) = named.optional(target, text)? {
            ids.push(TargetId { target: target.to_owned(), id });
        }
    }
    named.finish()?;
    Ok(ids)
}

impl Targets {
    /// The keys of those that are asked for.
    fn named(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("rpo_records", self.rpo_records.is_some()),
            ("rto", self.rto_ms.is_some()),
            ("availability_percent", self.availability_ppm.is_some()),
            ("ack_gap_p50", self.ack_gap_p50_ms.is_some()),
            ("ack_gap_p99", self.ack_gap_p99_ms.is_some()),
            ("rpo", self.rpo_ms.is_some()),
            ("first_ack", self.first_ack_ms.is_some()),
            ("last_ack", self.last_ack_ms.is_some()),
        ];
        all.into_iter().filter(|(_, asked)| *asked).map(|(key, _)| key)
    }
}

fn read_step(mut fields: Fields<'_>, before: &[Step], laid: &Laid<'_>) -> Result<Step, Error> {
    const EXPECT: &[(&str, Expect)] = &[("done", Expect::Done), ("refused", Expect::Refused)];
    let line = fields.line();
    let action = Action::read(&mut fields, laid)?;
    let step = Step {
        id: fields.optional("id", name)?,
        title: titles(&mut fields)?,
        after: fields.optional("after", time)?.unwrap_or_default(),
        lasts: fields.optional("for", time)?,
        within: fields.optional("within", time)?.unwrap_or(WITHIN).min(TIME_MAX),
        expect: fields.optional("expect", word(EXPECT))?.unwrap_or(Expect::Done),
        action,
        line,
    };
    if step.action == Action::Wait(Until::Elapsed) && step.lasts.is_none() {
        return Err(fields.refuse("for", Told::new("drill.wait-for-what")));
    }
    if step.action == Action::Restore {
        let is_there = before.iter().any(|step| step.action == Action::Backup);
        let why = match laid.plan.sites.len() {
            1 if is_there => None,
            1 => Some("drill.no-backup-before"),
            _ => Some("drill.restore-one-site"),
        };
        if let Some(why) = why {
            return Err(fields.refuse("do", Told::new(why)));
        }
    }
    let is_known = |id: &str| before.iter().any(|step| step.id.as_deref() == Some(id));
    if let Action::Heal(Some(id)) = &step.action
        && !is_known(id)
    {
        return Err(fields.refuse("step", Told::new("drill.no-such-step").with("name", id)));
    }
    if let Some(id) = step.id.as_deref().filter(|id| is_known(id)) {
        return Err(fields.refuse("id", Told::new("drill.step-twice").with("name", id)));
    }
    fields.finish()?;
    Ok(step)
}

#[cfg(test)]
#[path = "drill_test.rs"]
mod tests;
