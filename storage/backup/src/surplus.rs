//! Which backups may go: whole chains alone, and never the newest of a life.
//!
//! ```text
//!  one life of a cluster    full ◀─ incr ◀─ incr    full ◀─ incr    full ◀─ incr
//!                           └───── surplus ──────┘  └─ kept (2) ─┘  └─ kept ──┘
//! ```
//! A full backup holds every entry from the first one on, so the newest chain of a life holds all that
//! the older ones of that life do: removing those takes a log of no age from anywhere (RT-12). A later
//! life may have begun before the end of the one before (a restore to a moment): what it left out is in
//! the newest chain of that life alone, which therefore always stays.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bytes::Bytes;
use dtm_types::BackupId;

use crate::chain::list;
use crate::target::Target;
use crate::{Error, Manifest};

/// A full backup and all that continue it, ascending.
pub type Chain = Vec<Manifest>;

/// The chains of a target.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    /// Those that stay; of each life the newest chain first.
    pub kept: Vec<Chain>,
    /// Those that may go once what is kept of the same life was read to its end.
    pub surplus: Vec<Chain>,
    /// Backups that continue one which is not here: of no use, and left alone.
    pub broken: Vec<BackupId>,
}

/// Sorts the backups of a target: of each life of a cluster the newest `keep` chains stay. Folders without
/// a whole manifest are not looked at.
///
/// # Errors
/// [`Error::Io`] where the target cannot be listed.
pub fn chains(target: &dyn Target, keep: NonZeroUsize) -> Result<Chains, Error> {
    let found = list(target)?.into_iter().filter_map(|found| Some(found.manifest.ok()?.0));
    let all: BTreeMap<BackupId, Manifest> = found.map(|of| (of.id(), of)).collect();
    let mut sorted = Chains::default();
    let mut by_root: BTreeMap<BackupId, Chain> = BTreeMap::new();
    for (id, manifest) in &all {
        match root(&all, *id) {
            Some(root) => by_root.entry(root).or_default().push(manifest.clone()),
            None => sorted.broken.push(*id),
        }
    }
    let mut lives: BTreeMap<(Bytes, u64), Vec<Chain>> = BTreeMap::new();
    for chain in by_root.into_values() {
        let life = (chain[0].cluster.clone(), chain[0].incarnation);
        lives.entry(life).or_default().push(chain);
    }
    for mut chains in lives.into_values() {
        chains.sort_by_key(|chain| std::cmp::Reverse(newest_us(chain)));
        let surplus = chains.split_off(keep.get().min(chains.len()));
        sorted.kept.extend(chains);
        sorted.surplus.extend(surplus);
    }
    Ok(sorted)
}

impl Chains {
    /// The chain that holds all that a chain of surplus does: the newest of its life.
    #[must_use]
    pub fn holder(&self, of: &Chain) -> Option<&Chain> {
        let life = |chain: &Chain| (chain[0].cluster.clone(), chain[0].incarnation);
        let same = self.kept.iter().filter(|kept| life(kept) == life(of));
        same.max_by_key(|kept| newest_us(kept))
    }
}

/// Removes a chain, the newest of its backups first, so that an interrupted removal leaves a chain.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_chain(target: &dyn Target, chain: &Chain) -> Result<(), Error> {
    for manifest in chain.iter().rev() {
        let backup = manifest.id().to_string();
        let removed = target.remove(&backup);
        removed.map_err(|source| Error::Io {
            what: "remove",
            backup,
            file: String::new(),
            source,
        })?;
    }
    Ok(())
}

/// The full backup that one leads to; none where one between them is not here.
fn root(all: &BTreeMap<BackupId, Manifest>, from: BackupId) -> Option<BackupId> {
    let mut at = from;
    // No chain is longer than all backups together.
    for _ in 0..all.len() {
        match all.get(&at)?.parent_id() {
            Some(parent) => at = parent,
            None => return Some(at),
        }
    }
    None
}

fn newest_us(chain: &Chain) -> i64 {
    chain.iter().map(Manifest::anchor_us).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::SeededEntropy;
    use dtm_seal::{DataKey, Secret};
    use dtm_types::format::Leaf;

    use super::*;
    use crate::{MemoryTarget, Writer};

    fn id(number: u8) -> BackupId {
        BackupId([number; 16])
    }

    fn put(target: &MemoryTarget, number: u8, parent: u8, life: u64) {
        let entropy = SeededEntropy::new(1);
        let key = DataKey::from_bytes(&mut [number; 32]);
        let leaf = Leaf { group_time_us: i64::from(number), ..Leaf::default() };
        let parent = (parent > 0).then(|| Bytes::copy_from_slice(&id(parent).0));
        let manifest = Manifest {
            parent: parent.unwrap_or_default(),
            cluster: Bytes::from_static(&[5; 16]),
            incarnation: life,
            anchor: Some(Box::new(leaf)),
            ..Manifest::default()
        };
        Writer::new(target, &entropy, id(number), &key).finish(manifest).expect("memory");
    }

    fn ids(chains: &[Chain]) -> Vec<Vec<u8>> {
        chains.iter().map(|chain| chain.iter().map(|of| of.id().0[0]).collect()).collect()
    }

    fn sorted(target: &MemoryTarget, keep: usize) -> Chains {
        chains(target, NonZeroUsize::new(keep).expect("not zero")).expect("memory")
    }

    #[test]
    fn whole_chains_go_and_the_newest_of_each_life_stays() {
        let target = MemoryTarget::default();
        // Two chains of the first life, one with a branch; three of the second; one whose full is gone.
        for (number, parent, life) in
            [(1, 0, 1), (2, 1, 1), (3, 1, 1), (4, 0, 1), (5, 4, 1), (6, 0, 2), (7, 0, 2), (8, 0, 2)]
        {
            put(&target, number, parent, life);
        }
        put(&target, 10, 9, 2);
        let one = sorted(&target, 1);
        assert_eq!(ids(&one.kept), [vec![4, 5], vec![8]]);
        assert_eq!(ids(&one.surplus), [vec![1, 2, 3], vec![7], vec![6]]);
        assert_eq!(one.broken, [id(10)]);
        let holder = |at: usize| one.holder(&one.surplus[at]).map(|chain| chain[0].id());
        assert_eq!([holder(0), holder(1)], [Some(id(4)), Some(id(8))]);
        assert_eq!(ids(&sorted(&target, 2).surplus), [[6]]);
        assert!(sorted(&target, 9).surplus.is_empty());

        remove_chain(&target, &one.surplus[0]).expect("memory");
        let left = sorted(&target, 1);
        assert_eq!(ids(&left.kept), [vec![4, 5], vec![8]]);
        assert_eq!(ids(&left.surplus), [[7], [6]]);
        assert_eq!(target.content(&id(1).to_string()), []);
    }
}
