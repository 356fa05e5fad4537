//! What was refused and why, as the cluster keeps it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use dtm_client::Reader;
use dtm_proto::records::QuarantineRequest;

use crate::readback::Histories;
use crate::register::Registered;
use crate::say::Say;

/// Refusals of all sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    /// By rule: how many, and the text of one of them in both languages.
    pub(crate) by_rule: BTreeMap<String, (u64, [String; 2])>,
    /// Kept in quarantine.
    pub(crate) kept: u64,
    /// Only counted, beyond the quota.
    pub(crate) beyond_quota: u64,
    /// Acknowledged broken records that are in no quarantine.
    pub(crate) missing: u64,
    /// Refused although they were valid, or never sent.
    pub(crate) wrong: u64,
}

impl Refusals {
    /// Every broken record was refused, and nothing else.
    pub(crate) fn are_as_meant(&self) -> bool {
        self.missing == 0 && self.wrong == 0
    }

    /// The sample text of a rule in a language.
    pub(crate) fn sample(texts: &[String; 2], say: Say) -> &str {
        say.pick(&texts[0], &texts[1])
    }
}

/// Reads the quarantine of every source.
///
/// # Errors
/// What the cluster said.
pub(crate) async fn read(sources: &[(Registered, std::sync::Arc<Histories>)]) -> Result<Refusals> {
    let mut refusals = Refusals::default();
    for (source, histories) in sources {
        one(source, histories, &mut refusals).await.with_context(|| source.plan.code.clone())?;
    }
    Ok(refusals)
}

async fn one(source: &Registered, histories: &Histories, refusals: &mut Refusals) -> Result<()> {
    let request = QuarantineRequest { source: source.plan.code.clone(), ..Default::default() };
    let mut pages = Reader::new(source.endpoint.clone()).quarantine(request);
    let mut seen = BTreeSet::new();
    let mut beyond_quota = 0;
    while let Some(page) = pages.next().await? {
        // A total of the source, repeated on each page.
        beyond_quota = page.beyond_quota.max(beyond_quota);
        for record in page.records {
            refusals.kept += 1;
            let history = histories.get(record.stream.as_str());
            let broken = history.and_then(|history| history.lock().is_broken(record.sequence));
            let is_new = seen.insert((record.stream.clone(), record.sequence));
            if broken != Some(true) || !is_new {
                refusals.wrong += 1;
            }
            let rule = record.violations.first().map(|v| v.rule.clone()).unwrap_or_default();
            let first = |texts: Vec<String>| texts.into_iter().next().unwrap_or_default();
            let entry = refusals
                .by_rule
                .entry(rule)
                .or_insert_with(|| (0, [first(record.messages_vi), first(record.messages_en)]));
            entry.0 += 1;
        }
    }
    let meant: u64 = histories.values().map(|history| history.lock().broken_acked()).sum();
    refusals.beyond_quota += beyond_quota;
    refusals.missing += meant.saturating_sub(seen.len() as u64 + beyond_quota);
    Ok(())
}
