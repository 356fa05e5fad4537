//! Where the records on their way stand in their files, so that a refusal can be told with its line.
//! In memory only: of records that an earlier life of the agent took, only the sequence is known.

use std::collections::VecDeque;
use std::sync::Arc;

/// Places that are kept: where a file begins, or where lines that are no records were passed.
/// Beyond it the oldest are forgotten.
const RUNS_MAX: usize = 100_000;

/// Records one after the other on lines one after the other.
#[derive(Debug)]
struct Run {
    file: Arc<str>,
    sequence: u64,
    line: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    runs: VecDeque<Run>,
}

impl Lines {
    /// Notes the records of a block that begins with `sequence`, before it is taken. What was noted
    /// from there on was not taken.
    pub(crate) fn note(&mut self, file: &str, sequence: u64, lines: impl Iterator<Item = u64>) {
        while self.runs.back().is_some_and(|run| run.sequence >= sequence) {
            self.runs.pop_back();
        }
        let mut name: Option<Arc<str>> = None;
        for (sequence, line) in (sequence..).zip(lines) {
            let follows = self.runs.back().is_some_and(|run| {
                *run.file == *file && run.line + (sequence - run.sequence) == line
            });
            if !follows {
                let file = name.get_or_insert_with(|| file.into()).clone();
                self.runs.push_back(Run { file, sequence, line });
            }
        }
        let surplus = self.runs.len().saturating_sub(RUNS_MAX);
        self.runs.drain(..surplus);
    }

    /// The file and line of a record; `None` where it is not known any more.
    pub(crate) fn of(&self, sequence: u64) -> Option<(Arc<str>, u64)> {
        let at = self.runs.partition_point(|run| run.sequence <= sequence);
        let run = self.runs.get(at.checked_sub(1)?)?;
        Some((run.file.clone(), run.line + (sequence - run.sequence)))
    }

    /// Forgets what is acked: nothing of it will be refused any more.
    pub(crate) fn forget(&mut self, acked_through: u64) {
        while self.runs.get(1).is_some_and(|run| run.sequence <= acked_through) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_by_its_sequence() {
        let mut lines = Lines::default();
        lines.note("a", 10, [1, 2, 5].into_iter());
        // The block was not taken and is tried again.
        lines.note("a", 10, [1, 2, 5, 6].into_iter());
        lines.note("b", 14, [1].into_iter());
        let of = |lines: &Lines, sequence| lines.of(sequence).map(|(f, l)| (f.to_string(), l));
        assert_eq!(of(&lines, 9), None);
        for (sequence, file, line) in [(11, "a", 2), (12, "a", 5), (13, "a", 6), (14, "b", 1)] {
            assert_eq!(of(&lines, sequence), Some((file.to_owned(), line)));
        }
        lines.forget(13);
        assert_eq!((of(&lines, 11), of(&lines, 13)), (None, Some(("a".to_owned(), 6))));
    }
}
