//! Whose entries the logs of this node go on from, where the cluster went over to another life: a
//! replica of the new life begins behind the last entry of one of the life before, and what that one
//! wrote stays its record.
//!
//! ```text
//!  life 1   replica 4   1 ‥ 900 │ 901 ‥ 950: never went over
//!  life 2   replica 9           └ 901 ‥ 1200 │
//!  life 3   replica 12                       └ 1201 ‥          read 17 → 12: no, 9: no, 4: here
//! ```
//!
//! One small file, `lineage`, of text: a line that names the version, a line for each replica (group,
//! incarnation, replica, the last index that counts), a line with the CRC32C of all before it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use dtm_storage::log::GroupLog;
use dtm_storage::vfs::{RealVfs, replace_file};
use dtm_types::{GroupId, Incarnation, ReplicaId};

use crate::{IndexRange, LogEntry, LogError};

const VERSION: &str = "dtm-lineage 1";

/// A replica of a life that ended, of which the entries up to an index are those of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forebear {
    /// The group.
    pub group: GroupId,
    /// The life that ended.
    pub incarnation: Incarnation,
    /// The replica that this node held then.
    pub replica: ReplicaId,
    /// Last index that went over to the next life; what lay above did not.
    pub through: u64,
}

/// All of them on a node; empty in the first life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage(BTreeSet<Forebear>);

impl Lineage {
    /// Reads the file; nothing where there is none.
    ///
    /// # Errors
    /// `InvalidData` where it is damaged, with its path: without it records would be taken for lost.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        Self::parse(&text).ok_or_else(|| {
            let cause = format!(
                "{} is damaged: put it back from a copy, or let this node join anew",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, cause)
        })
    }

    /// Writes the file. Durable when it returns.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace_file(&RealVfs, path, self.encode().as_bytes())
    }

    /// Adds one, in the place of what was known of the same replica.
    pub fn add(&mut self, forebear: Forebear) {
        let Forebear { group, incarnation, replica, .. } = forebear;
        self.0.retain(|of| (of.group, of.incarnation, of.replica) != (group, incarnation, replica));
        self.0.insert(forebear);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Forebear> + '_ {
        self.0.iter().copied()
    }

    /// Those of a group, the latest life first.
    pub fn of(&self, group: GroupId) -> impl Iterator<Item = Forebear> + '_ {
        self.0.iter().rev().copied().filter(move |of| of.group == group)
    }

    fn encode(&self) -> String {
        let mut text = format!("{VERSION}\n");
        for Forebear { group, incarnation, replica, through } in &self.0 {
            text.push_str(&format!("{} {} {} {through}\n", group.0, incarnation.0, replica.0));
        }
        let sum = crc32c::crc32c(text.as_bytes());
        text + &format!("crc32c {sum:08x}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = &text[..body.len() + 1];
        let sum = u32::from_str_radix(sum.strip_prefix("crc32c ")?, 16).ok()?;
        let mut lines = body.lines();
        if sum != crc32c::crc32c(body.as_bytes()) || lines.next() != Some(VERSION) {
            return None;
        }
        let forebear = |line: &str| {
            let mut words = line.split(' ');
            let group = GroupId(words.next()?.parse().ok()?);
            let incarnation = Incarnation(words.next()?.parse().ok()?);
            let replica = ReplicaId(words.next()?.parse().ok()?);
            let through = words.next()?.parse().ok()?;
            words.next().is_none().then_some(Forebear { group, incarnation, replica, through })
        };
        lines.map(forebear).collect::<Option<_>>().map(Self)
    }
}

/// The logs of a group's forebears, as its records.
pub(crate) struct Forebears(pub(crate) Vec<(GroupLog, u64)>);

impl Forebears {
    /// An entry that its own log does not give: `otherwise` where none of these does.
    pub(crate) fn read(&self, index: u64, otherwise: LogError) -> Result<LogEntry, LogError> {
        let holders = self.0.iter().filter(|(_, through)| index <= *through);
        let mut told = otherwise;
        for (log, _) in holders {
            match log.read_record(index).map_err(LogError::from) {
                Ok(entry) => return Ok(crate::node::to_entry(entry)),
                Err(LogError::NotFound(_)) => {}
                Err(error) => told = error,
            }
        }
        Err(told)
    }

    /// Which of these ranges none of them holds.
    pub(crate) fn lacking(&self, lacking: Vec<IndexRange>) -> Result<Vec<IndexRange>, LogError> {
        let mut left = lacking;
        for (log, through) in &self.0 {
            let end = left.last().map_or(0, |range| range.to);
            if end == 0 {
                break;
            }
            let mut here: Vec<IndexRange> =
                log.lacking(end.min(*through))?.into_iter().map(crate::node::to_range).collect();
            if end > *through {
                here.push(IndexRange { from: through + 1, to: u64::MAX });
            }
            left = common(&left, &here);
        }
        Ok(left)
    }
}

/// What lies in both of two ascending lists of ranges.
fn common(one: &[IndexRange], two: &[IndexRange]) -> Vec<IndexRange> {
    let (mut at, mut with, mut both) = (0, 0, Vec::new());
    while let (Some(a), Some(b)) = (one.get(at), two.get(with)) {
        let (from, to) = (a.from.max(b.from), a.to.min(b.to));
        if from <= to {
            both.push(IndexRange { from, to });
        }
        if a.to < b.to { at += 1 } else { with += 1 }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forebear(group: u32, incarnation: u64, replica: u64, through: u64) -> Forebear {
        let (group, incarnation) = (GroupId(group), Incarnation(incarnation));
        Forebear { group, incarnation, replica: ReplicaId(replica), through }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lineage");
        assert_eq!(Lineage::read(&path).expect("none"), Lineage::default());
        let mut lineage = Lineage::default();
        for of in [forebear(1, 1, 4, 900), forebear(0, 1, 2, 70), forebear(1, 2, 9, 1_000)] {
            lineage.add(of);
        }
        lineage.add(forebear(1, 2, 9, 1_200));
        lineage.write(&path).expect("writes");
        assert_eq!(Lineage::read(&path).expect("reads"), lineage);
        let of: Vec<_> = lineage.of(GroupId(1)).map(|of| of.through).collect();
        assert_eq!(of, [1_200, 900], "the latest life first");
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text.lines().count(), 5, "{text}");
        for damaged in [&text[..text.len() - 1], &text.replace("900", "901"), "", "\n", "x\ny\n"] {
            std::fs::write(&path, damaged).expect("writes");
            let told = Lineage::read(&path).expect_err("damaged").to_string();
            assert!(told.contains("lineage is damaged"), "{told}");
        }
    }

    #[test]
    fn what_lies_in_both_is_lacking() {
        let ranges = |list: &[(u64, u64)]| -> Vec<IndexRange> {
            list.iter().map(|&(from, to)| IndexRange { from, to }).collect()
        };
        for (one, two, both) in [
            (&[(1, 10)][..], &[(3, 4), (8, u64::MAX)][..], &[(3, 4), (8, 10)][..]),
            (&[(1, 2), (5, 9)], &[(2, 6), (9, 9)], &[(2, 2), (5, 6), (9, 9)]),
            (&[(1, 4)], &[], &[]),
        ] {
            assert_eq!(common(&ranges(one), &ranges(two)), ranges(both));
            assert_eq!(common(&ranges(two), &ranges(one)), ranges(both));
        }
    }
}
