//! READ-1: a read that says it is current holds everything that was known before it began: what was
//! acked, and what another current read had seen. That is what linearizable means for a stream, which
//! only grows.

use std::collections::BTreeMap;

use super::breach::Breach;

/// What is known of each stream, and the reads that lacked some of it. Reads and acks may overlap.
#[derive(Debug, Default)]
pub struct Reads {
    known: BTreeMap<String, u64>,
    judged: usize,
    breaches: Vec<Breach>,
}

/// A read that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    stream: String,
    known: u64,
}

impl Reads {
    /// A client holds an ack.
    pub fn acked(&mut self, stream: &str, through: u64) {
        let known = self.known.entry(stream.to_owned()).or_default();
        *known = through.max(*known);
    }

    /// A read is about to be asked for.
    pub fn begin(&self, stream: &str) -> Asked {
        let known = self.known.get(stream).copied().unwrap_or_default();
        Asked { stream: stream.to_owned(), known }
    }

    /// The read was answered by a node with the stream through `seen`. One that does not say that it
    /// is current may be as old as it likes.
    pub fn answered(&mut self, asked: Asked, node: &str, is_current: bool, seen: u64) {
        if !is_current {
            return;
        }
        self.judged += 1;
        let Asked { stream, known } = asked;
        self.acked(&stream, seen);
        if seen < known {
            self.breaches.push(Breach::StaleRead { stream, node: node.to_owned(), seen, known });
        }
    }

    /// Reads that said they were current.
    pub fn judged(&self) -> usize {
        self.judged
    }

    /// What was found so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_holds_what_was_known_before_it_began() {
        let mut reads = Reads::default();
        reads.acked("a/b", 5);
        let overlapping = reads.begin("a/b");
        reads.acked("a/b", 9);
        reads.answered(overlapping, "one", true, 5);
        let local = reads.begin("a/b");
        reads.answered(local, "two", false, 0);
        assert_eq!(
            (reads.judged(), reads.breaches()),
            (1, &[][..]),
            "acked while it ran, or local"
        );

        let late = reads.begin("a/b");
        reads.answered(late, "two", true, 8);
        assert_eq!(reads.breaches().len(), 1);
    }

    #[test]
    fn what_one_current_read_saw_the_next_one_sees() {
        let mut reads = Reads::default();
        let first = reads.begin("a/b");
        reads.answered(first, "one", true, 7);
        let second = reads.begin("a/b");
        reads.answered(second, "two", true, 6);
        let stale = Breach::StaleRead {
            stream: "a/b".to_owned(),
            node: "two".to_owned(),
            seen: 6,
            known: 7,
        };
        assert_eq!(reads.breaches(), [stale], "never acked, and seen before");
    }
}
