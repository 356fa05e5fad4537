//! Which commands of a queue go first: the priority that their batch carries (A1-3.3).
//!
//! ```text
//!  turn      1    2    3    4      5    6    7    8    …   16
//!  first    high high high normal high high high normal …  low    then the others, high first
//! ```
//! While only one lane holds commands, which is so wherever nobody sends with high priority, turns
//! make no difference. Within a lane arrival decides. All commands of one stream that wait together
//! are in one lane: a session lets what is on its way be answered before it goes on with another
//! priority, so the order inside a stream never changes.
// Hot path: every command passes here.

use std::collections::BTreeMap;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Every turn of so many begins with the normal lane, every one of so many with the low one: that
/// is the share which high priority leaves them.
const NORMAL_EVERY: u32 = 4;
const LOW_EVERY: u32 = 16;

/// `Command.append_batch`, `AppendBatch.body`, `EntryBody.header_a`: the way to the header.
const TO_HEADER: [u32; 3] = [11, 1, 1];
/// `HeaderA.priority`.
const PRIORITY: u32 = 16;

/// Of highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    High,
    Normal,
    Low,
}

impl Lane {
    /// The lane of an encoded command. What carries no batch is normal.
    pub(crate) fn of(command: &[u8]) -> Self {
        match priority(command) {
            Some(3..) => Self::High,
            Some(1) => Self::Low,
            _ => Self::Normal,
        }
    }
}

/// The priority in the header of a batch; nothing where the command holds none.
fn priority(command: &[u8]) -> Option<u64> {
    let mut message = command;
    for wanted in TO_HEADER {
        message = loop {
            let (tag, wire_type) = decode_key(&mut message).ok()?;
            if tag == wanted && wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                break message.get(..length)?;
            }
            skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
        };
    }
    loop {
        let (tag, wire_type) = decode_key(&mut message).ok()?;
        if tag == PRIORITY && wire_type == WireType::Varint {
            return decode_varint(&mut message).ok();
        }
        skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
    }
}

/// What waits, by lane and arrival.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: [BTreeMap<u64, T>; 3],
    turn: u32,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()], turn: 0 }
    }
}

impl<T> Lanes<T> {
    pub(crate) fn insert(&mut self, lane: Lane, number: u64, item: T) {
        self.lanes[lane as usize].insert(number, item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(BTreeMap::is_empty)
    }

    /// The next one of this turn.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let mut one = true;
        self.take_while(|_| std::mem::take(&mut one)).pop()
    }

    /// One turn: the items in its order, as long as they are wanted.
    pub(crate) fn take_while(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<(u64, T)> {
        let mut taken = Vec::new();
        for lane in self.order() {
            while let Some(entry) = self.lanes[lane as usize].first_entry() {
                if !wanted(entry.get()) {
                    return taken;
                }
                taken.push(entry.remove_entry());
            }
        }
        taken
    }

    /// Takes from the front of each lane what matches.
    pub(crate) fn drop_while(&mut self, matches: impl Fn(&T) -> bool) -> Vec<T> {
        let mut dropped = Vec::new();
        for lane in &mut self.lanes {
            while let Some(entry) = lane.first_entry()
                && matches(entry.get())
            {
                dropped.push(entry.remove());
            }
        }
        dropped
    }

    /// Everything.
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.lanes.into_iter().flat_map(BTreeMap::into_values)
    }

    fn order(&mut self) -> [Lane; 3] {
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(LOW_EVERY) {
            [Lane::Low, Lane::High, Lane::Normal]
        } else if self.turn.is_multiple_of(NORMAL_EVERY) {
            [Lane::Normal, Lane::High, Lane::Low]
        } else {
            [Lane::High, Lane::Normal, Lane::Low]
        }
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::command::command::Op;
    use dtm_types::command::{AppendBatch, CloseSession, Command};
    use dtm_types::format::{EntryBody, HeaderA};
    use prost::Message;

    use super::*;

    fn command(priority: u32) -> Vec<u8> {
        let header = HeaderA {
            version: 1,
            source: "tinh-01".to_owned(),
            stream: "main".to_owned(),
            session: 7,
            first_sequence: 300,
            security_status: 2,
            priority,
            key_id: vec![1; 16].into(),
            ..HeaderA::default()
        };
        let body = EntryBody {
            header_a: header.encode_to_vec().into(),
            sealed: vec![9; 100].into(),
            ..EntryBody::default()
        };
        let append = AppendBatch { body: Some(body), unmasked: 1, ..AppendBatch::default() };
        let op = Some(Op::AppendBatch(append));
        Command { request_id: vec![2; 16].into(), op, ..Command::default() }.encode_to_vec()
    }

    #[test]
    fn the_lane_follows_the_header() {
        assert_eq!(Lane::of(&command(3)), Lane::High);
        assert_eq!(Lane::of(&command(2)), Lane::Normal);
        assert_eq!(Lane::of(&command(1)), Lane::Low);
        assert_eq!(Lane::of(&command(0)), Lane::Normal);
        let close =
            Command { op: Some(Op::CloseSession(CloseSession::default())), ..Command::default() };
        assert_eq!(Lane::of(&close.encode_to_vec()), Lane::Normal);
        let whole = command(3);
        for cut in 0..whole.len() {
            let _ = Lane::of(&whole[..cut]);
        }
    }

    #[test]
    fn high_goes_first_and_the_others_keep_their_share_and_order() {
        let mut lanes = Lanes::default();
        for n in 0..1_000_u64 {
            for lane in [Lane::Normal, Lane::High, Lane::Low] {
                lanes.insert(lane, n, lane);
            }
        }
        let first: Vec<_> = (0..160).filter_map(|_| lanes.pop()).collect();
        for lane in [Lane::High, Lane::Normal, Lane::Low] {
            let own: Vec<u64> = first.iter().filter(|i| i.1 == lane).map(|i| i.0).collect();
            let count = match lane {
                Lane::High => 120,
                Lane::Normal => 30,
                Lane::Low => 10,
            };
            assert_eq!(own, (0..count).collect::<Vec<_>>(), "{lane:?}");
        }
    }

    #[test]
    fn one_turn_fills_up_with_what_is_there() {
        let mut lanes = Lanes::default();
        lanes.insert(Lane::Normal, 0, 10);
        lanes.insert(Lane::Normal, 1, 10);
        lanes.insert(Lane::High, 2, 10);
        let mut room = 25;
        let taken = lanes.take_while(|bytes| {
            room -= bytes;
            room >= 0
        });
        assert_eq!(taken.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 0]);
        // What was not written goes back to its place.
        lanes.insert(Lane::Normal, 0, 10);
        assert_eq!(lanes.take_while(|_| true).iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1]);
        assert!(lanes.is_empty());
    }
}
