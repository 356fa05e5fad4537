//! RAFT-1: committed prefixes are byte-identical on all replicas, and a vote once given stays.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_machine::keys::table;

use super::breach::Breach;
use super::image::{Image, hex};

/// Compares every image with the first: entries at common indexes, leaves at common places, and all
/// rows where both applied the same entries. Images of one group.
pub fn compare(images: &[Image]) -> Vec<Breach> {
    let Some((first, others)) = images.split_first() else {
        return Vec::new();
    };
    others.iter().flat_map(|other| compare_two(first, other)).collect()
}

fn compare_two(one: &Image, other: &Image) -> Vec<Breach> {
    assert_eq!(one.group, other.group, "replicas of one group are compared");
    let group = one.group;
    let names = || (one.node.clone(), other.node.clone());
    let mut breaches = Vec::new();
    for (index, bytes) in &one.bundles {
        if other.bundles.get(index).is_some_and(|found| found != bytes) {
            let (one, other) = names();
            breaches.push(Breach::EntryDiffers { group, index: *index, one, other });
        }
    }
    let leaves: BTreeMap<&[u8], &Bytes> = other.table(table::TILE).collect();
    for (place, hash) in one.table(table::TILE).filter(|(place, _)| place[0] == 0) {
        if leaves.get(place).is_some_and(|found| *found != hash) {
            let (one, other) = names();
            let leaf = place[1..].try_into().map_or(u64::MAX, u64::from_be_bytes);
            breaches.push(Breach::LeafDiffers { group, leaf, one, other });
        }
    }
    if one.applied == other.applied {
        let applied = one.applied;
        let mut keys = one.rows.keys().chain(other.rows.keys());
        if let Some(key) = keys.find(|key| one.rows.get(*key) != other.rows.get(*key)) {
            let ((one, other), key) = (names(), hex(key));
            breaches.push(Breach::RowDiffers { group, applied, key, one, other });
        }
    }
    breaches
}

/// Votes as replicas gave them and as they came back with them.
#[derive(Debug, Default)]
pub struct Promises {
    replicas: BTreeMap<String, Promise>,
    breaches: Vec<Breach>,
}

#[derive(Debug, Default)]
struct Promise {
    given: Option<Bytes>,
    /// Asked to be kept after the last one given; a crash may have kept any of them.
    asked: Vec<Bytes>,
}

impl Promises {
    /// A vote is on its way to the disk.
    pub fn asked(&mut self, replica: &str, vote: &Bytes) {
        self.replicas.entry(replica.to_owned()).or_default().asked.push(vote.clone());
    }

    /// The log said that the vote is on disk: others may be told.
    pub fn given(&mut self, replica: &str, vote: &Bytes) {
        let promise = self.replicas.entry(replica.to_owned()).or_default();
        if let Some(at) = promise.asked.iter().position(|asked| asked == vote) {
            promise.asked.drain(..=at);
        }
        promise.given = Some(vote.clone());
    }

    /// The replica's log was opened and says that this is its vote.
    pub fn found(&mut self, replica: &str, vote: Option<&Bytes>) {
        let promise = self.replicas.entry(replica.to_owned()).or_default();
        let is_kept = vote == promise.given.as_ref();
        if !is_kept && !promise.asked.iter().any(|asked| Some(asked) == vote) {
            self.breaches.push(Breach::VoteTakenBack { replica: replica.to_owned() });
        }
        promise.given = vote.cloned();
        promise.asked.clear();
    }

    /// What was found so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}
