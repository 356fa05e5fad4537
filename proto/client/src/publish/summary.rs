//! What became of the lines of a file.

use super::records::Unsendable;
use crate::Event;
use dtm_proto::records::QuarantinedRecord;
use dtm_types::text::Lang;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

/// Refused lines that are kept with their reasons; beyond it they are counted.
pub(crate) const REFUSALS_MAX: usize = 1000;

/// How far a file is; for a progress bar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProgress {
    /// The file.
    pub file: String,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes of the file; 0 = not known.
    pub bytes_total: u64,
    /// Records sent by this run.
    pub sent: u64,
    /// Highest acked sequence.
    pub acked_through: u64,
    /// Records refused so far.
    pub refused: u64,
}

/// A line that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRefusal {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 = not known any more.
    pub line: u64,
    /// Its sequence; 0 = it was not sent.
    pub sequence: u64,
    /// Where in the record, and why, in Vietnamese.
    pub reasons_vi: Vec<String>,
    /// The same in English.
    pub reasons_en: Vec<String>,
    /// Pointers into the record, one a reason.
    pub pointers: Vec<String>,
}

impl LineRefusal {
    /// The reasons in one language.
    #[must_use]
    pub fn reasons(&self, lang: Lang) -> &[String] {
        match lang {
            Lang::Vi => &self.reasons_vi,
            Lang::En => &self.reasons_en,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records sent by this run, refused ones included; all are acked.
    pub sent: u64,
    /// Records that an earlier run had stored.
    pub skipped: u64,
    /// Records refused, by this run or an earlier one: kept in quarantine, or not sendable.
    pub refused: u64,
    /// Those of them that an earlier run had sent.
    pub refused_earlier: u64,
    /// Those of them that were never sent, so that no quarantine holds them.
    pub unsendable: u64,
    /// Sequences that are held with other content.
    pub conflicts: u64,
    /// Records sent by this run that the cluster had already, by message id: it stored nothing.
    pub duplicates: u64,
    /// Highest acked sequence of the last file.
    pub acked_through: u64,
    /// Files that an earlier run had finished.
    pub files_already_stored: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// The first refused lines.
    pub refusals: Vec<LineRefusal>,
}

impl Summary {
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.skipped += other.skipped;
        self.refused += other.refused;
        self.refused_earlier += other.refused_earlier;
        self.unsendable += other.unsendable;
        self.conflicts += other.conflicts;
        self.duplicates += other.duplicates;
        self.acked_through = other.acked_through;
        self.files_already_stored += other.files_already_stored;
        self.bytes_read += other.bytes_read;
        let room = REFUSALS_MAX.saturating_sub(self.refusals.len());
        self.refusals.extend(other.refusals.into_iter().take(room));
    }
}

/// Collects while a file is published. Shared with the publisher's events.
pub(crate) struct Report {
    file: String,
    bytes_total: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    summary: Summary,
    /// Lines of sequences that are not acked: entries where the distance between the two changes.
    lines: VecDeque<(u64, u64)>,
    /// What earlier runs were told, without lines, by sequence.
    earlier: BTreeMap<u64, LineRefusal>,
    /// The last sequence that was refused: a refusal that comes again is counted once.
    refused_through: u64,
}

impl Report {
    pub(crate) fn new(file: &str, bytes_total: u64) -> Self {
        Self { file: file.to_owned(), bytes_total, state: Mutex::default() }
    }

    /// Notes how many records earlier runs had refused, and the reasons of those that are known.
    pub(crate) fn earlier(&self, refused: u64, known: Vec<QuarantinedRecord>) {
        let mut state = self.state.lock();
        state.summary.refused_earlier = refused;
        state.summary.refused += refused;
        for record in known {
            let refusal = LineRefusal {
                file: self.file.clone(),
                line: 0,
                sequence: record.sequence,
                reasons_vi: record.messages_vi,
                reasons_en: record.messages_en,
                pointers: record.violations.into_iter().map(|v| v.pointer).collect(),
            };
            state.earlier.insert(record.sequence, refusal);
        }
    }

    /// Notes that a record is there from an earlier run.
    pub(crate) fn skipped(&self, sequence: u64, line: u64) {
        let mut state = self.state.lock();
        state.summary.skipped += 1;
        if let Some(refusal) = state.earlier.remove(&sequence) {
            state.keep(LineRefusal { line, ..refusal });
        }
    }

    /// Notes how many of the input's records the stream refused in all. Those that no answer named
    /// were refused while the connection was lost.
    pub(crate) fn refused_in_all(&self, refused: u64) {
        let mut state = self.state.lock();
        let counted = state.summary.refused - state.summary.unsendable;
        state.summary.refused += refused.saturating_sub(counted);
    }

    /// Notes how many of the records of this run the stream counted as doubled.
    pub(crate) fn duplicates(&self, duplicates: u64) {
        self.state.lock().summary.duplicates = duplicates;
    }

    /// Notes that a record is about to be sent.
    pub(crate) fn line(&self, sequence: u64, line: u64) {
        let mut state = self.state.lock();
        state.summary.sent += 1;
        let expected = state.lines.back().map(|(s, l)| l + (sequence - s));
        if expected != Some(line) {
            state.lines.push_back((sequence, line));
        }
    }

    pub(crate) fn unsendable(&self, line: u64, reason: Unsendable) {
        let refusal = LineRefusal {
            file: self.file.clone(),
            line,
            sequence: 0,
            reasons_vi: vec![reason.text(Lang::Vi)],
            reasons_en: vec![reason.text(Lang::En)],
            pointers: vec![String::new()],
        };
        let mut state = self.state.lock();
        state.summary.unsendable += 1;
        state.summary.refused += 1;
        state.keep(refusal);
    }

    pub(crate) fn event(&self, event: &Event) {
        let mut state = self.state.lock();
        match event {
            Event::Refused(records) => {
                for record in records {
                    if record.sequence <= state.refused_through {
                        continue;
                    }
                    state.refused_through = record.sequence;
                    let line = state.line_of(record.sequence);
                    let refusal = LineRefusal {
                        file: self.file.clone(),
                        line,
                        sequence: record.sequence,
                        reasons_vi: record.messages_vi.clone(),
                        reasons_en: record.messages_en.clone(),
                        pointers: record.violations.iter().map(|v| v.pointer.clone()).collect(),
                    };
                    state.summary.refused += 1;
                    state.keep(refusal);
                }
            }
            Event::Conflict { .. } => state.summary.conflicts += 1,
            _ => {}
        }
    }

    /// Notes how far the file was read and acked.
    pub(crate) fn read(&self, bytes: u64, acked_through: u64) {
        let mut state = self.state.lock();
        state.summary.bytes_read = bytes;
        state.summary.acked_through = acked_through;
        while state.lines.len() > 1 && state.lines[1].0 <= acked_through {
            state.lines.pop_front();
        }
    }

    pub(crate) fn progress(&self) -> PublishProgress {
        let acked_through = self.state.lock().summary.acked_through;
        self.at(acked_through)
    }

    pub(crate) fn at(&self, acked_through: u64) -> PublishProgress {
        let state = self.state.lock();
        PublishProgress {
            file: self.file.clone(),
            bytes_read: state.summary.bytes_read,
            bytes_total: self.bytes_total,
            sent: state.summary.sent,
            acked_through,
            refused: state.summary.refused,
        }
    }

    pub(crate) fn summary(&self, acked_through: u64) -> Summary {
        let summary = self.state.lock().summary.clone();
        let skipped = summary.skipped.saturating_sub(summary.refused_earlier);
        Summary { acked_through, skipped, ..summary }
    }
}

impl State {
    fn line_of(&self, sequence: u64) -> u64 {
        let at = self.lines.partition_point(|(first, _)| *first <= sequence);
        match at.checked_sub(1).and_then(|at| self.lines.get(at)) {
            Some((first, line)) => line + (sequence - first),
            None => 0,
        }
    }

    fn keep(&mut self, refusal: LineRefusal) {
        if self.summary.refusals.len() < REFUSALS_MAX {
            self.summary.refusals.push(refusal);
        }
    }
}
