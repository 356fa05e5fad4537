//! What a history is made of and what is said about it.

use std::collections::BTreeSet;
use std::fmt;

use super::breach::Property;

/// The first 16 bytes of a digest over a record's canonical bytes.
pub type Digest = [u8; 16];

/// A stream's number in one checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNo(pub(super) u32);

/// One sequence of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `source/stream`.
    pub stream: String,
    /// From 1.
    pub sequence: u64,
}

/// Neighbouring sequences of one stream, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// `source/stream`.
    pub stream: String,
    /// First.
    pub from: u64,
    /// Last.
    pub to: u64,
}

/// How often something happened, and the first cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<T> {
    /// All cases, in records.
    pub count: u64,
    /// The first [`Finding::LISTED_MAX`] of them.
    pub listed: Vec<T>,
}

impl<T> Finding<T> {
    /// Cases that are listed one by one; beyond that they are counted.
    pub const LISTED_MAX: usize = 1000;

    pub(super) fn add(&mut self, records: u64, case: impl FnOnce() -> T) {
        self.count += records;
        if self.listed.len() < Self::LISTED_MAX {
            self.listed.push(case());
        }
    }
}

impl<T> Default for Finding<T> {
    fn default() -> Self {
        Self { count: 0, listed: Vec::new() }
    }
}

/// What one node's read-back showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeVerdict {
    /// The node's name.
    pub node: String,
    /// Records read back.
    pub stored: u64,
    /// ING-1: acked and not there.
    pub lost: Finding<Range>,
    /// ING-2: there more than once.
    pub doubled: Finding<Place>,
    /// ING-3: behind a later one of its stream, or later ones are there without it.
    pub out_of_order: Finding<Place>,
    /// ING-4: never sent, sent with other content, or refused and there nevertheless.
    pub invented: Finding<Place>,
}

impl NodeVerdict {
    /// True when all four properties hold.
    pub fn holds(&self) -> bool {
        let bad =
            [self.lost.count, self.doubled.count, self.out_of_order.count, self.invented.count];
        bad == [0; 4]
    }
}

/// What all read-backs showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records sent (each sequence once).
    pub sent: u64,
    /// Records acked, refused ones and duplicates included.
    pub acked: u64,
    /// Sequences that were refused or recognised as duplicates.
    pub excused: u64,
    /// One a node that was read.
    pub nodes: Vec<NodeVerdict>,
}

impl Verdict {
    /// True when at least one node was read and the properties hold on each.
    pub fn holds(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(NodeVerdict::holds)
    }

    /// The properties that are broken on some node.
    pub fn broken(&self) -> BTreeSet<Property> {
        let found = self.nodes.iter().flat_map(|node| {
            [
                (Property::Ing1, node.lost.count),
                (Property::Ing2, node.doubled.count),
                (Property::Ing3, node.out_of_order.count),
                (Property::Ing4, node.invented.count),
            ]
        });
        found.filter(|(_, count)| *count > 0).map(|(property, _)| property).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sent {} acked {} refused or duplicate {}",
            self.sent, self.acked, self.excused
        )?;
        for node in &self.nodes {
            let NodeVerdict { lost, doubled, out_of_order, invented, .. } = node;
            writeln!(
                f,
                "{}: stored {} lost {} doubled {} out of order {} invented {}",
                node.node,
                node.stored,
                lost.count,
                doubled.count,
                out_of_order.count,
                invented.count
            )?;
            for range in lost.listed.iter().take(5) {
                writeln!(f, "  ING-1 lost {} {}..={}", range.stream, range.from, range.to)?;
            }
            for (id, found) in [
                ("ING-2", &doubled.listed),
                ("ING-3", &out_of_order.listed),
                ("ING-4", &invented.listed),
            ] {
                for place in found.iter().take(5) {
                    writeln!(f, "  {id} {} {}", place.stream, place.sequence)?;
                }
            }
        }
        Ok(())
    }
}
