//! Which commands of a queue go first: what opens a session, then by the priority that their batch
//! carries (A1-3.3).
//!
//! ```text
//!  turn      1    2    3    4      5    6    7    8    …   16
//!  first    ──────────────── openings, at most 256 ──────────────
//!  then     high high high normal high high high normal …  low    then the others, high first
//! ```
//! While only one lane holds commands, which is so wherever nobody sends with high priority, turns
//! make no difference. Within a lane arrival decides.
//!
//! The batches of one stream that wait together are in one lane: a session lets what is on its way
//! be answered before it goes on with another priority, so the order inside a stream never changes.
//! An opening overtakes batches of its own stream too. Those are an older session's, since a session
//! proposes batches only after it was opened; apply refuses them as superseded, none of them was
//! acked, and the newer session was told the cursor before them: its client sends them again (ING-3
//! holds, nothing is lost). A key overtakes nothing that needs it: who uses a key waits for its
//! outcome first.
// Hot path: every command passes here.

use std::collections::BTreeMap;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Of so many turns the last begins with the normal lane: the share which high priority leaves it.
const NORMAL_EVERY: u32 = 4;
/// Of so many turns the last begins with the low lane, instead of the normal one.
const LOW_EVERY: u32 = 16;

/// Openings of one turn while others wait: some hundred bytes each, so they never fill a bundle.
const OPENINGS_A_TURN: usize = 256;

/// `Command.open_session` and `Command.put_key`.
const OPENINGS: [u32; 2] = [10, 14];
/// `Command.append_batch`; `AppendBatch.body` and `EntryBody.header_a` lead on to the header.
const APPEND_BATCH: u32 = 11;
const TO_HEADER: [u32; 2] = [1, 1];
/// `HeaderA.priority`.
const PRIORITY: u32 = 16;

/// By rank: the first go first, but for the turns of [`Lanes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What a session waits for before it can send: its opening, which fences older ones, and keys.
    Opening,
    High,
    Normal,
    Low,
}

impl Lane {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// The lane of an encoded command. What neither opens nor carries a batch is normal.
    pub(crate) fn of(command: &[u8]) -> Self {
        Self::decoded(command).unwrap_or(Self::Normal)
    }

    fn decoded(mut command: &[u8]) -> Option<Self> {
        loop {
            let (tag, wire_type) = decode_key(&mut command).ok()?;
            if wire_type == WireType::LengthDelimited && OPENINGS.contains(&tag) {
                return Some(Self::Opening);
            }
            if wire_type == WireType::LengthDelimited && tag == APPEND_BATCH {
                return Some(match priority(delimited(&mut command)?) {
                    Some(3..) => Self::High,
                    Some(1) => Self::Low,
                    _ => Self::Normal,
                });
            }
            skip_field(wire_type, tag, &mut command, DecodeContext::default()).ok()?;
        }
    }
}

/// The field whose key was just read.
fn delimited<'a>(message: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    message.get(..length)
}

/// The priority in the header of a batch; nothing where it holds none.
fn priority(append: &[u8]) -> Option<u64> {
    let mut message = append;
    for wanted in TO_HEADER {
        message = loop {
            let (tag, wire_type) = decode_key(&mut message).ok()?;
            if tag == wanted && wire_type == WireType::LengthDelimited {
                break delimited(&mut message)?;
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
    lanes: [BTreeMap<u64, T>; Lane::COUNT],
    turn: u32,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: std::array::from_fn(|_| BTreeMap::new()), turn: 0 }
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
        for (lane, items_max) in self.order() {
            let until = taken.len().saturating_add(items_max);
            while taken.len() < until
                && let Some(entry) = self.lanes[lane as usize].first_entry()
            {
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

    /// Lanes of the next turn, and how many items each may give. Openings come once more at the end:
    /// a turn that wants everything gets it.
    fn order(&mut self) -> [(Lane, usize); Lane::COUNT + 1] {
        self.turn = self.turn.wrapping_add(1);
        let [first, second, third] = if self.turn.is_multiple_of(LOW_EVERY) {
            [Lane::Low, Lane::High, Lane::Normal]
        } else if self.turn.is_multiple_of(NORMAL_EVERY) {
            [Lane::Normal, Lane::High, Lane::Low]
        } else {
            [Lane::High, Lane::Normal, Lane::Low]
        };
        let all = |lane| (lane, usize::MAX);
        let openings = (Lane::Opening, OPENINGS_A_TURN);
        [openings, all(first), all(second), all(third), all(Lane::Opening)]
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::command::command::Op;
    use dtm_types::command::{
        AppendBatch, CloseSession, Command, DeclareLost, OpenSession, PutKey, RewrapKeys,
    };
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
        let whole = command(3);
        for cut in 0..whole.len() {
            let _ = Lane::of(&whole[..cut]);
        }
    }

    #[test]
    fn what_a_session_waits_for_goes_first_and_what_ends_one_does_not() {
        let lane = |op| {
            let command = Command { request_id: vec![2; 16].into(), op: Some(op), actor: None };
            Lane::of(&command.encode_to_vec())
        };
        let open = OpenSession { source: "tinh-01".to_owned(), ..OpenSession::default() };
        assert_eq!(lane(Op::OpenSession(open)), Lane::Opening);
        assert_eq!(lane(Op::OpenSession(OpenSession::default())), Lane::Opening);
        assert_eq!(lane(Op::PutKey(PutKey::default())), Lane::Opening);
        // These must stay behind the batches of their stream, or have time.
        assert_eq!(lane(Op::CloseSession(CloseSession::default())), Lane::Normal);
        assert_eq!(lane(Op::DeclareLost(DeclareLost::default())), Lane::Normal);
        assert_eq!(lane(Op::RewrapKeys(RewrapKeys::default())), Lane::Normal);
    }

    #[test]
    fn openings_go_first_and_never_fill_a_turn() {
        let mut lanes = Lanes::default();
        let many = OPENINGS_A_TURN as u64 + 100;
        for n in 0..many {
            lanes.insert(Lane::Opening, 2 * n, Lane::Opening);
            lanes.insert(Lane::Normal, 2 * n + 1, Lane::Normal);
        }
        let mut room = OPENINGS_A_TURN + 10;
        let taken = lanes.take_while(|_| {
            room = room.saturating_sub(1);
            room > 0
        });
        let openings = taken.iter().filter(|(_, lane)| *lane == Lane::Opening).count();
        assert_eq!((openings, taken.len()), (OPENINGS_A_TURN, OPENINGS_A_TURN + 9));
        assert_eq!(taken.last(), Some(&(2 * 8 + 1, Lane::Normal)));
        // Who wants everything gets it, each lane in the order of arrival.
        let rest = lanes.take_while(|_| true);
        assert_eq!(rest.len() + taken.len(), 2 * OPENINGS_A_TURN + 200);
        assert!(lanes.is_empty());
        for lane in [Lane::Opening, Lane::Normal] {
            let own = rest.iter().filter(|i| i.1 == lane);
            assert!(own.is_sorted_by_key(|i| i.0), "{lane:?}");
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
                Lane::Opening => unreachable!("none was put in"),
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
