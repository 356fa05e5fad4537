//! What lies in such a file, without opening a record: streams with their sequences, and what was done
//! beside them.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use dtm_types::command::admin::Op as Change;
use dtm_types::command::command::Op;
use dtm_types::command::{Admin, AppendBatch};
use dtm_types::format::{EntryBody, HeaderA};
use dtm_types::{StreamKey, bundle};
use prost::Message;

use super::LeftFile;

/// Bytes of one resend tag.
const TAG_BYTES: usize = 16;

/// Batches of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftStream {
    /// Sequences, both ends included, ascending and apart.
    pub ranges: Vec<(u64, u64)>,
    /// Sealed bytes of all batches; one that was sent twice counts twice.
    pub bytes: u64,
    /// When the first and the last batch were sealed, Unix microseconds.
    pub sealed_us: (i64, i64),
    /// Resend tags of each batch, 16 bytes a record, from this sequence on.
    pub tags: Vec<(u64, Bytes)>,
    /// Requests that opened it, in their order, counted as apply counts them: a request that is there
    /// twice in a row opened one session.
    pub opens: Vec<Bytes>,
    /// Its session before the first of these.
    pub before: u64,
}

impl LeftStream {
    /// Records that the ranges hold.
    pub fn records(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from + 1).sum()
    }

    fn open(&mut self, request: &Bytes) {
        if request.is_empty() || self.opens.last() != Some(request) {
            // A copy: a slice would hold the whole entry.
            self.opens.push(Bytes::copy_from_slice(request));
        }
    }

    fn batch(&mut self, header: &HeaderA, body: &EntryBody) {
        self.add(header, body.sealed.len() as u64);
        self.tags.push((header.first_sequence, Bytes::copy_from_slice(&body.resend_tags)));
        // A batch that came too late is of an earlier session.
        let before = header.session.saturating_sub(self.opens.len() as u64);
        self.before = self.before.max(before);
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
    /// By source and stream; those without a batch are left out.
    pub streams: BTreeMap<(String, String), LeftStream>,
    /// Administration: to be done again by hand where it is wanted.
    pub commands: Vec<LeftCommand>,
    /// Entries of any kind.
    pub entries: u64,
    /// Entries that could not be read when they were left, and what in them does not decode or is no
    /// whole batch.
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
        summary.streams.retain(|_, stream| !stream.ranges.is_empty());
        Ok(summary)
    }

    fn take(&mut self, index: u64, bundle: &dtm_types::command::Bundle) {
        for command in &bundle.commands {
            match &command.op {
                Some(Op::AppendBatch(append)) => match whole(append) {
                    Some((header, body)) => {
                        let key = (header.source.clone(), header.stream.clone());
                        self.streams.entry(key).or_default().batch(&header, body);
                    }
                    None => self.unread += 1,
                },
                Some(Op::OpenSession(open)) => {
                    let key = (open.source.clone(), open.stream.clone());
                    self.streams.entry(key).or_default().open(&command.request_id);
                }
                Some(Op::Admin(admin)) if !is_note(admin) => {
                    let kind = admin.op.as_ref().map(|op| kind(&format!("{op:?}")));
                    let (kind, time_us) = (kind.unwrap_or_default(), bundle.time_us);
                    self.commands.push(LeftCommand { index, time_us, kind });
                }
                _ => {}
            }
        }
    }
}

/// What a node noted of its lines: nobody asked for it, and nothing is to be done again.
fn is_note(admin: &Admin) -> bool {
    matches!(&admin.op, Some(Change::EnterLine(entered)) if !entered.peer.is_empty())
}

/// A batch whose sequences and tags agree with its count: apply stores no other.
fn whole(append: &AppendBatch) -> Option<(HeaderA, &EntryBody)> {
    let body = append.body.as_ref()?;
    let header = HeaderA::decode(body.header_a.clone()).ok()?;
    let (first, last) = (header.first_sequence, header.last_sequence);
    let is_whole = (1..=last).contains(&first)
        && last <= StreamKey::SEQUENCE_MAX
        && last - first + 1 == u64::from(header.count)
        && body.resend_tags.len() == header.count as usize * TAG_BYTES;
    is_whole.then_some((header, body))
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
    use dtm_types::command::{Bundle, Command, EnterLine, OpenSession};

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

    fn append(session: u64, first_sequence: u64, tags: &[u8]) -> Op {
        let count = (tags.len() / TAG_BYTES) as u32;
        let last_sequence = first_sequence + u64::from(count) - 1;
        let (source, stream) = ("a".to_owned(), "s".to_owned());
        let header = HeaderA {
            source,
            stream,
            session,
            first_sequence,
            last_sequence,
            count,
            ..HeaderA::default()
        };
        let body = EntryBody {
            header_a: header.encode_to_vec().into(),
            resend_tags: Bytes::copy_from_slice(tags),
            ..EntryBody::default()
        };
        Op::AppendBatch(AppendBatch { body: Some(body), ..AppendBatch::default() })
    }

    fn open() -> Op {
        let (source, stream) = ("a".to_owned(), "s".to_owned());
        Op::OpenSession(OpenSession { source, stream, ..OpenSession::default() })
    }

    fn summary(ops: Vec<(&'static str, Op)>) -> LeftSummary {
        let command = |(id, op): (&'static str, Op)| Command {
            request_id: Bytes::from_static(id.as_bytes()),
            op: Some(op),
            ..Command::default()
        };
        let commands = ops.into_iter().map(command).collect();
        let mut summary = LeftSummary::default();
        summary.take(1, &Bundle { commands, ..Bundle::default() });
        summary
    }

    /// The session before is that of the stream where nothing was repeated and nothing came late.
    #[test]
    fn an_open_that_was_sent_twice_counts_once() {
        let tags = [7; 2 * TAG_BYTES];
        let summary = summary(vec![
            ("one", open()),
            ("one", open()),
            // Of the session that the open had ended.
            ("late", append(4, 10, &tags)),
            ("two", append(5, 10, &tags)),
            ("three", open()),
            ("four", append(6, 12, &tags)),
        ]);
        let stream = &summary.streams[&("a".to_owned(), "s".to_owned())];
        assert_eq!(stream.opens, ["one", "three"]);
        assert_eq!(stream.before, 4);
        assert_eq!(stream.ranges, [(10, 13)]);
        let firsts: Vec<_> = stream.tags.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [10, 10, 12]);
        assert_eq!(summary.unread, 0);
    }

    #[test]
    fn what_a_node_noted_is_no_change_to_be_made_again() {
        let entered = |peer: &'static [u8]| {
            let entered = EnterLine { peer: Bytes::from_static(peer), ..EnterLine::default() };
            Op::Admin(Admin { op: Some(Change::EnterLine(entered)), ..Admin::default() })
        };
        let summary = summary(vec![("note", entered(&[1; 16])), ("word", entered(&[]))]);
        let kinds: Vec<&str> = summary.commands.iter().map(|command| &*command.kind).collect();
        assert_eq!(kinds, ["enter_line"], "an operator's word is listed");
    }

    #[test]
    fn a_batch_that_is_not_whole_is_told_as_unread() {
        let Op::AppendBatch(mut cut) = append(1, 10, &[7; 2 * TAG_BYTES]) else { panic!("one") };
        cut.body.as_mut().expect("a body").resend_tags = Bytes::from_static(&[7; TAG_BYTES]);
        let summary = summary(vec![("one", Op::AppendBatch(cut))]);
        assert_eq!((summary.unread, summary.streams.len()), (1, 0));
    }

    #[test]
    fn a_kind_is_named_as_in_the_format() {
        assert_eq!(kind("PutSourceKey(SourceKeyRow { source: \"x\" })"), "put_source_key");
    }
}
