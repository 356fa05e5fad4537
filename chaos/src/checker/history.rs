//! The history checker: ING-1 to ING-4 from what clients sent and were acked and what each node gave
//! back.
//!
//! Owns the whole history in memory: 16 bytes a sequence sent and one bit a sequence and node, so
//! 10 million records read from three nodes take about 170 MB. Sequences have no holes (the protocol
//! counts from 1), which is why a stream is a plain array.

use std::collections::HashMap;

use super::streams::{Digest, NodeVerdict, Place, Range, StreamNo, Verdict};

/// Judges a history. Feed it in any order between streams; `observed` in the order a node gave.
#[derive(Debug, Default)]
pub struct Checker {
    numbers: HashMap<String, StreamNo>,
    streams: Vec<Stream>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Stream {
    name: String,
    digests: Vec<Digest>,
    excused: Bits,
    acked_through: u64,
}

#[derive(Debug, Default)]
struct Node {
    verdict: NodeVerdict,
    seen: Vec<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    bits: Bits,
    last: u64,
}

/// The harness contradicts itself; its history proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A sequence was sent a second time with other content.
    #[error("{stream} {sequence} was sent twice with different content")]
    Resent {
        /// `source/stream`.
        stream: String,
        /// The sequence.
        sequence: u64,
    },
    /// Sequences start at 1 and leave no hole.
    #[error("{stream} {sequence} was sent behind a hole (next is {next})")]
    Hole {
        /// `source/stream`.
        stream: String,
        /// The sequence.
        sequence: u64,
        /// What was expected.
        next: u64,
    },
    /// An ack, refusal or duplicate for what was never sent.
    #[error("{stream} {sequence} was answered and never sent")]
    NeverSent {
        /// `source/stream`.
        stream: String,
        /// The sequence.
        sequence: u64,
    },
}

impl Checker {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of a stream; a new name gets the next one.
    pub fn stream(&mut self, source: &str, stream: &str) -> StreamNo {
        let name = format!("{source}/{stream}");
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number =
            StreamNo(u32::try_from(self.streams.len()).expect("fewer than 4 billion streams"));
        self.numbers.insert(name.clone(), number);
        self.streams.push(Stream { name, ..Stream::default() });
        number
    }

    /// A record was handed to the cluster, for the first time or again.
    pub fn sent(&mut self, stream: StreamNo, sequence: u64, digest: Digest) -> Result<(), Misuse> {
        let stream = &mut self.streams[stream.0 as usize];
        let next = stream.digests.len() as u64 + 1;
        if sequence == next {
            stream.digests.push(digest);
            return Ok(());
        }
        let name = || stream.name.clone();
        match stream.digest(sequence) {
            Some(known) if *known == digest => Ok(()),
            Some(_) => Err(Misuse::Resent { stream: name(), sequence }),
            None => Err(Misuse::Hole { stream: name(), sequence, next }),
        }
    }

    /// The cluster said that everything up to here is kept. An ack for what was not sent is ING-4's
    /// business of the cluster, but a harness that hears it must look: it is an error here.
    pub fn acked(&mut self, stream: StreamNo, through: u64) -> Result<(), Misuse> {
        let stream = &mut self.streams[stream.0 as usize];
        stream.must_know(through)?;
        stream.acked_through = stream.acked_through.max(through);
        Ok(())
    }

    /// The cluster said that this record was refused, or is a duplicate of another stream's: it
    /// takes its sequence and must not be there.
    pub fn excused(&mut self, stream: StreamNo, sequence: u64) -> Result<(), Misuse> {
        let stream = &mut self.streams[stream.0 as usize];
        stream.must_know(sequence)?;
        stream.excused.set(sequence);
        Ok(())
    }

    /// A node that will be read, even if it then gives nothing.
    pub fn node(&mut self, name: &str) -> usize {
        if let Some(at) = self.nodes.iter().position(|node| node.verdict.node == name) {
            return at;
        }
        let verdict = NodeVerdict { node: name.to_owned(), ..NodeVerdict::default() };
        self.nodes.push(Node { verdict, seen: Vec::new() });
        self.nodes.len() - 1
    }

    /// A node gave a record back. Call in the order in which the node gave them.
    pub fn observed(&mut self, node: usize, stream: StreamNo, sequence: u64, digest: Digest) {
        let Node { verdict, seen } = &mut self.nodes[node];
        let known = &self.streams[stream.0 as usize];
        let place = || Place { stream: known.name.clone(), sequence };
        verdict.stored += 1;
        if known.digest(sequence) != Some(&digest) || known.excused.has(sequence) {
            verdict.invented.add(1, place);
            if known.digest(sequence).is_none() {
                return;
            }
        }
        let at = stream.0 as usize;
        if seen.len() <= at {
            seen.resize_with(at + 1, Seen::default);
        }
        let seen = &mut seen[at];
        if !seen.bits.set(sequence) {
            verdict.doubled.add(1, place);
        } else if sequence < seen.last {
            verdict.out_of_order.add(1, place);
        }
        seen.last = seen.last.max(sequence);
    }

    /// Judges what was fed. May be called again after more was fed.
    pub fn verdict(&self) -> Verdict {
        let sum = |of: fn(&Stream) -> u64| self.streams.iter().map(of).sum();
        Verdict {
            sent: sum(|s| s.digests.len() as u64),
            acked: sum(|s| s.acked_through),
            excused: sum(|s| s.excused.count()),
            nodes: self.nodes.iter().map(|node| self.judge(node)).collect(),
        }
    }

    fn judge(&self, node: &Node) -> NodeVerdict {
        let mut verdict = node.verdict.clone();
        let nothing = Seen::default();
        for (at, stream) in self.streams.iter().enumerate() {
            let seen = node.seen.get(at).unwrap_or(&nothing);
            let mut gap: Option<(u64, u64)> = None;
            for sequence in 1..=stream.acked_through.max(seen.last) {
                if seen.bits.has(sequence) || stream.excused.has(sequence) {
                    continue;
                }
                if sequence > stream.acked_through {
                    // Never acked, so not lost; but later ones are there without it.
                    verdict.out_of_order.add(1, || Place { stream: stream.name.clone(), sequence });
                    continue;
                }
                gap = match gap {
                    Some((from, to)) if to + 1 == sequence => Some((from, sequence)),
                    before => {
                        lose(&mut verdict, stream, before);
                        Some((sequence, sequence))
                    }
                };
            }
            lose(&mut verdict, stream, gap);
        }
        verdict
    }
}

fn lose(verdict: &mut NodeVerdict, stream: &Stream, gap: Option<(u64, u64)>) {
    if let Some((from, to)) = gap {
        verdict.lost.add(to - from + 1, || Range { stream: stream.name.clone(), from, to });
    }
}

impl Stream {
    fn digest(&self, sequence: u64) -> Option<&Digest> {
        let at = usize::try_from(sequence.checked_sub(1)?).ok()?;
        self.digests.get(at)
    }

    fn must_know(&self, sequence: u64) -> Result<(), Misuse> {
        if sequence <= self.digests.len() as u64 {
            return Ok(());
        }
        Err(Misuse::NeverSent { stream: self.name.clone(), sequence })
    }
}

/// A growing set of sequences.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, sequence: u64) -> bool {
        let word = self.0.get((sequence / 64) as usize);
        word.is_some_and(|word| word & (1 << (sequence % 64)) != 0)
    }

    /// True when it was not there before.
    fn set(&mut self, sequence: u64) -> bool {
        let at = (sequence / 64) as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        let fresh = self.0[at] & bit == 0;
        self.0[at] |= bit;
        fresh
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
