use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn holders(replicas: &[u64]) -> CopyHolders {
    CopyHolders { replicas: replicas.iter().copied().collect(), wanted: replicas.len() }
}

fn sight(term: u64, committed: u64) -> Sight {
    Sight { term, committed, purged: 0 }
}

/// Sees these matches in a term, and has each replica say that it lacks nothing.
fn whole(copies: &mut Copies, term: u64, matched: &[(u64, u64)]) -> u64 {
    let of: BTreeMap<u64, u64> = matched.iter().copied().collect();
    let holders = holders(&of.keys().copied().collect::<Vec<_>>());
    copies.see(&sight(term, 1_000), &holders, |replica| of.get(&replica).copied());
    for question in copies.to_ask(at(0)) {
        copies.told(question, None, at(0));
    }
    copies.through(1_000, &holders)
}

// holds: ING-1
#[test]
fn a_majority_counts_and_only_of_what_is_committed() {
    let mut copies = Copies::default();
    assert_eq!(whole(&mut copies, 1, &[(4, 90), (5, 50), (6, 70)]), 70);
    assert_eq!(copies.through(60, &holders(&[4, 5, 6])), 60);
    assert_eq!(whole(&mut Copies::default(), 1, &[(4, 90), (5, 50)]), 50, "of two it is both");
    assert_eq!(whole(&mut Copies::default(), 1, &[(4, 90)]), 90);
    // One of two that are to be there is no majority.
    let mut one = Copies::default();
    whole(&mut one, 1, &[(4, 90)]);
    let of_two = CopyHolders { wanted: 2, ..holders(&[4]) };
    assert_eq!(one.through(1_000, &of_two), 0);
}

// holds: ING-1
#[test]
fn a_new_leader_knows_nothing_until_it_is_told() {
    let mut copies = Copies::default();
    let both = holders(&[4, 5]);
    assert_eq!(whole(&mut copies, 1, &[(4, 90), (5, 90)]), 90);
    let asked = copies.to_ask(at(9));
    assert_eq!(asked.len(), 2, "asked again after a while");
    copies.see(&sight(2, 100), &both, |replica| (replica == 4).then_some(95));
    assert_eq!(copies.through(100, &both), 0, "nobody said anything in this term");
    // What was asked in the earlier term does not count in this one.
    asked.into_iter().for_each(|question| copies.told(question, None, at(9)));
    assert_eq!(copies.through(100, &both), 0);
    let asked = copies.to_ask(at(9));
    assert_eq!(asked.iter().map(|question| question.replica).collect::<Vec<_>>(), [4]);
    copies.told(asked[0], None, at(9));
    assert_eq!(copies.through(100, &both), 0, "one of two");
    assert_eq!(whole(&mut copies, 2, &[(4, 95), (5, 92)]), 92);
}

// holds: ING-1
#[test]
fn a_snapshot_counts_once_its_bundles_are_there() {
    let mut copies = Copies::default();
    let one = holders(&[4]);
    assert_eq!(whole(&mut copies, 1, &[(4, 50)]), 50);
    // From the log: nothing new to ask.
    copies.see(&Sight { purged: 50, ..sight(1, 500) }, &one, |_| Some(60));
    assert_eq!(copies.through(500, &one), 60);
    let before = copies.to_ask(at(60));
    copies.see(&Sight { purged: 300, ..sight(1, 500) }, &one, |_| Some(400));
    assert_eq!(copies.through(500, &one), 0, "entries 61 to 300 came by a snapshot");
    before.into_iter().for_each(|question| copies.told(question, None, at(60)));
    assert_eq!(copies.through(500, &one), 0, "it was asked before that");
    for (n, (lacking, through)) in (61..).zip([(Some(61), 60), (Some(250), 249), (None, 400)]) {
        let question = copies.to_ask(at(n))[0];
        copies.told(question, lacking, at(n));
        assert_eq!(copies.through(500, &one), through);
    }
    assert!(copies.to_ask(at(64)).is_empty(), "what lacks nothing is asked seldom");
}

// holds: ING-1
#[test]
fn replicas_that_come_make_another_majority() {
    let mut copies = Copies::default();
    assert_eq!(whole(&mut copies, 1, &[(4, 90), (5, 90), (6, 20)]), 90);
    // 4 is replaced by 7, which holds nothing yet: two of three are 5 and 6.
    assert_eq!(whole(&mut copies, 1, &[(5, 90), (6, 20), (7, 0)]), 20);
    assert_eq!(whole(&mut copies, 1, &[(5, 90), (6, 20), (7, 90)]), 90);
}
