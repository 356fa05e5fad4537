//! The open streams of each source on this node: how many there are, and what they share: the room in
//! quarantine, the part of the node's memory, and what refused records cost.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_types::{ErrorCode, SourceId, StreamKey};
use parking_lot::Mutex;

use crate::admission::Share;
use crate::batch::Quota;
use crate::bounds::Bound;
use crate::error::Error;
use crate::limits::Limits;

/// A clone is the same table; it holds the sources that have a stream open.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    open: Arc<Mutex<HashMap<SourceId, Open>>>,
    quarantine_record_bytes_max: usize,
    refused_per_second_max: u64,
}

#[derive(Debug)]
struct Open {
    streams: usize,
    quarantine: Quota,
    share: Share,
}

impl Slots {
    pub(crate) fn new(limits: &Limits) -> Self {
        let quarantine_record_bytes_max = limits.quarantine_record_bytes_max;
        let refused_per_second_max = limits.refused_per_second_max;
        Self { open: Arc::default(), quarantine_record_bytes_max, refused_per_second_max }
    }

    /// A place for one more stream of its source, free again when it is dropped. The first stream
    /// makes the share, of `share_bytes`.
    ///
    /// # Errors
    /// [`Error::Limit`] where as many as `most` are taken.
    pub(crate) fn take(
        &self,
        stream: &StreamKey,
        most: Bound,
        share_bytes: u64,
    ) -> Result<Slot, Error> {
        let mut all = self.open.lock();
        let taken = all.get(&stream.source).map_or(0, |open| open.streams);
        most.check(taken + 1, stream, ErrorCode::TooManyStreams)?;
        let open = all.entry(stream.source.clone()).or_insert_with(|| Open {
            streams: 0,
            quarantine: Quota::new(self.quarantine_record_bytes_max),
            share: Share::new(share_bytes, self.refused_per_second_max),
        });
        open.streams += 1;
        let (quarantine, share) = (open.quarantine.clone(), open.share.clone());
        Ok(Slot { slots: self.clone(), source: stream.source.clone(), quarantine, share })
    }
}

/// One open stream's place, however its session ends.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    source: SourceId,
    quarantine: Quota,
    share: Share,
}

impl Slot {
    /// The room in quarantine that it shares with the other streams of its source.
    pub(crate) fn quarantine(&self) -> &Quota {
        &self.quarantine
    }

    /// The part of the node's memory that it shares with them, and what they owe.
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.slots.open.lock();
        if let Some(open) = all.get_mut(&self.source) {
            open.streams -= 1;
            if open.streams == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::command::SourceLimits;

    use super::*;
    use crate::bounds::{BoundOf, Bounds};

    fn most(streams_open_max: u32) -> Bound {
        let own = SourceLimits { streams_open_max, ..SourceLimits::default() };
        Bounds::new(&Limits { streams_open_max: 2, ..Limits::default() }, &own).streams_open
    }

    fn slots() -> Slots {
        Slots::new(&Limits { quarantine_record_bytes_max: 50, ..Limits::default() })
    }

    fn stream(source: &str, name: &str) -> StreamKey {
        StreamKey::parse(source, name).expect("allowed names")
    }

    fn refused(slots: &Slots, stream: &StreamKey, most: Bound) -> (u64, BoundOf, u64) {
        match slots.take(stream, most, 1_024).expect_err("no place") {
            Error::Limit { bound, found, .. } => (bound.value, bound.of, found),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_source_has_its_own_number_of_streams() {
        let slots = slots();
        let (few, usual) = (most(1), most(0));
        let held = slots.take(&stream("a", "1"), few, 1_024).expect("the first");
        assert_eq!(refused(&slots, &stream("a", "2"), few), (1, BoundOf::Source, 2));
        let beside =
            ["1", "2"].map(|name| slots.take(&stream("b", name), usual, 1_024).expect("free"));
        assert_eq!(refused(&slots, &stream("b", "3"), usual), (2, BoundOf::Node, 3));
        let more =
            slots.take(&stream("b", "3"), most(3), 1_024).expect("raised while others are open");
        drop((held, beside, more));
        assert!(slots.open.lock().is_empty(), "nothing of a source without streams stays");
        slots.take(&stream("a", "2"), few, 1_024).expect("free again");
    }

    #[test]
    fn the_streams_of_a_source_share_one_room_in_quarantine() {
        let slots = slots();
        let [one, two] =
            ["1", "2"].map(|n| slots.take(&stream("a", n), most(0), 1_024).expect("free"));
        let other = slots.take(&stream("b", "1"), most(0), 1_024).expect("free");
        one.quarantine().set(2, 100);
        assert_eq!(one.quarantine().keep(60), Some(50), "no more of one record");
        assert_eq!(two.quarantine().keep(40), Some(40));
        assert_eq!((one.quarantine().keep(0), two.quarantine().keep(0)), (None, None));
        assert_eq!(other.quarantine().keep(0), None, "another source's room");
        two.quarantine().set(1, 10);
        assert_eq!((one.quarantine().keep(11), one.quarantine().keep(10)), (None, Some(10)));
    }
}
