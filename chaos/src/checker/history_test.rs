//! Each property is shown to be caught when it breaks, and nothing is said when all is well.

use super::*;

fn digest(n: u64) -> Digest {
    let mut out = [7; 16];
    out[..8].copy_from_slice(&n.to_be_bytes());
    out
}

/// Ten records sent, eight acked, the third refused.
fn history() -> (Checker, StreamNo, usize) {
    let mut checker = Checker::new();
    let stream = checker.stream("a", "s");
    for n in 1..=10 {
        checker.sent(stream, n, digest(n)).unwrap();
    }
    checker.acked(stream, 8).unwrap();
    checker.excused(stream, 3).unwrap();
    let node = checker.node("n1");
    (checker, stream, node)
}

fn read(checker: &mut Checker, node: usize, stream: StreamNo, sequences: &[u64]) -> NodeVerdict {
    sequences.iter().for_each(|&n| checker.observed(node, stream, n, digest(n)));
    checker.verdict().nodes[0].clone()
}

#[test]
fn a_good_history_holds() {
    let (mut checker, stream, node) = history();
    let found = read(&mut checker, node, stream, &[1, 2, 4, 5, 6, 7, 8, 9]);
    assert!(found.holds(), "{found:?}");
    let verdict = checker.verdict();
    assert!(verdict.holds());
    assert_eq!((verdict.sent, verdict.acked, verdict.excused), (10, 8, 1));
}

// holds: ING-1
#[test]
fn lost_records_are_listed_as_ranges() {
    let (mut checker, stream, node) = history();
    let found = read(&mut checker, node, stream, &[1, 5, 8]);
    let range = |from, to| Range { stream: "a/s".into(), from, to };
    assert_eq!(found.lost.listed, [range(2, 2), range(4, 4), range(6, 7)]);
    assert_eq!(found.lost.count, 4);
    assert!(!found.holds());
}

#[test]
fn a_node_that_gives_nothing_lost_everything() {
    let (checker, _, _) = history();
    assert_eq!(checker.verdict().nodes[0].lost.count, 7);
    assert!(!Checker::new().verdict().holds(), "nothing read proves nothing");
}

// holds: ING-2
#[test]
fn doubled_records_are_listed() {
    let (mut checker, stream, node) = history();
    let found = read(&mut checker, node, stream, &[1, 2, 4, 5, 5, 6, 7, 8, 2]);
    assert_eq!(found.doubled.count, 2);
    assert_eq!(found.doubled.listed[1].sequence, 2);
    assert_eq!(found.out_of_order.count, 0);
}

// holds: ING-3
#[test]
fn swapped_records_and_holes_are_listed() {
    let (mut checker, stream, node) = history();
    let found = read(&mut checker, node, stream, &[1, 4, 2, 5, 6, 7, 8, 10]);
    let at: Vec<_> = found.out_of_order.listed.iter().map(|p| p.sequence).collect();
    assert_eq!(at, [2, 9], "2 behind 4; 10 without 9, which nobody acked");
    assert_eq!(found.lost.count, 0);
}

// holds: ING-4
#[test]
fn invented_records_are_listed() {
    let (mut checker, stream, node) = history();
    let other = checker.stream("b", "never");
    checker.observed(node, stream, 1, digest(999));
    checker.observed(node, stream, 3, digest(3));
    checker.observed(node, stream, 11, digest(11));
    checker.observed(node, other, 1, digest(1));
    let found = read(&mut checker, node, stream, &[2, 4, 5, 6, 7, 8]);
    let at: Vec<_> = found.invented.listed.iter().map(|p| p.sequence).collect();
    assert_eq!(at, [1, 3, 11, 1], "other content, refused, beyond, unknown stream");
    assert_eq!((found.lost.count, found.doubled.count), (0, 0));
}

#[test]
fn a_harness_that_contradicts_itself_is_told() {
    let (mut checker, stream, _) = history();
    assert!(checker.sent(stream, 4, digest(4)).is_ok(), "a resend");
    assert!(matches!(checker.sent(stream, 4, digest(5)), Err(Misuse::Resent { .. })));
    assert!(matches!(checker.sent(stream, 12, digest(1)), Err(Misuse::Hole { next: 11, .. })));
    assert!(matches!(checker.sent(stream, 0, digest(1)), Err(Misuse::Hole { .. })));
    assert!(matches!(checker.acked(stream, 11), Err(Misuse::NeverSent { .. })));
}

#[test]
fn long_lists_are_counted() {
    let mut checker = Checker::new();
    let stream = checker.stream("a", "s");
    let node = checker.node("n1");
    for n in 1..=5000 {
        checker.observed(node, stream, n, digest(n));
    }
    let found = &checker.verdict().nodes[0];
    assert_eq!(found.invented.count, 5000);
    assert_eq!(found.invented.listed.len(), Finding::<Place>::LISTED_MAX);
}
