//! Records that are kept in memory until they are acked.
//!
//! Owned by the publisher's state. Sequences are contiguous: `first_held() .. next_sequence()`.

use crate::frame::PartMax;
use crate::{EncodedFrame, FrameBuilder};
use dtm_proto::ingest::Record;
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Memory {
    frames: VecDeque<EncodedFrame>,
    open: FrameBuilder,
    next: u64,
    bytes: usize,
    /// Leading frames that are acked whole and kept for another site.
    acked_frames: usize,
    acked_bytes: usize,
    frame_bytes: usize,
}

impl Memory {
    /// Numbers from `next` on; a frame is cut at `frame_bytes`.
    pub(crate) fn new(next: u64, frame_bytes: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            open: FrameBuilder::new(next),
            next,
            bytes: 0,
            acked_frames: 0,
            acked_bytes: 0,
            frame_bytes,
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// First sequence that is still held; `next_sequence()` where nothing is.
    pub(crate) fn first_held(&self) -> u64 {
        let open = self.next - u64::from(self.open.count());
        self.frames.front().map_or(open, EncodedFrame::first_sequence)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, record: &Record) -> u64 {
        let before = self.open.bytes();
        let sequence = self.open.push(record);
        assert!(sequence == self.next, "sequences have no holes");
        self.bytes += self.open.bytes() - before;
        self.next += 1;
        if self.open.bytes() >= self.frame_bytes {
            self.frames.extend(self.open.finish());
        }
        sequence
    }

    /// Bytes from `sequence` to the end, at most `enough`: whether a frame is worth cutting.
    pub(crate) fn ready_bytes(&self, sequence: u64, enough: usize) -> usize {
        if sequence >= self.next {
            return 0;
        }
        let open_first = self.next - u64::from(self.open.count());
        if sequence >= open_first { self.open.bytes() } else { enough.max(1) }
    }

    /// The frame that starts at `sequence`, of at most `bytes_max` bytes but at least a record.
    pub(crate) fn frame_from(&mut self, sequence: u64, max: PartMax) -> Option<EncodedFrame> {
        if sequence < self.first_held() || sequence >= self.next {
            return None;
        }
        if self.frames.back().is_none_or(|last| last.last_sequence() < sequence) {
            self.frames.extend(self.open.finish());
        }
        let at = self.frames.partition_point(|frame| frame.last_sequence() < sequence);
        self.frames.get(at)?.part(sequence, max)
    }

    /// Bytes that are not acked, counted by whole frames.
    pub(crate) fn unacked_bytes(&self) -> usize {
        self.bytes - self.acked_bytes
    }

    /// Bytes that are acked and wait until the standby has them.
    pub(crate) fn waits_for_site(&self) -> usize {
        self.acked_bytes
    }

    /// The cluster holds less than it acked: what lies above `acked_through` is unacked again.
    pub(crate) fn unack(&mut self, acked_through: u64) {
        while self.acked_frames > 0
            && let Some(frame) = self.frames.get(self.acked_frames - 1)
            && frame.last_sequence() > acked_through
        {
            self.acked_bytes -= frame.bytes();
            self.acked_frames -= 1;
        }
    }

    /// Notes an ack and forgets what lies at or below `release`, frame by frame: a frame that is
    /// acked in part stays. Where more than `bytes_max` are held then, the oldest acked ones go: how
    /// many records of those another site does not have.
    pub(crate) fn release(&mut self, release: u64, acked_through: u64, bytes_max: usize) -> u64 {
        let mut let_go = 0;
        while let Some(frame) = self.frames.get(self.acked_frames)
            && frame.last_sequence() <= acked_through
        {
            self.acked_bytes += frame.bytes();
            self.acked_frames += 1;
        }
        while self.acked_frames > 0
            && self
                .frames
                .front()
                .is_some_and(|frame| frame.last_sequence() <= release || self.bytes > bytes_max)
        {
            let gone = self.frames.pop_front().expect("front was seen");
            self.bytes -= gone.bytes();
            self.acked_bytes -= gone.bytes();
            self.acked_frames -= 1;
            let_go +=
                (gone.last_sequence() + 1).saturating_sub(gone.first_sequence().max(release + 1));
        }
        let_go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: PartMax = PartMax { bytes: 1000, records: 10 };

    fn record(size: usize) -> Record {
        Record { payload: vec![b'x'; size].into(), ..Record::default() }
    }

    #[test]
    fn what_is_not_acked_stays_and_keeps_its_sequence() {
        let mut memory = Memory::new(10, 300);
        for _ in 0..10 {
            memory.push(&record(100));
        }
        assert_eq!((memory.first_held(), memory.next_sequence()), (10, 20));
        let frame = memory.frame_from(11, MAX).expect("held");
        assert_eq!((frame.first_sequence(), frame.last_sequence()), (11, 12));
        assert_eq!(memory.release(13, 13, usize::MAX), 0);
        assert_eq!(memory.first_held(), 13, "a frame acked in part stays whole");
        assert!(memory.frame_from(12, MAX).is_none());
        assert_eq!(memory.frame_from(19, MAX).map(|f| f.last_sequence()), Some(19));
        memory.release(19, 19, usize::MAX);
        assert_eq!((memory.first_held(), memory.bytes()), (20, 0));
        assert!(memory.frame_from(20, MAX).is_none());
    }

    #[test]
    fn acked_records_make_room_and_others_do_not() {
        let mut memory = Memory::new(1, 100);
        for _ in 0..10 {
            memory.push(&record(100));
        }
        assert_eq!(memory.release(0, 4, usize::MAX), 0);
        assert_eq!(memory.first_held(), 1, "another site lacks them");
        let unacked = memory.unacked_bytes();
        assert_eq!(memory.release(2, 4, 0), 2, "two of them it has");
        assert_eq!((memory.first_held(), memory.bytes()), (5, unacked));
    }
}
