//! What is counted since local midnight.

use dtm_types::command::RaiseVersion;
use dtm_types::format::GroupHead;
use dtm_types::{DAY_US, LOCAL_OFFSET_US, local_day};

use super::*;

impl Group {
    /// One command in a bundle stamped at this moment.
    fn at(&mut self, time_us: i64, op: Op) -> Outcome {
        self.index += 1;
        let mut builder = bundle::Builder::new(time_us, &[7; 16], 1_024);
        builder.push(&command(op).encode_to_vec());
        let entry = Committed { index: self.index, bundle: Some(builder.finish()) };
        let mut batch = StateBatch::default();
        let outcomes = self.machine.apply(&self.store, &[entry], &mut batch).expect("total");
        self.store.write(&batch).expect("memory");
        outcomes[0][0].clone()
    }

    fn head(&self) -> GroupHead {
        reads::head(&self.store).expect("row")
    }

    /// Day, records, refused, since when.
    fn day(&self) -> (u32, u64, u64, i64) {
        let head = self.head();
        (head.day, head.day_records, head.day_refused, head.day_from_us)
    }
}

fn raise() -> Op {
    Op::RaiseVersion(RaiseVersion { version: 2 })
}

/// The last moment of the day of these tests.
fn evening_us() -> i64 {
    (i64::from(local_day(TIME_US)) + 1) * DAY_US - LOCAL_OFFSET_US - 1
}

// holds: RAFT-1
#[test]
fn a_day_ends_at_local_midnight_and_lasts_over_a_restart() {
    let (mut group, _) = ready();
    group.one(raise());
    let today = local_day(TIME_US);
    assert_eq!(group.day(), (today, 0, 0, 0), "it held nothing before: the whole day counts");
    let refused = |first| batch_with("s", 1, first, &[1, 2, 3], Vec::new(), vec![0b010]);
    appended(group.at(TIME_US, refused(1)));
    appended(group.at(evening_us(), refused(4)));
    assert!(appended(group.at(evening_us(), refused(4))).already, "what is held is not counted");
    assert_eq!(group.day(), (today, 4, 2, 0));

    group.machine = Machine::load(INGEST, &group.store).expect("rows");
    appended(group.at(evening_us(), batch("s", 1, 7, &[7])));
    assert_eq!(group.day(), (today, 5, 2, 0), "it goes on where it was");

    appended(group.at(evening_us() + 1, batch("s", 1, 8, &[8, 9])));
    assert_eq!(group.day(), (today + 1, 2, 0, 0));
    // A stamp of yesterday: group time does not go back, and neither does the day.
    appended(group.at(TIME_US, batch("s", 1, 10, &[1])));
    assert_eq!(group.day(), (today + 1, 3, 0, 0));
    let head = group.head();
    assert_eq!((head.records, head.refused), (8, 2), "the sums go on");
}

#[test]
fn doubles_are_no_records_of_the_day() {
    let (mut group, _) = ready();
    group.one(raise());
    let ids: Vec<u8> = [[1; 16], [1; 16], [2; 16]].concat();
    assert_eq!(appended(group.one(batch_with("s", 1, 1, &[1, 2, 3], ids, vec![]))).duplicates, 1);
    assert_eq!(group.day(), (local_day(TIME_US), 2, 0, 0));
}

#[test]
fn a_group_that_rises_within_a_day_says_since_when_it_counts() {
    let (mut group, _) = ready();
    appended(group.one(batch("s", 1, 1, &[1, 2, 3])));
    assert_eq!(group.day(), (0, 0, 0, 0), "version 1 has no day");
    let today = local_day(TIME_US);
    group.at(TIME_US + 60, raise());
    assert_eq!(group.day(), (today, 0, 0, TIME_US + 60));
    appended(group.at(TIME_US + 90, batch("s", 1, 4, &[4])));
    assert_eq!(group.day(), (today, 1, 0, TIME_US + 60));
    appended(group.at(evening_us() + DAY_US, batch("s", 1, 5, &[5, 6])));
    assert_eq!(group.day(), (today + 1, 2, 0, 0), "the next day is whole");
}
