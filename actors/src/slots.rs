//! The open streams of each source on this node: how many there are, and what they share: the room in
//! quarantine, the part of the node's memory, and what refused records cost.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_types::{ErrorCode, SourceId, StreamKey};
use parking_lot::Mutex;

use crate::admission::{Share, ShareOf};
use crate::batch::Quota;
use crate::bounds::Bound;
use crate::error::Error;
use crate::limits::Limits;

/// Sessions that a stream has at once: the one that holds it, and the one that takes it over.
const TAKING_OVER: usize = 2;

/// A clone is the same table; it holds the sources that have a stream open.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    open: Arc<Mutex<HashMap<SourceId, Open>>>,
    quarantine_record_bytes_max: usize,
}

#[derive(Debug)]
struct Open {
    /// How many sessions have each stream: two while a newer one takes it over.
    streams: HashMap<Arc<str>, usize>,
    quarantine: Quota,
    share: Share,
}

impl Slots {
    pub(crate) fn new(limits: &Limits) -> Self {
        let quarantine_record_bytes_max = limits.quarantine_record_bytes_max;
        Self { open: Arc::default(), quarantine_record_bytes_max }
    }

    /// A place for a session of a stream, free again when it is dropped. A stream that is open here
    /// has its place: who takes it over needs no other one, also where its source has all that it
    /// may. The first stream makes the share; where what is allowed has changed, the first one that
    /// is opened since: those before it keep theirs until they are opened again.
    ///
    /// # Errors
    /// [`Error::Limit`] where as many streams as `most` have a place, or twice as many sessions.
    pub(crate) fn take(
        &self,
        stream: &StreamKey,
        most: Bound,
        share: ShareOf,
    ) -> Result<Slot, Error> {
        let mut all = self.open.lock();
        if let Some(open) = all.get(&stream.source) {
            let sessions: usize = open.streams.values().sum();
            let found = match open.streams.contains_key(&stream.stream) {
                true => (sessions + 1).div_ceil(TAKING_OVER),
                false => open.streams.len() + 1,
            };
            most.check(found, stream, ErrorCode::TooManyStreams)?;
        } else {
            most.check(1, stream, ErrorCode::TooManyStreams)?;
        }
        let open = all.entry(stream.source.clone()).or_insert_with(|| Open {
            streams: HashMap::new(),
            quarantine: Quota::new(self.quarantine_record_bytes_max),
            share: Share::new(share),
        });
        if open.share.of() != share {
            open.share = Share::new(share);
        }
        *open.streams.entry(Arc::clone(&stream.stream)).or_default() += 1;
        let (quarantine, share) = (open.quarantine.clone(), open.share.clone());
        Ok(Slot { slots: self.clone(), stream: stream.clone(), quarantine, share })
    }
}

/// One open stream's place, however its session ends.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    stream: StreamKey,
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
        let Some(open) = all.get_mut(&self.stream.source) else { return };
        if let Some(sessions) = open.streams.get_mut(&self.stream.stream) {
            *sessions -= 1;
            if *sessions == 0 {
                open.streams.remove(&self.stream.stream);
            }
        }
        if open.streams.is_empty() {
            all.remove(&self.stream.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::command::SourceLimits;

    use super::*;
    use crate::bounds::{BoundOf, Bounds};

    const SHARE: ShareOf = ShareOf { bytes: 1_024, refused_per_second_max: 1_000 };

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
        match slots.take(stream, most, SHARE).expect_err("no place") {
            Error::Limit { bound, found, .. } => (bound.value, bound.of, found),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_source_has_its_own_number_of_streams() {
        let slots = slots();
        let (few, usual) = (most(1), most(0));
        let held = slots.take(&stream("a", "1"), few, SHARE).expect("the first");
        assert_eq!(refused(&slots, &stream("a", "2"), few), (1, BoundOf::Source, 2));
        let beside =
            ["1", "2"].map(|name| slots.take(&stream("b", name), usual, SHARE).expect("free"));
        assert_eq!(refused(&slots, &stream("b", "3"), usual), (2, BoundOf::Node, 3));
        let more =
            slots.take(&stream("b", "3"), most(3), SHARE).expect("raised while others are open");
        drop((held, beside, more));
        assert!(slots.open.lock().is_empty(), "nothing of a source without streams stays");
        slots.take(&stream("a", "2"), few, SHARE).expect("free again");
    }

    // Its client may be gone without a word: its streams are not lost to it till somebody notices.
    #[test]
    fn a_stream_is_taken_over_where_all_places_are_taken() {
        let slots = slots();
        let take = |name: &str| slots.take(&stream("a", name), most(0), SHARE);
        let [one, two] = ["1", "2"].map(|name| take(name).expect("free"));
        let newer = take("1").expect("taken over");
        assert_eq!(refused(&slots, &stream("a", "3"), most(0)), (2, BoundOf::Node, 3));
        drop(one);
        assert_eq!(refused(&slots, &stream("a", "3"), most(0)), (2, BoundOf::Node, 3));
        let more = ["1", "1"].map(|name| take(name).expect("as many again"));
        assert_eq!(refused(&slots, &stream("a", "1"), most(0)), (2, BoundOf::Node, 3));
        drop((newer, more));
        let third = take("3").expect("a place of its own");
        drop((two, third));
        assert!(slots.open.lock().is_empty());
    }

    #[test]
    fn a_stream_that_is_opened_after_a_change_has_what_is_allowed_now() {
        let slots = slots();
        let take = |name: &str, share| slots.take(&stream("a", name), most(0), share);
        let before = take("1", SHARE).expect("free");
        let lower = ShareOf { refused_per_second_max: 10, ..SHARE };
        let newer = take("1", lower).expect("taken over");
        assert_eq!((before.share().of(), newer.share().of()), (SHARE, lower));
        drop(before);
        assert_eq!(take("2", lower).expect("free").share().of(), lower);
    }

    #[test]
    fn the_streams_of_a_source_share_one_room_in_quarantine() {
        let slots = slots();
        let [one, two] =
            ["1", "2"].map(|n| slots.take(&stream("a", n), most(0), SHARE).expect("free"));
        let other = slots.take(&stream("b", "1"), most(0), SHARE).expect("free");
        one.quarantine().set(2, 100);
        assert_eq!(one.quarantine().keep(60), Some(50), "no more of one record");
        assert_eq!(two.quarantine().keep(40), Some(40));
        assert_eq!((one.quarantine().keep(0), two.quarantine().keep(0)), (None, None));
        assert_eq!(other.quarantine().keep(0), None, "another source's room");
        two.quarantine().set(1, 10);
        assert_eq!((one.quarantine().keep(11), one.quarantine().keep(10)), (None, Some(10)));
    }
}
