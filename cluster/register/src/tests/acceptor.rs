//! An acceptor, its file and its bytes.

use std::time::Duration;

use dtm_types::{Incarnation, NodeId};

use super::{act, founding, seat};
use crate::entry::Entry;
use crate::wire::State;
use crate::{
    Accepted, Acceptor, AcceptorId, Answer, Ballot, Cause, Claim, Decision, Error, FileKeep,
    HeardOf, Keep, Malformed, MemoryKeep, ProposerId, Question, Says,
};

const START: Duration = Duration::from_secs(100);

fn ballot(counter: u64) -> Ballot {
    Ballot { counter, proposer: ProposerId([9; 16]) }
}

fn opened(keep: &MemoryKeep) -> Acceptor<MemoryKeep> {
    Acceptor::open(keep.clone(), AcceptorId([1; 16]), START).unwrap()
}

fn claim(decision: &Decision) -> Claim {
    Claim {
        number: decision.number,
        incarnation: decision.incarnation,
        site: decision.primary.clone(),
    }
}

#[test]
fn a_promise_and_what_was_accepted_outlive_a_crash() {
    let keep = MemoryKeep::new();
    let mut acceptor = opened(&keep);
    let entry = Entry::settled(founding());
    acceptor.prepare(ballot(2)).unwrap();
    keep.crash();
    let mut acceptor = opened(&keep);
    let refused = acceptor.accept(ballot(1), &entry).unwrap();
    assert_eq!(refused, Says::Higher { asked: ballot(1), promised: ballot(2) });
    acceptor.accept(ballot(2), &entry).unwrap();
    keep.crash();
    let mut acceptor = opened(&keep);
    let accepted = Some(Box::new(Accepted { ballot: ballot(2), entry }));
    let says = acceptor.prepare(ballot(3)).unwrap();
    assert_eq!(says, Says::Promised { ballot: ballot(3), accepted });
    assert!(matches!(acceptor.prepare(ballot(2)).unwrap(), Says::Higher { .. }));
}

#[test]
fn a_lost_file_is_another_acceptor_and_a_damaged_one_is_none() {
    let keep = MemoryKeep::new();
    opened(&keep).accept(ballot(1), &Entry::settled(founding())).unwrap();
    let bytes = keep.load().unwrap().unwrap();
    for at in 0..bytes.len() {
        keep.damage(|bytes| bytes[at] ^= 0x10);
        let error = Acceptor::open(keep.clone(), AcceptorId([2; 16]), START).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
        keep.damage(|bytes| bytes[at] ^= 0x10);
    }
    for len in 0..bytes.len() {
        keep.damage(|now| *now = bytes[..len].to_vec());
        let error = Acceptor::open(keep.clone(), AcceptorId([2; 16]), START).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{len} bytes: {error}");
    }
    keep.damage(|now| *now = vec![1, 0, 0, 0, 0]);
    let empty = Acceptor::open(keep.clone(), AcceptorId([2; 16]), START);
    assert!(empty.is_err(), "an empty body has a fine checksum and no id");
    keep.wipe();
    let new = Acceptor::open(keep.clone(), AcceptorId([2; 16]), START).unwrap();
    assert_eq!((new.id(), new.accepted()), (AcceptorId([2; 16]), None));
}

#[test]
fn after_a_failed_write_it_answers_nothing_until_it_is_loaded_again() {
    for lands in [false, true] {
        let keep = MemoryKeep::new();
        let mut acceptor = opened(&keep);
        let entry = Entry::settled(founding());
        keep.fail_once(lands);
        assert!(matches!(acceptor.accept(ballot(1), &entry), Err(Error::Io { .. })));
        assert!(matches!(acceptor.prepare(ballot(2)), Err(Error::Stopped { .. })));
        assert!(matches!(acceptor.confirm(&claim(&founding()), START), Err(Error::Stopped { .. })));
        assert_eq!(opened(&keep).accepted().is_some(), lands);
    }
}

#[test]
fn a_promise_does_not_end_confirmations_and_an_acceptance_does() {
    let mut acceptor = opened(&MemoryKeep::new());
    let first = founding();
    let at = |seconds| START + Duration::from_secs(seconds);
    assert_eq!(acceptor.confirm(&claim(&first), START).unwrap(), Says::Changed { accepted: None });
    acceptor.accept(ballot(1), &Entry::settled(first.clone())).unwrap();
    acceptor.prepare(ballot(5)).unwrap();
    let says = acceptor.confirm(&claim(&first), at(3)).unwrap();
    assert_eq!(says, Says::Confirmed { number: 1 });
    let of_standby = Claim { site: "south".into(), ..claim(&first) };
    assert!(matches!(acceptor.confirm(&of_standby, at(4)).unwrap(), Says::Changed { .. }));
    let heard = acceptor.heard(at(5)).unwrap();
    let two = Some(Duration::from_secs(2));
    assert_eq!(heard, HeardOf { number: 1, ago: two, up_for: Duration::from_secs(5) });
    let next = promoted(&first, 7);
    acceptor.accept(ballot(5), &Entry::after(&first, next.clone())).unwrap();
    let says = acceptor.confirm(&claim(&first), at(6)).unwrap();
    assert_eq!(says, Says::Changed { accepted: Some(Box::new(next)) });
    // Another number of the same primary is another decision.
    let replaced = first.replaced(seat(2).acceptor, seat(5), act("disk")).unwrap();
    acceptor.accept(ballot(6), &Entry::after(&first, replaced)).unwrap();
    assert!(matches!(acceptor.confirm(&claim(&first), at(7)).unwrap(), Says::Changed { .. }));
}

#[test]
fn two_values_under_one_ballot_are_refused() {
    let mut acceptor = opened(&MemoryKeep::new());
    let first = Entry::settled(founding());
    let other = Entry::settled(Decision { act: act("another"), ..founding() });
    for _ in 0..2 {
        let says = acceptor.accept(ballot(1), &first).unwrap();
        assert_eq!(says, Says::Accepted { ballot: ballot(1) });
    }
    assert!(matches!(acceptor.accept(ballot(1), &other), Err(Error::BallotReused { .. })));
    assert_eq!(acceptor.accepted().unwrap().entry, first);
}

#[test]
fn a_file_is_replaced_whole_and_a_missing_folder_is_no_new_acceptor() {
    let folder = std::env::temp_dir().join(format!("dtm-register-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut keep = FileKeep::new(folder.join("register"));
    assert_eq!(keep.load().unwrap(), None);
    keep.save(b"one").unwrap();
    // A crash between writing and renaming leaves this behind.
    std::fs::write(folder.join("register.new"), b"tor").unwrap();
    assert_eq!(keep.load().unwrap().unwrap(), "one");
    keep.save(b"two").unwrap();
    assert_eq!(keep.load().unwrap().unwrap(), "two");
    assert!(!folder.join("register.new").exists());
    let mut acceptor = {
        std::fs::remove_file(folder.join("register")).unwrap();
        Acceptor::open(keep.clone(), AcceptorId([3; 16]), START).unwrap()
    };
    acceptor.accept(ballot(1), &Entry::settled(founding())).unwrap();
    let again = Acceptor::open(keep.clone(), AcceptorId([4; 16]), START).unwrap();
    assert_eq!((again.id(), again.accepted()), (AcceptorId([3; 16]), acceptor.accepted()));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(keep.load().is_err());
    assert!(Acceptor::open(keep, AcceptorId([5; 16]), START).is_err());
}

/// Every field set.
fn everything() -> (Decision, Accepted) {
    let replaced = founding().replaced(seat(2).acceptor, seat(5), act("đĩa hỏng")).unwrap();
    let decision = Decision { coordinator: Some(NodeId([0xd5; 16])), ..replaced };
    let entry = Entry::after(&founding(), decision.clone());
    (decision, Accepted { ballot: ballot(300), entry })
}

#[test]
fn stored_bytes_stay_what_they_are() {
    let (decision, accepted) = everything();
    let state = State {
        acceptor: AcceptorId([0xac; 16]),
        promised: Some(ballot(301)),
        accepted: Some(accepted),
    };
    let golden = include_str!("golden_v1.txt");
    let mut lines = golden.lines().map(|line| line.split_once(' ').unwrap());
    let later = Decision { cause: Cause::Intended, intends: Some(NodeId([0xe5; 16])), ..decision };
    let later = Decision { detached_layout: 300, ..later };
    let decision = everything().0;
    let stored = [
        ("state", state.encode()),
        ("decision", decision.encode_stored()),
        ("intended", later.encode_stored()),
    ];
    for (name, bytes) in stored {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(lines.next(), Some((name, hex.as_str())));
    }
    let bytes = |name: &str| -> Vec<u8> {
        let line = golden.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let pairs = (0..line.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
    };
    assert_eq!(State::decode(&bytes("state")).unwrap(), state);
    assert_eq!(Decision::decode_stored(&bytes("decision")).unwrap(), decision);
    assert_eq!(Decision::decode_stored(&bytes("intended")).unwrap(), later);
}

#[test]
fn messages_come_out_as_they_went_in() {
    let (decision, accepted) = everything();
    let questions = [
        Question::Prepare { ballot: ballot(1) },
        Question::Accept { ballot: ballot(2), entry: accepted.entry.clone() },
        Question::Confirm(claim(&decision)),
        Question::Heard,
    ];
    for question in questions {
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
    }
    let heard = HeardOf { number: 3, ago: Some(Duration::ZERO), up_for: START };
    let says = [
        Says::Promised { ballot: ballot(1), accepted: None },
        Says::Promised { ballot: ballot(1), accepted: Some(Box::new(accepted)) },
        Says::Accepted { ballot: ballot(2) },
        Says::Higher { asked: ballot(3), promised: ballot(4) },
        Says::Confirmed { number: 7 },
        Says::Changed { accepted: None },
        Says::Changed { accepted: Some(Box::new(decision)) },
        Says::Heard(heard),
        Says::Heard(HeardOf::default()),
    ];
    for says in says {
        let answer = Answer { acceptor: AcceptorId([8; 16]), says };
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }
    assert_eq!(Question::decode(b""), Err(Malformed::Field("asks")));
    assert!(Answer::decode(b"\xff").is_err());
    let greedy = Question::Prepare { ballot: ballot(u64::MAX) };
    assert_eq!(Question::decode(&greedy.encode()), Err(Malformed::Field("counter")));
}

/// By the intent of a node, and what was intended.
fn promoted(known: &Decision, node: u8) -> Decision {
    known.intended(NodeId([node; 16]), act("fire")).promoted(Cause::Promoted, act("fire"))
}

#[test]
fn what_cannot_stand_or_follow_is_refused() {
    let first = founding();
    let intent = first.intended(NodeId([7; 16]), act("fire"));
    assert_eq!(intent.check_after(&first), Ok(()));
    let fine = intent.promoted(Cause::Promoted, act("fire"));
    assert_eq!(fine.check_after(&intent), Ok(()));
    let wrong = [
        Decision { number: 4, ..fine.clone() },
        Decision { incarnation: first.incarnation, ..fine.clone() },
        Decision { standby: fine.primary.clone(), ..fine.clone() },
        Decision { primary: String::new(), ..fine.clone() },
        Decision { seats: vec![seat(0), seat(1), seat(5)], ..fine.clone() },
        Decision { seats: vec![seat(0), seat(0), seat(1)], ..fine.clone() },
        Decision { cause: Cause::AcceptorReplaced, ..fine.clone() },
        Decision { cause: Cause::Founded, ..fine.clone() },
        Decision { coordinator: Some(NodeId([8; 16])), ..fine.clone() },
        Decision { intends: fine.coordinator, ..fine.clone() },
    ];
    for wrong in wrong {
        assert!(wrong.check_after(&intent).is_err(), "{wrong:?}");
    }
    let at_once = Decision { number: 2, ..fine };
    assert!(at_once.check_after(&first).is_err(), "without an intent");
    let replaced = first.replaced(seat(2).acceptor, seat(5), act("disk")).unwrap();
    assert_eq!(replaced.check_after(&first), Ok(()));
    let two = Decision { seats: vec![seat(0), seat(4), seat(5)], ..replaced.clone() };
    let moved = crate::Seat { acceptor: seat(2).acceptor, ..seat(5) };
    let moved = Decision { seats: vec![seat(0), seat(1), moved], ..replaced.clone() };
    let more = Decision { seats: vec![seat(0), seat(1), seat(2), seat(5)], ..replaced.clone() };
    let detaching = Decision { detached_layout: 3, ..replaced };
    for wrong in [two, moved, more, detaching] {
        assert!(wrong.check_after(&first).is_err(), "{wrong:?}");
    }
    assert!(first.replaced(seat(7).acceptor, seat(5), act("")).is_none());
}

// The node that was to draw up the plan is lost: the same site begins the incarnation after that one.
#[test]
fn a_life_that_never_began_is_followed_by_another_of_the_same_site() {
    let taken = promoted(&founding(), 1);
    let intent = taken.intended(NodeId([4; 16]), act("node 1 is gone"));
    assert_eq!(intent.coordinator, taken.coordinator, "still of the life in force");
    let anew = intent.begun_anew(act("node 1 is gone"));
    assert_eq!(anew.check_after(&intent), Ok(()));
    assert_eq!((&anew.primary, &anew.standby), (&taken.primary, &taken.standby));
    assert_eq!((anew.number, anew.incarnation), (5, Incarnation(3)));
    assert_eq!(anew.coordinator, Some(NodeId([4; 16])));
    assert_eq!(anew.seats, taken.seats);
}

#[test]
fn an_intent_that_was_withdrawn_leads_to_nothing() {
    let intent = founding().intended(NodeId([7; 16]), act("fire"));
    let late = intent.promoted(Cause::Promoted, act("fire"));
    let withdrawn = intent.withdrawn(act("nobody carried it out"));
    assert_eq!(withdrawn.check_after(&intent), Ok(()));
    assert_eq!((withdrawn.number, withdrawn.incarnation), (late.number, Incarnation(1)));
    assert!(late.check_after(&withdrawn).is_err());
    let next = Decision { number: 4, ..late };
    assert!(next.check_after(&withdrawn).is_err(), "the intent is over");
    assert!(withdrawn.withdrawn(act("again")).check_after(&withdrawn).is_err());
    // Somebody else's intent takes the place of one that was left.
    let other = intent.intended(NodeId([9; 16]), act("again"));
    assert_eq!(other.check_after(&intent), Ok(()));
    let moved = Decision { primary: "south".into(), standby: "north".into(), ..intent };
    assert!(moved.check_after(&founding()).is_err(), "an intent changes nothing");
}

#[test]
fn a_standby_that_was_detached_is_not_promoted_until_it_is_attached() {
    let first = founding();
    let detached = first.detached(4, act("it burned"));
    assert_eq!(detached.check_after(&first), Ok(()));
    assert!(!detached.is_attached());
    let (intent, again) =
        (detached.intended(NodeId([7; 16]), act("x")), detached.detached(5, act("x")));
    for wrong in [intent, again, first.attached(act("x")), first.detached(0, act("x"))] {
        let before = if wrong.number == 2 { &first } else { &detached };
        assert!(wrong.check_after(before).is_err(), "{wrong:?}");
    }
    // One that was intended before it is lost.
    let intent = first.intended(NodeId([7; 16]), act("x"));
    let detached_then = intent.detached(4, act("it burned"));
    assert_eq!(detached_then.check_after(&intent), Ok(()));
    let late = Decision { number: 4, ..intent.promoted(Cause::Promoted, act("x")) };
    assert!(late.check_after(&detached_then).is_err());
    let replaced = detached.replaced(seat(2).acceptor, seat(5), act("disk")).unwrap();
    assert_eq!(replaced.check_after(&detached), Ok(()));
    assert!(!replaced.is_attached());
    let attached = replaced.attached(act("it is mended"));
    assert_eq!(attached.check_after(&replaced), Ok(()));
    let intent = attached.intended(NodeId([7; 16]), act("x"));
    assert_eq!(intent.check_after(&attached), Ok(()));
}
