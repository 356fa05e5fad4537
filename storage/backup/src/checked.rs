//! What a group is once its rows were put where they belong, held against what the chain says of it.

use dtm_ledger::Frontier;
use dtm_machine::keys::{Key, table};
use dtm_machine::reads;
use dtm_machine::seams::{StateError, StateRead};
use dtm_types::GroupId;
use dtm_types::format::AnchoredGroup;

use crate::chunks::StateDigest;
use crate::meta::Then;
use crate::moment::{OpenChain, Stand};
use crate::{Digest, Error};

/// Rows looked at in one step.
const ROWS_A_SCAN: usize = 4_096;

/// A group as it is in its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Leaves of its ledger.
    pub ledger_size: u64,
    /// Their root, made anew from the hashes of the leaves.
    pub ledger_root: Digest,
    /// SHA-256 over its rows, as a backup of that moment would record it.
    pub state_digest: Digest,
    /// Records that it holds.
    pub records: u64,
}

impl OpenChain<'_> {
    /// Looks at the rows of a group that were made by [`OpenChain::rows`]: they are those that were
    /// backed up, or those to which its entries lead, and the ledger in them is the one that the chain
    /// has there. It goes through the anchor: that of the newest backup, or meta's own of the moment.
    ///
    /// # Errors
    /// [`Error::Differs`], [`Error::Taker`] of the rows, and those of [`OpenChain::had`].
    pub fn check(
        &self,
        group: GroupId,
        stand: &Stand,
        state: &dyn StateRead,
        then: Option<&Then>,
    ) -> Result<Checked, Error> {
        let anchor = self.newest().anchor.as_ref().and_then(|leaf| leaf.anchor.as_ref());
        let cut = || anchor.and_then(|a| a.groups.iter().find(|of| of.group == group.0));
        let anchored = then.map_or_else(cut, |then| then.anchored(group));
        let differs = |what: &str| Error::Differs { group, what: what.to_owned() };
        let mut digest = StateDigest::default();
        each_row(state, (vec![0x01], vec![0xff; 64]), |key, value| {
            digest.row(key, value);
            Ok(())
        })?;
        let state_digest = digest.finish();
        let (ledger_size, ledger_root) = ledger_of(state, group, anchored)?;
        match self.cut(group, stand) {
            Some(part) if state_digest[..] != part.state_digest[..] => {
                return Err(differs("its rows are not those that the backup tells of"));
            }
            Some(part) => {
                if (ledger_size, &ledger_root[..]) != (part.ledger_size, &part.ledger_root[..]) {
                    return Err(differs("LED-1: its ledger is not the one of the backup"));
                }
            }
            None => self.had(group, stand, &[(ledger_size, ledger_root)])?,
        }
        if let Some(then) = then.filter(|_| !group.is_meta()) {
            expect_known(state, group, then)?;
        }
        let records = reads::head(state).map_err(taker)?.records;
        Ok(Checked { ledger_size, ledger_root, state_digest, records })
    }
}

/// Size and root of a ledger, from the hashes of its leaves; it goes through what was anchored.
fn ledger_of(
    state: &dyn StateRead,
    group: GroupId,
    anchored: Option<&AnchoredGroup>,
) -> Result<(u64, Digest), Error> {
    let differs = |what: &str| Error::Differs { group, what: what.to_owned() };
    let mut frontier = Frontier::new();
    let mut met = anchored.is_none_or(|anchored| anchored.ledger_size == 0);
    each_row(state, Key::of(table::TILE).u8(0).range(), |_, value| {
        let hash = value.try_into().map_err(|_| differs("a leaf of its ledger has no hash"))?;
        frontier.append(hash);
        if let Some(anchored) = anchored.filter(|of| of.ledger_size == frontier.size()) {
            if frontier.root()[..] != anchored.ledger_root[..] {
                return Err(differs("LED-1: its ledger does not go through the anchor"));
            }
            met = true;
        }
        Ok(())
    })?;
    if !met || reads::head(state).map_err(taker)?.ledger_size != frontier.size() {
        return Err(differs("LED-1: its ledger is not the one of the backup"));
    }
    Ok((frontier.size(), frontier.root()))
}

/// Every source that a group holds something of is known to meta. Their clocks may differ by as much as
/// `raft.clock_offset_max_ms`, so that a source may be younger in meta than its first entry elsewhere.
fn expect_known(state: &dyn StateRead, group: GroupId, then: &Then) -> Result<(), Error> {
    each_row(state, Key::of(table::NAMES).range(), |key, _| {
        let source = String::from_utf8_lossy(key[1..].strip_suffix(&[0]).unwrap_or(&key[1..]));
        if then.knows_source(&source) {
            return Ok(());
        }
        let what = format!(
            "it holds source {source}, which meta learnt of after that moment by its own clock: name \
             a moment a second later or earlier"
        );
        Err(Error::Differs { group, what })
    })
}

fn each_row(
    state: &dyn StateRead,
    (mut from, to): (Vec<u8>, Vec<u8>),
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let rows = state.scan(&from, &to, ROWS_A_SCAN).map_err(taker)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = [&last[..], &[0]].concat();
        for (key, value) in &rows {
            take(key, value)?;
        }
    }
}

fn taker(error: StateError) -> Error {
    Error::Taker(Box::new(error))
}
