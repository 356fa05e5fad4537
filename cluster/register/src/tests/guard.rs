//! Whether a promotion would be hasty.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{founding, seat};
use crate::{HeardOf, LeaseTime, Verdict, primary_lives};

fn judged(answers: &[(u8, Option<u64>, u64)]) -> Verdict {
    let heard = |&(n, ago, up_for): &(u8, Option<u64>, u64)| {
        let ago = ago.map(Duration::from_secs);
        let heard = HeardOf { number: 1, ago, up_for: Duration::from_secs(up_for) };
        (seat(n).acceptor, heard)
    };
    let answers: BTreeMap<_, _> = answers.iter().map(heard).collect();
    primary_lives(&founding(), &answers, LeaseTime::default())
}

fn refused(heard: &[(&str, u64)], silent: &[&str], young: &[(&str, u64)]) -> Verdict {
    let timed = |of: &[(&str, u64)]| {
        of.iter().map(|(place, s)| ((*place).to_owned(), Duration::from_secs(*s))).collect()
    };
    let silent = silent.iter().map(|place| (*place).to_owned()).collect();
    Verdict::Refused { heard: timed(heard), silent, young: timed(young) }
}

#[test]
fn it_is_clear_where_those_who_did_not_hear_leave_no_majority() {
    assert_eq!(judged(&[(1, Some(40), 900), (2, None, 900)]), Verdict::Clear);
    // Only the acceptor beside the primary hears it: it holds no lease.
    assert_eq!(judged(&[(0, Some(1), 900), (1, Some(40), 900), (2, None, 900)]), Verdict::Clear);
}

#[test]
fn it_is_refused_with_who_heard_it_who_is_silent_and_who_is_young() {
    let verdict = judged(&[(1, Some(40), 900), (2, Some(2), 900)]);
    assert_eq!(verdict, refused(&[("third", 2)], &["north"], &[]));
    let verdict = judged(&[(1, Some(40), 900), (2, None, 3)]);
    assert_eq!(verdict, refused(&[], &["north"], &[("third", 3)]));
    assert_eq!(judged(&[(1, None, 900)]), refused(&[], &["north", "third"], &[]));
    let foreign = judged(&[(1, None, 900), (7, None, 900)]);
    assert_eq!(foreign, refused(&[], &["north", "third"], &[]), "no seat");
    // Within the allowance of the clocks, too.
    let verdict = judged(&[(1, Some(10), 900), (2, None, 900)]);
    assert_eq!(verdict, refused(&[("south", 10)], &["north"], &[]));
}
