//! What this node held of a life that is over, beyond what the life in force began with: told, sent
//! again, or given up.
//!
//! ```text
//!  left/…  ─ summary ──▶ streams, their sequences, tags   ┐ what of it the life in force has: a tag
//!          ─ resend  ──▶ the commands as they were         ┘ of its own that is the same, or its answer
//!          ─ settle  ──▶ a leaf of meta, then the files are removed
//! ```
//! A cursor alone shows nothing: a source that began anew numbers other records as it numbered those.

mod resend;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{LeftFile, LeftHead, LeftStream, LeftSummary};
use dtm_machine::keys::{self, Key, RESEND_WINDOW, SLOT_SEQUENCES, SLOTS, table};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, StateError};
use dtm_types::format::Cursor;
use dtm_types::{GroupId, StreamKey};
use sha2::{Digest, Sha256};
use tonic::Status;

use dtm_doors::Shared;
use dtm_doors::lives::Lives;

/// Bytes of one resend tag, and of the sequence before those of a slot.
const TAG_BYTES: usize = 16;
const BASE_BYTES: usize = 8;

/// Source and stream.
type Stream = (String, String);
/// Sequences, both ends included, that the life in force took just now or said it holds.
type Sent = BTreeMap<Stream, Vec<(u64, u64)>>;

/// One replica's, with what of it the life in force is not known to have.
pub(crate) struct Left {
    pub head: LeftHead,
    pub path: PathBuf,
    /// Without the tags: they were compared.
    pub summary: LeftSummary,
    /// Of each stream, in the order of the summary.
    pub missing: Vec<Missing>,
    /// Sources of it that are placed in its group now.
    here: BTreeSet<String>,
}

/// Records of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Those that the life in force is not known to have.
    pub lacking: u64,
    /// Of these the ones it may have: there is no tag any more to compare them with.
    pub unverified: u64,
}

impl Left {
    /// Records in it.
    pub(crate) fn records(&self) -> u64 {
        self.summary.streams.values().map(LeftStream::records).sum()
    }

    /// Of these the ones that the life in force is not known to have.
    pub(crate) fn lacking_records(&self) -> u64 {
        self.missing.iter().map(|missing| missing.lacking).sum()
    }

    /// Of these the ones that could not be compared.
    pub(crate) fn unverified_records(&self) -> u64 {
        self.missing.iter().map(|missing| missing.unverified).sum()
    }

    /// Whether the life in force has all that it holds. Of meta that is never so: changes are made
    /// again by hand.
    pub(crate) fn is_there(&self) -> bool {
        let is_whole = self.summary.unread == 0 && self.lacking_records() == 0;
        is_whole && !self.head.group.is_meta()
    }
}

fn unread(error: std::io::Error) -> Status {
    Status::data_loss(error.to_string())
}

fn unreadable(error: StateError) -> Status {
    Status::internal(error.to_string())
}

/// Everything that is kept, compared with the life in force; `resends`: proposed there before.
///
/// # Errors
/// `DataLoss` where a file is damaged, with its path; what reading a group gives; `Unavailable` where a
/// group takes nothing: it may be repeated.
pub(crate) async fn all(shared: &Arc<Shared>, resends: bool) -> Result<Vec<Left>, Status> {
    let folder = Lives::of(&shared.config.node.data).left();
    let mut all = Vec::new();
    for file in blocking(move || LeftFile::all(&folder)).await? {
        let mut left = read(shared, file).await?;
        let sent = if resends { resend::resend(shared, &left).await? } else { Sent::new() };
        compare(shared, &mut left, &sent).await?;
        all.push(left);
    }
    Ok(all)
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Status::internal(error.to_string()))?.map_err(unread)
}

async fn read(shared: &Shared, file: LeftFile) -> Result<Left, Status> {
    let (head, path) = (file.head, file.path().to_owned());
    let summary = blocking(move || LeftSummary::read(file)).await?;
    let sources: BTreeSet<String> =
        summary.streams.keys().map(|(source, _)| source.clone()).collect();
    let mut here = BTreeSet::new();
    for source in sources {
        if placed(shared, &source).await? == Some(head.group) {
            here.insert(source);
        }
    }
    Ok(Left { head, path, summary, missing: Vec::new(), here })
}

/// The group of a source in the life in force; `None` where it has no such source.
async fn placed(shared: &Shared, source: &str) -> Result<Option<GroupId>, Status> {
    let from = keys::named(table::SOURCE, source);
    let to = [from.as_slice(), &[0]].concat();
    let rows = shared.rows(GroupId::META, Freshness::Current, (from, to)).await?;
    let row = reads::source(rows.as_ref(), source).map_err(unreadable)?;
    Ok(row.map(|row| GroupId(row.group)))
}

async fn compare(shared: &Shared, left: &mut Left, sent: &Sent) -> Result<(), Status> {
    let mut missing = Vec::new();
    for (stream, of) in &left.summary.streams {
        if !left.here.contains(&stream.0) {
            // Another group's cursor says nothing of them.
            missing.push(Missing { lacking: of.records(), unverified: 0 });
            continue;
        }
        let held = held(shared, left.head.group, stream).await?;
        let sent = sent.get(stream).cloned().unwrap_or_default();
        missing.push(missing_of(of, &held, &sent));
    }
    left.missing = missing;
    // Of many records they are large.
    left.summary.streams.values_mut().for_each(|of| of.tags = Vec::new());
    Ok(())
}

/// A stream in the life in force.
#[derive(Default)]
struct Held {
    cursor: Cursor,
    /// Tags of its slots, by the first sequence of each.
    slots: BTreeMap<u64, Bytes>,
}

impl Held {
    /// The tag of a sequence; one that was lost or has left the ring has none.
    fn tag(&self, sequence: u64) -> Option<&[u8]> {
        let base = sequence / SLOT_SEQUENCES * SLOT_SEQUENCES;
        let at = (sequence - base) as usize * TAG_BYTES;
        let tag = self.slots.get(&base)?.get(at..at + TAG_BYTES)?;
        tag.iter().any(|byte| *byte != 0).then_some(tag)
    }
}

/// The cursor first: a tag that is newer than it shows as much, and one that went since shows less.
async fn held(shared: &Shared, group: GroupId, stream: &Stream) -> Result<Held, Status> {
    let Some(key) = StreamKey::parse(&stream.0, &stream.1) else { return Ok(Held::default()) };
    let cursor = cursor(shared, group, stream).await?;
    let range = Key::of(table::TAGS).stream(&key).range();
    let rows = shared.rows(group, Freshness::Current, range.clone()).await?;
    let rows = rows.scan(&range.0, &range.1, SLOTS as usize).map_err(unreadable)?;
    let slots = rows.into_iter().filter_map(|(_, row)| {
        let base = u64::from_be_bytes(row.get(..BASE_BYTES)?.try_into().ok()?);
        Some((base, row.slice(BASE_BYTES..)))
    });
    Ok(Held { cursor, slots: slots.collect() })
}

async fn cursor(shared: &Shared, group: GroupId, stream: &Stream) -> Result<Cursor, Status> {
    let Some(key) = StreamKey::parse(&stream.0, &stream.1) else { return Ok(Cursor::default()) };
    let rows = shared.rows(group, Freshness::Current, reads::cursor_range(&key)).await?;
    Ok(reads::cursor(rows.as_ref(), &key).map_err(unreadable)?.unwrap_or_default())
}

/// There is what was sent just now, and what has the same tag. Not there is what lies above the cursor,
/// what was declared lost, and what has another tag: other records are held under these sequences. Of
/// the rest it is not known.
fn missing_of(left: &LeftStream, held: &Held, sent: &[(u64, u64)]) -> Missing {
    let through = held.cursor.through;
    let lost = held.cursor.lost_ranges.iter().map(|range| (range.from, range.to));
    let lost: Vec<_> = lost.collect();
    let lowest = through.saturating_add(1).saturating_sub(RESEND_WINDOW);
    // Whether everything that was sent under a sequence is what is held under it.
    let mut compared: BTreeMap<u64, bool> = BTreeMap::new();
    for (first, tags) in &left.tags {
        let end = first.saturating_add((tags.len() / TAG_BYTES) as u64);
        if end <= lowest || *first > through {
            continue;
        }
        for (sequence, tag) in (*first..end).zip(tags.chunks_exact(TAG_BYTES)) {
            let is_asked = (lowest..=through).contains(&sequence)
                && !is_in(&lost, sequence)
                && !is_in(sent, sequence);
            if let Some(held) = held.tag(sequence).filter(|_| is_asked) {
                *compared.entry(sequence).or_insert(true) &= held == tag;
            }
        }
    }
    let same = compared.values().filter(|is_same| **is_same).count() as u64;
    let other = compared.len() as u64 - same;
    let above = [(through.saturating_add(1), u64::MAX)];
    let not_there = overlap(&left.ranges, &above) + overlap(&left.ranges, &lost) + other;
    let lacking = left.records().saturating_sub(overlap(&left.ranges, sent) + same);
    Missing { lacking, unverified: lacking.saturating_sub(not_there) }
}

fn is_in(ranges: &[(u64, u64)], sequence: u64) -> bool {
    ranges.iter().any(|(from, to)| (from..=to).contains(&&sequence))
}

/// Sequences that are in both.
fn overlap(ranges: &[(u64, u64)], others: &[(u64, u64)]) -> u64 {
    let both = ranges.iter().flat_map(|(from, to)| {
        others.iter().map(move |(first, last)| (*from.max(first), *to.min(last)))
    });
    both.filter(|(from, to)| from <= to).map(|(from, to)| to - from + 1).sum()
}

/// SHA-256 over the files, one after the other.
///
/// # Errors
/// Of the disk.
pub(crate) fn digest(left: &[PathBuf]) -> std::io::Result<[u8; 32]> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    for path in left {
        let mut file = std::fs::File::open(path)?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
        }
    }
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use dtm_types::format::SequenceRange;
    use dtm_types::{Incarnation, ReplicaId};

    use super::*;

    /// Tags of these sequences as a file or a slot holds them, of the content that is named so.
    fn tags(from: u64, to: u64, content: u8) -> Bytes {
        let tag = |sequence: u64| {
            let mut tag = [content; TAG_BYTES];
            tag[..8].copy_from_slice(&sequence.to_be_bytes());
            tag
        };
        (from..=to).flat_map(tag).collect::<Vec<_>>().into()
    }

    fn left(ranges: &[(u64, u64)]) -> LeftStream {
        let tags = ranges.iter().map(|(from, to)| (*from, tags(*from, *to, 1))).collect();
        LeftStream { ranges: ranges.to_vec(), tags, ..LeftStream::default() }
    }

    /// A stream that holds one content all along, as far as its ring goes.
    fn held(through: u64, lost: &[(u64, u64)], content: u8) -> Held {
        let lost_ranges: Vec<_> =
            lost.iter().map(|&(from, to)| SequenceRange { from, to }).collect();
        let cursor = Cursor { through, lost_ranges, ..Cursor::default() };
        let newest = through / SLOT_SEQUENCES;
        let slots = (newest.saturating_sub(SLOTS - 1)..=newest).map(|slot| {
            let base = slot * SLOT_SEQUENCES;
            let mut slot = tags(base, base + SLOT_SEQUENCES - 1, content).to_vec();
            for at in (0..SLOT_SEQUENCES).filter(|at| {
                let lost = lost.iter().any(|(from, to)| (*from..=*to).contains(&(base + at)));
                lost || base + at > through
            }) {
                slot[at as usize * TAG_BYTES..][..TAG_BYTES].fill(0);
            }
            (base, slot.into())
        });
        Held { cursor, slots: slots.collect() }
    }

    fn missing(lacking: u64, unverified: u64) -> Missing {
        Missing { lacking, unverified }
    }

    #[test]
    fn what_lies_above_the_cursor_or_was_declared_lost_is_lacking() {
        let left = left(&[(10, 19), (30, 39)]);
        for (through, lost, lacking) in [
            (0, &[][..], 20),
            (9, &[], 20),
            (14, &[], 15),
            (39, &[], 0),
            (100, &[(12, 33)], 12),
            (32, &[(31, 32)], 9),
        ] {
            let found = missing_of(&left, &held(through, lost, 1), &[]);
            assert_eq!(found, missing(lacking, 0), "{through} {lost:?}");
        }
    }

    /// A source without a spool takes the next sequence of the life in force for another record.
    #[test]
    fn other_records_under_the_same_sequences_are_lacking() {
        let left = left(&[(10, 19)]);
        assert_eq!(missing_of(&left, &held(100, &[], 2), &[]), missing(10, 0));
        assert_eq!(missing_of(&left, &held(14, &[], 2), &[]), missing(10, 0));
        let mut twice = left.clone();
        twice.tags.push((15, tags(15, 16, 2)));
        assert_eq!(missing_of(&twice, &held(100, &[], 1), &[]), missing(2, 0));
    }

    #[test]
    fn what_has_no_tag_any_more_is_lacking_until_it_was_sent() {
        let through = 10_000;
        let lowest = through + 1 - RESEND_WINDOW;
        let left = left(&[(lowest - 10, lowest + 9)]);
        assert_eq!(missing_of(&left, &held(through, &[], 1), &[]), missing(10, 10));
        assert_eq!(missing_of(&left, &held(through, &[], 2), &[]), missing(20, 10));
        let sent = [(lowest - 10, lowest - 4)];
        assert_eq!(missing_of(&left, &held(through, &[], 1), &sent), missing(3, 3));
        // A stream that was finished keeps its cursor alone.
        let finished = Held { slots: BTreeMap::new(), ..held(through, &[], 1) };
        assert_eq!(missing_of(&left, &finished, &[]), missing(20, 20));
        assert_eq!(missing_of(&left, &finished, &[(1, through)]), missing(0, 0));
    }

    /// A cursor forgets old losses; what has no tag then is not taken for held.
    #[test]
    fn a_loss_that_the_cursor_forgot_is_not_verified() {
        let mut held = held(100, &[(12, 14)], 1);
        held.cursor.lost_ranges.clear();
        assert_eq!(missing_of(&left(&[(10, 19)]), &held, &[]), missing(3, 3));
    }

    #[test]
    fn a_file_is_there_only_whole_and_never_metas() {
        let left = |group, unread, lacking| Left {
            head: LeftHead {
                group: GroupId(group),
                incarnation: Incarnation(1),
                replica: ReplicaId(4),
                agreed: 7,
                applied: 9,
            },
            path: PathBuf::new(),
            summary: LeftSummary { unread, ..LeftSummary::default() },
            missing: vec![missing(0, 0), missing(lacking, 0)],
            here: BTreeSet::new(),
        };
        assert!(left(3, 0, 0).is_there());
        assert!(!left(3, 1, 0).is_there(), "unread");
        assert!(!left(3, 0, 1).is_there(), "lacking");
        assert!(!left(0, 0, 0).is_there(), "meta");
    }
}
