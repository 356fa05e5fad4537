//! What each group holds of the link to one peer, in commands that are not yet answered.
//!
//! ```text
//!  │ own: group 0 │ own: group 1 │ … │  shared: 16 MiB, 16,384 commands; half of it for one group  │
//! ```
//! A leader that has lost its followers answers nothing. What such a group holds is bounded, and
//! however many groups are so, each other one has a part that none of them takes. A group's openings
//! of sessions have a part beside that of its batches, so they find room where those have filled it.
//! The bytes themselves lie in the groups' queues, which bound them.
// Hot path: every forwarded command passes here.

use std::collections::HashMap;

use dtm_types::GroupId;
use parking_lot::Mutex;

/// What all groups share: some round trips of full bundles.
const SHARED: Amount = Amount { bytes: 16 << 20, commands: 16 << 10 };
/// One part in so many of it is the most for one group: twice what its leader has in flight, and as
/// much again for the others.
const GROUP_PART: usize = 2;
/// What each group has for itself, for openings once and for all else once: enough to go on at some
/// ten MiB/s while others hold all that is shared, little enough for every group to have it.
const OWN: Amount = Amount { bytes: 256 << 10, commands: 128 };
/// Meta is one more.
const GROUPS_MAX: usize = dtm_types::INGEST_GROUPS_MAX as usize + 1;

/// Commands that a link can hold: as many answers need a place at its other end.
pub(crate) const COMMANDS_MAX: usize = SHARED.commands + 2 * GROUPS_MAX * OWN.commands;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    bytes: usize,
    commands: usize,
}

impl Amount {
    const fn command(bytes: usize) -> Self {
        Self { bytes, commands: 1 }
    }

    fn plus(self, more: Self) -> Self {
        Self { bytes: self.bytes + more.bytes, commands: self.commands + more.commands }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(less.bytes),
            commands: self.commands.saturating_sub(less.commands),
        }
    }
}

/// What one group holds.
#[derive(Clone, Copy, Default)]
struct Held {
    openings: Amount,
    others: Amount,
}

impl Held {
    fn part(&mut self, is_opening: bool) -> &mut Amount {
        if is_opening { &mut self.openings } else { &mut self.others }
    }

    /// What it takes of the shared room.
    fn shared(&self) -> Amount {
        self.openings.minus(OWN).plus(self.others.minus(OWN))
    }
}

#[derive(Default)]
struct Books {
    groups: HashMap<GroupId, Held>,
    /// What all groups take of the shared room.
    shared: Amount,
}

/// Who holds how much of one link.
#[derive(Default)]
pub(crate) struct Shares(Mutex<Books>);

impl Shares {
    /// Takes room for a command; false where there is none for its group. A group that holds nothing
    /// takes one command of any size.
    pub(crate) fn take(&self, group: GroupId, is_opening: bool, bytes: usize) -> bool {
        let mut books = self.0.lock();
        let Books { groups, shared } = &mut *books;
        let held = groups.entry(group).or_default();
        let mut wanted = *held;
        let part = wanted.part(is_opening);
        let is_first = part.commands == 0;
        *part = part.plus(Amount::command(bytes));
        let (had, takes) = (held.shared(), wanted.shared());
        let all = shared.minus(had).plus(takes);
        let fits = |had: usize, takes: usize, all: usize, max: usize| {
            had == takes || (takes <= max / GROUP_PART && all <= max)
        };
        let has_room = fits(had.bytes, takes.bytes, all.bytes, SHARED.bytes)
            && fits(had.commands, takes.commands, all.commands, SHARED.commands);
        if is_first || has_room {
            *held = wanted;
            *shared = all;
        }
        is_first || has_room
    }

    /// Gives the room of one command back that was taken.
    pub(crate) fn give_back(&self, group: GroupId, is_opening: bool, bytes: usize) {
        let mut books = self.0.lock();
        let Books { groups, shared } = &mut *books;
        let held = groups.entry(group).or_default();
        let had = held.shared();
        let part = held.part(is_opening);
        *part = part.minus(Amount::command(bytes));
        *shared = shared.minus(had).plus(held.shared());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 64 << 10;
    const STUCK: GroupId = GroupId(1);

    /// Commands that a group gets in until there is no room for one more.
    fn fill(shares: &Shares, group: GroupId, is_opening: bool, bytes: usize) -> usize {
        let mut taken = 0;
        while shares.take(group, is_opening, bytes) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_group_without_answers_leaves_half_of_the_bytes_to_the_others() {
        let shares = Shares::default();
        let half = SHARED.bytes / GROUP_PART / BATCH;
        let own = OWN.bytes / BATCH;
        assert_eq!(fill(&shares, STUCK, false, BATCH), half + own);
        assert_eq!(fill(&shares, GroupId(2), false, BATCH), half + own);
        // Nothing is shared any more: each has its own.
        for group in (3..50).map(GroupId) {
            assert_eq!(fill(&shares, group, false, BATCH), own);
        }
        for group in (0..50).map(GroupId) {
            assert_eq!(fill(&shares, group, true, BATCH), own, "openings of {group}");
        }
    }

    #[test]
    fn a_group_without_answers_leaves_half_of_the_places_to_the_others() {
        let shares = Shares::default();
        let half = SHARED.commands / GROUP_PART;
        assert_eq!(fill(&shares, STUCK, false, 1), half + OWN.commands);
        assert_eq!(fill(&shares, STUCK, true, 1), OWN.commands);
        assert_eq!(fill(&shares, GroupId(2), true, 1), half + OWN.commands);
        assert_eq!(fill(&shares, GroupId(3), false, 1), OWN.commands);
        let mut all = 2 * half + 4 * OWN.commands;
        for group in (0..).map(GroupId).take(GROUPS_MAX) {
            all += fill(&shares, group, false, 1) + fill(&shares, group, true, 1);
        }
        assert_eq!(all, COMMANDS_MAX, "each has a place for its answer");
    }

    #[test]
    fn what_comes_back_makes_room_again() {
        let shares = Shares::default();
        for is_opening in [false, true] {
            let first = fill(&shares, STUCK, is_opening, BATCH);
            shares.give_back(STUCK, is_opening, BATCH);
            assert_eq!(fill(&shares, STUCK, is_opening, BATCH), 1);
            (0..first).for_each(|_| shares.give_back(STUCK, is_opening, BATCH));
            let books = shares.0.lock();
            assert_eq!(books.shared, Amount::default());
        }
    }

    #[test]
    fn a_group_that_holds_nothing_takes_one_command_of_any_size() {
        let shares = Shares::default();
        fill(&shares, STUCK, false, BATCH);
        fill(&shares, GroupId(2), false, BATCH);
        let large = SHARED.bytes + 1;
        assert!(shares.take(GroupId(3), false, large));
        assert!(!shares.take(GroupId(3), false, 1));
        assert!(shares.take(GroupId(3), true, 1));
        shares.give_back(GroupId(3), false, large);
        assert!(shares.take(GroupId(3), false, 1));
    }
}
