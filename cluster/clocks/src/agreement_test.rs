//! Which clocks are sound, what a reading is worth, how a course is kept.

use std::collections::BTreeSet;

use dtm_types::NodeId;

use super::agreement::{Agreement, Course, HEARD_US, Peer, Reading};

const LIMIT_US: i64 = 500_000;
const HOUR_US: i64 = 3_600_000_000;
const NONE: [u8; 0] = [];

fn agreement(bases: &[i64]) -> Agreement {
    let clocks: Vec<_> =
        bases.iter().zip(1..).map(|(base, byte)| (NodeId([byte; 16]), *base)).collect();
    Agreement::of(&clocks, clocks.len(), LIMIT_US, &BTreeSet::new())
}

/// Positions of those astray, from 1.
fn astray(bases: &[i64]) -> Vec<u8> {
    agreement(bases).astray.iter().map(|node| node.0[0]).collect()
}

#[test]
fn a_minority_that_is_off_is_astray_and_no_half_is() {
    assert_eq!(astray(&[0]), NONE);
    assert_eq!(astray(&[0, HOUR_US]), NONE, "of two nobody can say");
    assert_eq!(astray(&[0, 100, HOUR_US]), [3]);
    assert_eq!(astray(&[0, 100, -HOUR_US]), [3]);
    assert_eq!(astray(&[0, 100, 200, -HOUR_US]), [4]);
    assert_eq!(astray(&[0, 0, HOUR_US, HOUR_US]), NONE, "an even split");
    assert_eq!(astray(&[0, HOUR_US, -HOUR_US]), [2, 3], "the one in the middle goes on");
    assert_eq!(astray(&[0, HOUR_US, HOUR_US, 0, 0]), [2, 3]);
    assert_eq!(astray(&[0, LIMIT_US, 0]), NONE, "the limit itself is within");
    assert_eq!(astray(&[0, LIMIT_US + 1, 0]), [2]);
}

#[test]
fn who_was_astray_is_sound_again_within_half_of_the_limit() {
    let off = |by_us| [(NodeId([1; 16]), 0), (NodeId([2; 16]), by_us), (NodeId([3; 16]), 0)];
    let mut astray = BTreeSet::new();
    let mut changes = 0;
    for by_us in [499_000, 501_000, 499_000, 501_000, 300_000, 240_000, 499_000] {
        let next = Agreement::of(&off(by_us), 3, LIMIT_US, &astray).astray;
        changes += usize::from(next != astray);
        astray = next;
    }
    assert_eq!((changes, astray.len()), (2, 0), "out once, back once");
}

#[test]
fn firm_is_what_a_majority_of_all_nodes_shows() {
    assert!(agreement(&[0]).is_firm && agreement(&[0, 100, HOUR_US]).is_firm);
    assert!(!agreement(&[0, HOUR_US]).is_firm && !agreement(&[0, HOUR_US, -HOUR_US]).is_firm);
    let two = [(NodeId([1; 16]), 0), (NodeId([2; 16]), 5)];
    assert!(Agreement::of(&two, 3, LIMIT_US, &BTreeSet::new()).is_firm, "the third is lost");
    assert!(!Agreement::of(&two, 4, LIMIT_US, &BTreeSet::new()).is_firm, "half of the nodes");
    assert_eq!(agreement(&[]), Agreement::default());
    let split = agreement(&[0, HOUR_US]);
    assert_eq!((split.offset_us(5), split.offset_us(-7)), (0, -7), "no median is off");
    assert_eq!((split.offset_us(HOUR_US + 9), split.spread_us), (9, HOUR_US));
}

#[test]
fn the_quickest_answer_counts_until_it_is_old_or_the_clock_was_set() {
    let mut peer = Peer::default();
    assert_eq!(peer.base_us(0), None);
    // The peer is 7 s ahead; answers are late by the whole of the round trip.
    let late = |round_trip_us: i64, at_us: i64| {
        Reading::of(7_000_000 + at_us - round_trip_us, at_us - round_trip_us, at_us)
    };
    let within = |base: Option<i64>, error_us: i64| {
        let base = base.expect("heard");
        assert!((base - 7_000_000).abs() <= error_us, "{base} is not true to {error_us}");
    };
    peer.hear(late(400_000, 1_000_000));
    within(peer.base_us(1_000_000), 200_000);
    peer.hear(late(2_000, 2_000_000));
    for second in 3..100 {
        peer.hear(late(300_000, second * 1_000_000));
        let error_us = if second * 1_000_000 <= 2_000_000 + HEARD_US { 1_000 } else { 150_000 };
        within(peer.base_us(second * 1_000_000), error_us);
    }
    let set_us = 100_000_000;
    peer.hear(Reading::of(HOUR_US + set_us, set_us - 10, set_us));
    assert_eq!(peer.base_us(set_us), Some(HOUR_US + 5), "at the first reading");
    assert_eq!(peer.base_us(set_us + HEARD_US), Some(HOUR_US + 5));
    assert_eq!(peer.base_us(set_us + HEARD_US + 1), None, "silent");
}

#[test]
fn no_reading_overflows() {
    for time_us in [i64::MIN, -1, 0, i64::MAX] {
        for (asked_us, answered_us) in [(0, 0), (5, 3), (0, i64::MAX / 8)] {
            let mut peer = Peer::default();
            peer.hear(Reading::of(0, 0, 0));
            peer.hear(Reading::of(time_us, asked_us, answered_us));
            peer.base_us(answered_us);
        }
    }
}

#[test]
fn a_course_gains_one_second_a_second_and_nothing_from_a_time_of_doubt() {
    let first = Course::towards(None, 100, 0);
    assert_eq!(first.base_us, 100, "where it begins there is nothing to compare with");
    let gained = Course::towards(Some(first), HOUR_US, 1_000_000);
    assert_eq!(gained.base_us, 1_000_100);
    let lost = Course::towards(Some(gained), -HOUR_US, 3_000_000);
    assert_eq!(lost.base_us, -999_900);
    let held = lost.held(1_000_000_000);
    assert_eq!(Course::towards(Some(held), HOUR_US, 1_000_000_000).base_us, -999_900);
    assert_eq!(Course::towards(Some(lost), -999_000, 4_000_000).base_us, -999_000, "reached");
}
