//! The state of a group at a moment: rows of a cut, and the entries behind it through apply.
//!
//! ```text
//!  chain     full ───── incremental ───── incremental
//!  entries   1 ‥ a        a + 1 ‥ b          b + 1 ‥ c
//!  rows at      a               b                  c
//!                         ▲ P, the last entry of the moment
//!  rows at a, verbatim ─▶ entries a + 1 ‥ P through apply ─▶ rows at P
//!  rows at b ─▶ the ledger at b went through the one at P
//! ```
//! A moment is counted in the group's own time, which is in its entries and never goes back: a group is
//! at moment T once it holds every entry up to T and none behind. Groups are stamped by clocks of
//! different nodes; what an anchor of meta names already belongs to the moment of that anchor, whatever
//! its own stamp (`at_least`), else a ledger would go back behind its anchor (LED-1).
//!
//! Owner of the state: whoever calls. Nothing here writes but into the store that is handed in.

use dtm_ledger::Frontier;
use dtm_machine::keys::{Key, table};
use dtm_machine::seams::{StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_seal::DataKey;
use dtm_types::{GroupId, bundle};

use crate::chunks::Entry;
use crate::read::{read_entries, read_rows};
use crate::target::Target;
use crate::{Digest, Error, GroupPart, Manifest};

/// First bytes of an entry that are those of a bundle; others are entries of Raft itself.
const BUNDLES: std::ops::RangeInclusive<u8> = 1..=0x7f;

/// A chain whose keys are at hand, the full backup first.
#[derive(Clone, Copy)]
pub struct OpenChain<'a> {
    /// Where it lies.
    pub target: &'a dyn Target,
    /// Each backup with its key; one at least.
    pub links: &'a [(Manifest, DataKey)],
}

/// Where a group stands: behind one of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// The last entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Replica that led it.
    pub leader: u64,
    /// Entries of the chain behind it.
    pub beyond: u64,
    /// The link whose rows are the newest that are not beyond it; `None`: rows begin from nothing.
    base: Option<usize>,
}

/// What [`OpenChain::at`] has seen of a group so far.
struct Search {
    until_us: i64,
    at_least: u64,
    last: Stand,
    has_begun: bool,
    /// Stamp of the first entry that is behind the moment.
    behind_us: Option<i64>,
}

impl<'a> OpenChain<'a> {
    /// The backup that all others lead to.
    ///
    /// # Panics
    /// Where there is no link.
    #[must_use]
    pub fn newest(&self) -> &'a Manifest {
        &self.links.last().expect("a chain has an end").0
    }

    /// Where the newest backup has a group.
    #[must_use]
    pub fn end(&self, group: GroupId) -> Stand {
        self.stand(group, self.newest().group(group).map(end_of).unwrap_or_default())
    }

    /// Where a group stood at a moment (Unix microseconds, inclusive): behind its last entry that is
    /// stamped so or earlier, or `at_least` behind that entry. Reads entries from the first backup on
    /// that may reach the moment; `progress` gets their bytes.
    ///
    /// # Errors
    /// [`Error::TooLate`] behind the anchor of the newest backup, [`Error::TooEarly`] before the group
    /// began, and those of [`read_entries`].
    pub fn at(
        &self,
        group: GroupId,
        until_us: i64,
        at_least: u64,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Stand, Error> {
        let newest_us = self.newest().anchor_us();
        if until_us > newest_us {
            return Err(Error::TooLate { asked_us: until_us, newest_us });
        }
        let known = self.links_before(group, until_us);
        let before = known.checked_sub(1).and_then(|at| self.part(at, group));
        let mut search = Search {
            until_us,
            at_least,
            last: before.map(end_of).unwrap_or_default(),
            has_begun: before.is_some(),
            behind_us: None,
        };
        for (manifest, key) in &self.links[known..] {
            // What is behind the first entry that is too late is not read.
            let read = read_entries(self.target, manifest, group, key, &mut |entries| {
                progress(entries.iter().map(|entry| entry.payload.len()).sum());
                entries.iter().try_for_each(|entry| search.pass(manifest, group, entry))
            });
            match read {
                Err(Error::Taker(_)) if search.behind_us.is_some() => break,
                read => read?,
            }
        }
        if !search.has_begun {
            let first_us = search.behind_us.unwrap_or(newest_us);
            return Err(Error::TooEarly { group, asked_us: until_us, first_us });
        }
        Ok(self.stand(group, search.last))
    }

    /// What was recorded of a group where it stands, if that is where a backup cut it.
    #[must_use]
    pub fn cut(&self, group: GroupId, stand: &Stand) -> Option<&'a GroupPart> {
        self.part(stand.base?, group).filter(|part| part.last_index == stand.index)
    }

    /// Puts the rows of a group as they were where it stands into an empty store, and holds the digest
    /// of those that it takes from a backup. Not flushed. `progress` gets the bytes of rows and entries.
    ///
    /// # Errors
    /// [`Error::Differs`], [`Error::Apply`], [`Error::Taker`] with what the store said, and those of
    /// [`read_rows`].
    pub fn rows(
        &self,
        group: GroupId,
        stand: &Stand,
        store: &dyn StateStore,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        let Some(base) = stand.base else {
            return self.replay(group, (0, 0), stand.index, store, progress);
        };
        let (manifest, key) = &self.links[base];
        read_rows(self.target, manifest, group, key, &mut |rows| {
            let mut batch = StateBatch::default();
            for row in rows {
                progress(row.key.len() + row.value.len());
                batch.put(row.key, row.value);
            }
            store.write(&batch).map_err(taker)
        })?;
        let from = self.part(base, group).map_or(0, |part| part.last_index);
        self.replay(group, (base + 1, from), stand.index, store, progress)
    }

    /// Applies what is behind entry `from` through entry `to`.
    fn replay(
        &self,
        group: GroupId,
        (link, from): (usize, u64),
        to: u64,
        store: &dyn StateStore,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        let apply =
            |error: &dyn std::error::Error| Error::Apply { group, cause: dtm_types::chain(error) };
        let mut machine = Machine::load(group, store).map_err(|error| apply(&error))?;
        if machine.applied_index() != from {
            let what = format!("its rows end at {}, not at {from}", machine.applied_index());
            return Err(Error::Differs { group, what });
        }
        for (manifest, key) in &self.links[link..] {
            if machine.applied_index() >= to {
                break;
            }
            read_entries(self.target, manifest, group, key, &mut |entries| {
                progress(entries.iter().map(|entry| entry.payload.len()).sum());
                let committed: Vec<Committed> =
                    entries.into_iter().filter(|entry| entry.index <= to).map(committed).collect();
                if committed.is_empty() {
                    return Ok(());
                }
                let mut batch = StateBatch::default();
                machine.apply(store, &committed, &mut batch).map_err(|error| apply(&error))?;
                store.write(&batch).map_err(taker)
            })?;
        }
        if machine.applied_index() != to {
            let what = format!("its entries end at {}, not at {to}", machine.applied_index());
            return Err(Error::Differs { group, what });
        }
        Ok(())
    }

    /// The entries of a group from 1 to where it stands, chunk by chunk.
    ///
    /// # Errors
    /// As [`read_entries`].
    pub fn entries(
        &self,
        group: GroupId,
        stand: &Stand,
        take: &mut dyn FnMut(Vec<Entry>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (manifest, key) in self.links {
            if manifest.group(group).is_none_or(|part| part.entries_from > stand.index) {
                continue;
            }
            read_entries(self.target, manifest, group, key, &mut |mut entries| {
                entries.retain(|entry| entry.index <= stand.index);
                if entries.is_empty() { Ok(()) } else { take(entries) }
            })?;
        }
        Ok(())
    }

    /// LED-1: the ledger of the first backup that has the group where it stands, or behind, had each of
    /// these roots at its size, and is the one that its manifest names.
    ///
    /// # Errors
    /// [`Error::Differs`], and those of [`read_rows`].
    pub fn had(&self, group: GroupId, stand: &Stand, roots: &[(u64, Digest)]) -> Result<(), Error> {
        let differs =
            |what: &str| Error::Differs { group, what: format!("LED-1: its ledger {what}") };
        let holds = |(manifest, _): &&(Manifest, DataKey)| {
            manifest.group(group).is_some_and(|part| part.last_index >= stand.index)
        };
        let (manifest, key) =
            self.links.iter().find(holds).ok_or_else(|| differs("is in no backup"))?;
        let part = manifest.group(group).ok_or_else(|| differs("is in no backup"))?;
        let leaves = Key::of(table::TILE).u8(0).done();
        let mut frontier = Frontier::new();
        let mut met = roots.iter().filter(|(size, _)| *size == 0).count();
        read_rows(self.target, manifest, group, key, &mut |rows| {
            for row in rows.iter().filter(|row| row.key.starts_with(&leaves)) {
                let hash =
                    row.value[..].try_into().map_err(|_| differs("has no hash of a leaf"))?;
                frontier.append(hash);
                for (_, root) in roots.iter().filter(|(size, _)| *size == frontier.size()) {
                    if frontier.root() != *root {
                        return Err(differs("had another root at that size"));
                    }
                    met += 1;
                }
            }
            Ok(())
        })?;
        let named = (part.ledger_size, &part.ledger_root[..]);
        if met != roots.len() || (frontier.size(), &frontier.root()[..]) != named {
            return Err(differs("is not the one of the backup"));
        }
        Ok(())
    }

    fn part(&self, link: usize, group: GroupId) -> Option<&'a GroupPart> {
        self.links.get(link).and_then(|(manifest, _)| manifest.group(group))
    }

    fn stand(&self, group: GroupId, last: Stand) -> Stand {
        let is_behind =
            |at: &usize| self.part(*at, group).is_some_and(|part| part.last_index <= last.index);
        let base = (0..self.links.len()).rev().find(is_behind);
        let end = self.newest().group(group).map_or(0, |part| part.last_index);
        Stand { base, beyond: end.saturating_sub(last.index), ..last }
    }

    /// How many links, from the first, hold no entry behind the moment: what an anchor of a later
    /// backup says of the group covers all of theirs.
    fn links_before(&self, group: GroupId, until_us: i64) -> usize {
        let covered = |(manifest, _): &(Manifest, DataKey)| {
            let anchor = manifest.anchor.as_ref()?.anchor.as_ref()?;
            let anchored = anchor.groups.iter().find(|of| of.group == group.0)?;
            (anchored.group_time_us <= until_us).then_some(anchored.applied_index)
        };
        let through = self.links.iter().filter_map(covered).max().unwrap_or(0);
        let is_before =
            |at: &usize| self.part(*at, group).is_some_and(|part| part.last_index <= through);
        (0..self.links.len()).take_while(is_before).count()
    }
}

impl Search {
    fn pass(&mut self, of: &Manifest, group: GroupId, entry: &Entry) -> Result<(), Error> {
        if let Some(stamp_us) = stamp_us(of, group, entry)? {
            if stamp_us > self.until_us && entry.index > self.at_least {
                self.behind_us = Some(stamp_us);
                return Err(Error::Taker("far enough".into()));
            }
            self.has_begun = true;
        }
        let Entry { index, term, leader, .. } = *entry;
        self.last = Stand { index, term, leader, ..Stand::default() };
        Ok(())
    }
}

fn end_of(part: &GroupPart) -> Stand {
    let (index, term, leader) = (part.last_index, part.last_term, part.last_leader);
    Stand { index, term, leader, ..Stand::default() }
}

pub(crate) fn is_bundle(entry: &Entry) -> bool {
    entry.payload.first().is_some_and(|kind| BUNDLES.contains(kind))
}

/// When an entry was stamped, Unix microseconds; one of Raft itself has no time.
fn stamp_us(of: &Manifest, group: GroupId, entry: &Entry) -> Result<Option<i64>, Error> {
    if !is_bundle(entry) {
        return Ok(None);
    }
    let bundle =
        bundle::decode(&entry.payload).map_err(|error| unread(of, group, entry, &error))?;
    Ok(Some(bundle.time_us))
}

pub(crate) fn unread(
    of: &Manifest,
    group: GroupId,
    entry: &Entry,
    error: &dyn std::error::Error,
) -> Error {
    let what = format!("entry {} of backup {}: {error}", entry.index, of.id());
    Error::Differs { group, what }
}

fn committed(entry: Entry) -> Committed {
    let bundle = is_bundle(&entry).then_some(entry.payload);
    Committed { index: entry.index, bundle }
}

fn taker(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Taker(Box::new(error))
}
