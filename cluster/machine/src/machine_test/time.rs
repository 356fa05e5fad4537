//! Group time that went where no clock should have taken it.

use dtm_types::DAY_US;

use super::*;

impl Group {
    /// One command in a bundle stamped so many days after the others.
    fn on_day(&mut self, day: i64, op: Op) -> Outcome {
        self.index += 1;
        let mut builder = bundle::Builder::new(TIME_US + day * DAY_US, &[7; 16], 1_024);
        builder.push(&command(op).encode_to_vec());
        let entry = Committed { index: self.index, bundle: Some(builder.finish()) };
        let mut batch = StateBatch::default();
        let outcomes = self.machine.apply(&self.store, &[entry], &mut batch).expect("total");
        self.store.write(&batch).expect("memory");
        outcomes[0][0].clone()
    }

    fn send(&mut self, day: i64, stream: &str, first: u64, ids: &[u8]) -> u32 {
        let fingerprints = ids.iter().flat_map(|&id| [id; 16]).collect();
        let session =
            reads::cursor(&self.store, &StreamKey::parse("tinh-01", stream).expect("a name"));
        let session = session.expect("row").expect("opened").session;
        let op = batch_with(stream, session, first, ids, fingerprints, Vec::new());
        appended(self.on_day(day, op)).duplicates
    }
}

// holds: ING-2
// fault: F20
#[test]
fn a_message_is_known_again_after_group_time_went_over_months() {
    let (mut group, _) = ready();
    group.open("t");
    assert_eq!(group.send(0, "s", 1, &[1, 2]), 0);
    // A stamp 70 days ahead; no record with it. What follows is stamped as it should be.
    group.on_day(70, open("u"));
    assert_eq!(group.send(1, "t", 1, &[1, 3]), 1, "1 is held since before the jump");
    assert_eq!(group.send(1, "t", 3, &[2, 3]), 2, "2 since before, 3 since after it");
    let head = reads::head(&group.store).expect("row");
    let month = |day: i64| Month::of_micros(TIME_US + day * DAY_US).0;
    assert_eq!((head.fingerprint_month, head.fingerprint_month_before), (month(70), month(0)));
}

#[test]
fn a_message_is_forgotten_with_the_second_month_after_its_own() {
    let (mut group, _) = ready();
    assert_eq!(group.send(0, "s", 1, &[1]), 0);
    assert_eq!(group.send(31, "s", 2, &[2, 1]), 1, "the month after");
    assert_eq!(group.send(62, "s", 4, &[2, 1]), 1, "2 is of the month before, 1 is forgotten");
}

#[test]
fn the_quarantine_of_a_source_has_its_room_anew_each_month() {
    let (mut group, _) = ready();
    let refused = |first| batch_with("s", 1, first, &[1], Vec::new(), vec![1]);
    for first in 1..=3 {
        let Some(Answer::Appended(told)) = group.on_day(0, refused(first)).result else { panic!() };
        assert_eq!(told.quarantine_records, first);
    }
    assert_eq!(group.open("t").quarantine_records_left, 7);
    let told = appended(group.on_day(40, refused(4)));
    assert_eq!(told.quarantine_records, 1, "another month");
    let Some(Answer::SessionOpened(opened)) = group.on_day(40, open("t")).result else { panic!() };
    assert_eq!(opened.quarantine_records_left, 9);
}
