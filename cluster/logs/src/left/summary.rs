//! What lies in such a file, without opening a record: streams with their sequences, and what was done
//! beside them.

use std::collections::BTreeMap;
use std::io;

use dtm_types::bundle;
use dtm_types::command::AppendBatch;
use dtm_types::command::command::Op;
use dtm_types::format::HeaderA;
use prost::Message;

use super::LeftFile;

/// Batches of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftStream {
    /// Sequences, both ends included, ascending and apart.
    pub ranges: Vec<(u64, u64)>,
    /// Sealed bytes of all batches; one that was sent twice counts twice.
    pub bytes: u64,
    /// When the first and the last batch were sealed, Unix microseconds.
    pub sealed_us: (i64, i64),
}

impl LeftStream {
    /// Records that the ranges hold.
    pub fn records(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from + 1).sum()
    }

    fn add(&mut self, header: &HeaderA, bytes: u64) {
        let (mut from, mut to) = (header.first_sequence, header.last_sequence);
        self.ranges.retain(|&(first, last)| {
            let is_apart = last.saturating_add(1) < from || to.saturating_add(1) < first;
            if !is_apart {
                (from, to) = (from.min(first), to.max(last));
            }
            is_apart
        });
        self.ranges.push((from, to));
        self.ranges.sort_unstable();
        let (first_us, last_us) = self.sealed_us;
        let is_first = self.bytes == 0;
        let earliest = if is_first { header.time_us } else { first_us.min(header.time_us) };
        self.sealed_us = (earliest, last_us.max(header.time_us));
        self.bytes += bytes;
    }
}

/// A change of meta state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftCommand {
    /// Raft index.
    pub index: u64,
    /// Stamped by its proposer, Unix microseconds.
    pub time_us: i64,
    /// Its kind, as `put_source`.
    pub kind: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftSummary {
    /// By source and stream.
    pub streams: BTreeMap<(String, String), LeftStream>,
    /// Administration: to be done again by hand where it is wanted.
    pub commands: Vec<LeftCommand>,
    /// Entries of any kind.
    pub entries: u64,
    /// Entries that could not be read when they were left, or that do not decode.
    pub unread: u64,
}

impl LeftSummary {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// Of the disk; `InvalidData` where it is damaged.
    pub fn read(mut file: LeftFile) -> io::Result<Self> {
        let mut summary = Self::default();
        for entry in file.by_ref() {
            let entry = entry?;
            summary.entries += 1;
            // Memberships and blanks of Raft itself are no bundles.
            let version = entry.payload.first().copied().unwrap_or_default();
            if !(bundle::VERSION..=bundle::VERSION_MAX).contains(&version) {
                continue;
            }
            match bundle::decode(&entry.payload) {
                Ok(bundle) => summary.take(entry.index, &bundle),
                Err(_) => summary.unread += 1,
            }
        }
        summary.unread += file.unread();
        Ok(summary)
    }

    fn take(&mut self, index: u64, bundle: &dtm_types::command::Bundle) {
        for command in &bundle.commands {
            match &command.op {
                Some(Op::AppendBatch(append)) => self.batch(append),
                Some(Op::Admin(admin)) => {
                    let kind = admin.op.as_ref().map(|op| kind(&format!("{op:?}")));
                    let (kind, time_us) = (kind.unwrap_or_default(), bundle.time_us);
                    self.commands.push(LeftCommand { index, time_us, kind });
                }
                _ => {}
            }
        }
    }

    fn batch(&mut self, append: &AppendBatch) {
        let header = append.body.as_ref().map(|body| HeaderA::decode(body.header_a.clone()));
        let Some((Ok(header), body)) = header.zip(append.body.as_ref()) else {
            self.unread += 1;
            return;
        };
        let key = (header.source.clone(), header.stream.clone());
        self.streams.entry(key).or_default().add(&header, body.sealed.len() as u64);
    }
}

/// `PutSource(…)` as `put_source`.
fn kind(told: &str) -> String {
    let name = told.split(|of: char| !of.is_alphanumeric()).next().unwrap_or_default();
    let mut kind = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.extend(letter.to_lowercase());
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut stream = LeftStream::default();
        for (first_sequence, last_sequence, time_us) in
            [(10, 19, 5), (30, 39, 7), (20, 24, 6), (12, 14, 9), (25, 29, 1), (50, 50, 8)]
        {
            let header = HeaderA { first_sequence, last_sequence, time_us, ..HeaderA::default() };
            stream.add(&header, 100);
        }
        assert_eq!(stream.ranges, [(10, 39), (50, 50)]);
        assert_eq!((stream.records(), stream.bytes, stream.sealed_us), (31, 600, (1, 9)));
    }

    #[test]
    fn a_kind_is_named_as_in_the_format() {
        assert_eq!(kind("PutSourceKey(SourceKeyRow { source: \"x\" })"), "put_source_key");
    }
}
