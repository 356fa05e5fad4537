//! The right to acknowledge, by given times.

use std::time::Duration;

use dtm_types::NodeId;

use super::{act, founding, seat};
use crate::{Cause, Lease, LeaseTime, Since};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lease() -> Lease {
    Lease::new("north", &founding(), LeaseTime::default(), Since::Resumed)
}

#[test]
fn a_majority_gives_the_right_from_the_asking_of_its_last() {
    let mut lease = lease();
    let (early, _) = lease.ask(at(1_000));
    let (late, _) = lease.ask(at(3_000));
    lease.confirmed(seat(0).acceptor, late);
    assert!(!lease.holds(at(3_001)), "one of three");
    lease.confirmed(seat(1).acceptor, early);
    assert_eq!(lease.valid_until(), Some(at(11_000)));
    assert!(lease.holds(at(10_999)) && !lease.holds(at(11_000)));
    // An older answer that comes late takes nothing back.
    lease.confirmed(seat(0).acceptor, early);
    assert_eq!(lease.valid_until(), Some(at(11_000)));
    lease.confirmed(seat(2).acceptor, late);
    assert_eq!(lease.valid_until(), Some(at(13_000)));
    lease.confirmed(seat(7).acceptor, lease.ask(at(9_000)).0);
    assert_eq!(lease.valid_until(), Some(at(13_000)), "no seat");
}

#[test]
fn the_standby_never_has_it() {
    let mut lease = Lease::new("south", &founding(), LeaseTime::default(), Since::Resumed);
    let (asked, _) = lease.ask(at(0));
    for n in 0..3 {
        lease.confirmed(seat(n).acceptor, asked);
    }
    assert!(!lease.holds(at(1)));
}

#[test]
fn who_takes_over_waits_for_the_lease_and_the_clocks() {
    let wait = LeaseTime::default().promotion_wait();
    assert_eq!(wait, at(10_700));
    let intent = founding().intended(NodeId([7; 16]), act("fire"));
    let next = intent.promoted(Cause::Promoted, act("fire"));
    // The wait goes on over a start of the process, and is not made shorter by one.
    for (waited, begins) in [(0, 15_700), (4_000, 11_700), (60_000, 5_000)] {
        let since = Since::Taken { known_at: at(5_000), waited: at(waited) };
        let mut lease = Lease::new("south", &next, LeaseTime::default(), since);
        for second in 5..17 {
            let (asked, _) = lease.ask(at(second * 1_000));
            lease.confirmed(seat(1).acceptor, asked);
            lease.confirmed(seat(2).acceptor, asked);
        }
        assert_eq!(lease.not_before(), at(begins));
        assert!(!lease.holds(at(begins - 1)) && lease.holds(at(begins)), "{waited}");
    }
}

/// The wait outlasts the lease for all rates of clocks within the bound.
#[test]
fn the_allowance_covers_clocks_that_are_one_part_in_101_wrong() {
    for lease in [1, 10, 60, 3_600].map(Duration::from_secs) {
        let bound = 1.0 / 101.0;
        let longest = lease.as_secs_f64() / (1.0 - bound);
        let shortest = LeaseTime { lease }.promotion_wait().as_secs_f64() / (1.0 + bound);
        assert!(shortest > longest, "{lease:?}: {shortest} {longest}");
    }
}

#[test]
fn it_goes_on_over_a_replaced_acceptor_and_ends_with_the_incarnation() {
    let mut lease = lease();
    let (asked, _) = lease.ask(at(1_000));
    lease.confirmed(seat(0).acceptor, asked);
    lease.confirmed(seat(1).acceptor, asked);
    let replaced = founding().replaced(seat(2).acceptor, seat(5), act("disk")).unwrap();
    lease.follow(&replaced, Since::Resumed);
    assert_eq!(lease.valid_until(), Some(at(11_000)));
    // What was asked about the decision before counts no more.
    lease.confirmed(seat(0).acceptor, asked);
    let (asked, _) = lease.ask(at(4_000));
    lease.confirmed(seat(5).acceptor, asked);
    lease.confirmed(seat(2).acceptor, asked);
    assert_eq!(lease.valid_until(), Some(at(11_000)), "acceptor 2 has no seat");
    lease.confirmed(seat(0).acceptor, asked);
    assert_eq!(lease.valid_until(), Some(at(14_000)));
    // What is only intended ends nothing.
    let intent = replaced.intended(NodeId([7; 16]), act("fire"));
    lease.follow(&intent, Since::Resumed);
    assert_eq!(lease.valid_until(), Some(at(14_000)));
    let lost = intent.promoted(Cause::Promoted, act("fire"));
    lease.follow(&lost, Since::Resumed);
    assert_eq!(lease.valid_until(), None);
    lease.follow(&founding(), Since::Resumed);
    assert_eq!(lease.decision(), &lost, "it does not go back");
}
