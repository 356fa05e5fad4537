//! The batches of one data set out of a backup, in commit order.
//!
//! ```text
//!  rows     places that are wanted, up to 1,048,576 at a time ─┐
//!           wrapped keys of the group                          ├─▶ batch, its place, its key
//!  entries  the bundles that the places name ──────────────────┘
//! ```
//! Sealed as they lay in the log: who opens them has the keyring. Places tell what was stored, refused
//! or doubled; entries alone do not.

use std::collections::HashMap;

use bytes::Bytes;
use dtm_machine::keys::table;
use dtm_types::command::command::Op;
use dtm_types::format::{EntryBody, Place, WrappedKey};
use dtm_types::{GroupId, bundle};
use prost::Message;

use crate::chunks::{Entry, Row};
use crate::moment::{OpenChain, unread};
use crate::read::{read_entries, read_rows};
use crate::{Error, Manifest};

/// Places held at a time, about 200 bytes each; a group with more is read once more for each so many.
const PLACES_MAX: usize = 1 << 20;

/// Which batches.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Code of the data set.
    pub dataset: String,
    /// Code of the source; `None` = all of them.
    pub source: Option<String>,
    /// Group time through which they were stored, Unix microseconds; `None` = all.
    pub until_us: Option<i64>,
}

impl Wanted {
    fn includes(&self, place: &Place) -> bool {
        place.dataset == self.dataset
            && self.source.as_ref().is_none_or(|source| *source == place.source)
            && self.until_us.is_none_or(|until_us| place.group_time_us <= until_us)
    }
}

/// A batch as it was stored.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its row: sequences, what of it was refused or doubled.
    pub place: Place,
    /// Sealed.
    pub body: EntryBody,
    /// Its data key, wrapped by a cluster key.
    pub key: WrappedKey,
}

/// Takes a batch.
pub type TakeBatch<'a> = &'a mut dyn FnMut(Batch) -> Result<(), Error>;

impl OpenChain<'_> {
    /// The batches of a group that are wanted and that the newest backup knows of.
    ///
    /// # Errors
    /// [`Error::Differs`] where rows and entries do not fit, those of [`read_rows`], and what `take`
    /// said.
    pub fn batches(
        &self,
        group: GroupId,
        wanted: &Wanted,
        take: TakeBatch<'_>,
    ) -> Result<(), Error> {
        self.batches_in_steps(group, wanted, PLACES_MAX, take)
    }

    pub(crate) fn batches_in_steps(
        &self,
        group: GroupId,
        wanted: &Wanted,
        places_max: usize,
        take: TakeBatch<'_>,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let step = self.step(group, wanted, after, places_max)?;
            let Some(last) = step.places.last().map(order) else { return Ok(()) };
            let is_last = step.places.len() < places_max;
            self.fill(group, step, take)?;
            if is_last {
                return Ok(());
            }
            after = Some(last);
        }
    }

    /// The next places, ascending, and every key of the group.
    fn step(
        &self,
        group: GroupId,
        wanted: &Wanted,
        after: Option<(u64, u32)>,
        places_max: usize,
    ) -> Result<Step, Error> {
        let (manifest, key) = self.links.last().expect("a chain has an end");
        let mut step = Step { places: Vec::new(), keys: HashMap::new() };
        read_rows(self.target, manifest, group, key, &mut |rows| {
            for row in rows {
                match row.key.first() {
                    Some(&table::PLACE) if step.places.len() < places_max => {
                        let place: Place = decode(group, &row)?;
                        if wanted.includes(&place)
                            && after.is_none_or(|after| order(&place) > after)
                        {
                            step.places.push(place);
                        }
                    }
                    Some(&table::KEY) => {
                        let wrapped: WrappedKey = decode(group, &row)?;
                        step.keys.insert(wrapped.key_id.clone(), wrapped);
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(step)
    }

    /// Finds the batches of a step in the entries of the chain.
    fn fill(&self, group: GroupId, step: Step, take: TakeBatch<'_>) -> Result<(), Error> {
        let Step { places, keys } = step;
        let mut places = places.into_iter().peekable();
        for (manifest, key) in self.links {
            let through = manifest.group(group).map_or(0, |part| part.last_index);
            if places.peek().is_none_or(|next| next.index > through) {
                continue;
            }
            read_entries(self.target, manifest, group, key, &mut |entries| {
                for entry in entries {
                    let mut bodies = None;
                    while let Some(place) = places.next_if(|next| next.index == entry.index) {
                        let bodies = match &mut bodies {
                            Some(bodies) => bodies,
                            none => none.insert(bodies_of(manifest, group, &entry)?),
                        };
                        let body = bodies.remove(&place.ordinal);
                        let wrapped = keys.get(&place.key_id).cloned();
                        let (Some(body), Some(key)) = (body, wrapped) else {
                            return Err(lacking(group, &place));
                        };
                        take(Batch { place, body, key })?;
                    }
                }
                Ok(())
            })?;
        }
        places.next().map_or(Ok(()), |place| Err(lacking(group, &place)))
    }
}

/// Some places of a group, and its keys by their ids.
struct Step {
    places: Vec<Place>,
    keys: HashMap<Bytes, WrappedKey>,
}

fn order(place: &Place) -> (u64, u32) {
    (place.index, place.ordinal)
}

fn decode<M: Message + Default>(group: GroupId, row: &Row) -> Result<M, Error> {
    let undecoded = |error| Error::Differs { group, what: format!("a row does not read: {error}") };
    M::decode(row.value.clone()).map_err(undecoded)
}

/// The batches of an entry by their ordinals.
fn bodies_of(
    of: &Manifest,
    group: GroupId,
    entry: &Entry,
) -> Result<HashMap<u32, EntryBody>, Error> {
    let bundle =
        bundle::decode(&entry.payload).map_err(|error| unread(of, group, entry, &error))?;
    let batch = |(ordinal, op): (u32, Option<Op>)| match op? {
        Op::AppendBatch(append) => Some((ordinal, append.body?)),
        _ => None,
    };
    let ops = bundle.commands.into_iter().map(|command| command.op);
    Ok((0..).zip(ops).filter_map(batch).collect())
}

fn lacking(group: GroupId, place: &Place) -> Error {
    let (index, ordinal) = order(place);
    Error::Differs { group, what: format!("it lacks batch {index}-{ordinal}, or its key") }
}
