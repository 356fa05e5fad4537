//! A proposer and its acceptors, without a network.

use std::collections::BTreeMap;
use std::time::Duration;

use dtm_types::NodeId;

use super::random::Random;
use super::{act, founding, seat};
use crate::{Acceptor, Cause, Decision, MemoryKeep, Outcome, Proposer, ProposerId, Send, Step};

/// Acceptors by number; who is down does not answer.
struct Table {
    acceptors: BTreeMap<u8, Acceptor<MemoryKeep>>,
    down: Vec<u8>,
    proposers: u8,
}

impl Table {
    fn new(count: u8) -> Self {
        let open =
            |n| (n, Acceptor::open(MemoryKeep::new(), seat(n).acceptor, Duration::ZERO).unwrap());
        Self { acceptors: (0..count).map(open).collect(), down: Vec::new(), proposers: 0 }
    }

    fn founded(count: u8) -> (Self, Decision) {
        let mut table = Self::new(count);
        let proposer = Proposer::found(table.id(), founding()).unwrap();
        assert_eq!(table.run(proposer), Outcome::Chosen(founding()));
        (table, founding())
    }

    fn id(&mut self) -> ProposerId {
        self.proposers += 1;
        ProposerId([self.proposers; 16])
    }

    /// Until it is done, or nothing is on its way any more.
    fn run(&mut self, mut proposer: Proposer) -> Outcome {
        let mut sends = proposer.again();
        loop {
            let Some(send) = sends.pop() else { return proposer.give_up() };
            match self.deliver(&mut proposer, &send) {
                Step::Ask(more) => sends.extend(more),
                Step::Conflict => sends = proposer.again(),
                Step::Done(outcome) => {
                    // What is on its way still arrives.
                    for send in sends {
                        self.deliver(&mut proposer, &send);
                    }
                    return *outcome;
                }
            }
        }
    }

    fn deliver(&mut self, proposer: &mut Proposer, send: &Send) -> Step {
        let n = send.to.node.0[0];
        if self.down.contains(&n) {
            return Step::Ask(Vec::new());
        }
        let acceptor = self.acceptors.get_mut(&n).unwrap();
        let answer = acceptor.answer(&send.question, Duration::ZERO).unwrap();
        proposer.on_answer(send.to.node, &answer)
    }

    fn change(&mut self, known: &Decision, next: &Decision) -> Outcome {
        let proposer = Proposer::change(self.id(), known, next.clone()).unwrap();
        self.run(proposer)
    }

    fn read(&mut self, known: &Decision) -> Outcome {
        let proposer = Proposer::read_from(self.id(), known);
        self.run(proposer)
    }
}

fn intended(known: &Decision, why: &str) -> Decision {
    known.intended(NodeId([7; 16]), act(why))
}

/// An intent where the newest is none, else what was intended.
fn promoted(known: &Decision, why: &str) -> Decision {
    match known.intends {
        Some(_) => known.promoted(Cause::Promoted, act(why)),
        None => intended(known, why),
    }
}

#[test]
fn a_register_is_founded_once_read_and_changed_by_who_knows_it() {
    let mut table = Table::new(3);
    let proposer = Proposer::read(table.id(), &founding().seats);
    assert_eq!(table.run(proposer), Outcome::Empty);
    let (mut table, first) = Table::founded(3);
    let other = Decision { act: act("another founder"), ..founding() };
    let proposer = Proposer::found(table.id(), other).unwrap();
    assert_eq!(table.run(proposer), Outcome::Lost(first.clone()));
    let second = promoted(&first, "a");
    assert_eq!(table.change(&first, &second), Outcome::Chosen(second.clone()));
    assert_eq!(table.change(&first, &promoted(&first, "b")), Outcome::Lost(second.clone()));
    assert_eq!(table.read(&first), Outcome::Chosen(second));
}

#[test]
fn one_of_three_may_be_down_and_two_are_named() {
    let (mut table, first) = Table::founded(3);
    table.down = vec![0];
    let second = promoted(&first, "north burns");
    assert_eq!(table.change(&first, &second), Outcome::Chosen(second.clone()));
    table.down = vec![0, 2];
    match table.change(&second, &promoted(&second, "x")) {
        Outcome::NoQuorum(missing) => {
            let places: Vec<&str> = missing.iter().map(|m| m.seat.place.as_str()).collect();
            assert_eq!(places, ["north", "third"]);
        }
        other => panic!("{other:?}"),
    }
    table.down = vec![1];
    assert_eq!(table.read(&first), Outcome::Chosen(second));
}

#[test]
fn what_was_sent_and_not_answered_is_unknown_and_finished_by_the_next_read() {
    let (mut table, first) = Table::founded(3);
    let second = promoted(&first, "a");
    let mut proposer = Proposer::change(table.id(), &first, second.clone()).unwrap();
    let mut accepts = Vec::new();
    for send in proposer.again() {
        if let Step::Ask(more) = table.deliver(&mut proposer, &send) {
            accepts.extend(more);
        }
    }
    assert_eq!(accepts.len(), 3);
    // One acceptor takes it, then the proposer is gone.
    table.deliver(&mut proposer, &accepts[0]);
    match proposer.give_up() {
        Outcome::Unknown { proposed, missing } => {
            assert_eq!((proposed, missing.len()), (second.clone(), 2));
        }
        other => panic!("{other:?}"),
    }
    let taken = accepts[0].to.node.0[0];
    // Without that one a read does not see it, with it the read finishes it.
    table.down = vec![taken];
    assert_eq!(table.read(&first), Outcome::Chosen(first.clone()));
    table.down = vec![(taken + 1) % 3];
    let read = table.read(&first);
    assert!(read == Outcome::Chosen(first) || read == Outcome::Chosen(second), "{read:?}");
    let again = table.read(&founding());
    assert_eq!(again, read);
}

#[test]
fn a_replaced_acceptor_and_one_more_may_be_gone() {
    let (mut table, first) = Table::founded(4);
    table.down = vec![2];
    let second = first.replaced(seat(2).acceptor, seat(3), act("disk")).unwrap();
    assert_eq!(table.change(&first, &second), Outcome::Chosen(second.clone()));
    // The replacement is settled: the old list is not needed any more.
    table.down = vec![0, 2];
    assert_eq!(table.read(&second), Outcome::Chosen(second.clone()));
    // Who knows the old list only finds the new one through the acceptor that both have.
    assert_eq!(table.read(&first), Outcome::Chosen(second.clone()));
    let third = promoted(&second, "after");
    assert_eq!(table.change(&second, &third), Outcome::Chosen(third));
}

#[test]
fn a_lost_file_is_named_with_the_new_id() {
    let (mut table, first) = Table::founded(3);
    let fresh = seat(9).acceptor;
    let new = Acceptor::open(MemoryKeep::new(), fresh, Duration::ZERO).unwrap();
    table.acceptors.insert(2, new);
    table.down = vec![1];
    match table.read(&first) {
        Outcome::NoQuorum(missing) => {
            let third = missing.iter().find(|missing| missing.seat == seat(2)).unwrap();
            assert_eq!(third.stranger, Some(fresh));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn acceptors_that_hold_less_than_what_was_chosen_are_noticed() {
    let (_, first) = Table::founded(3);
    let (mut older, _) = Table::founded(3);
    let second = promoted(&first, "a");
    let third = promoted(&second, "b");
    let found = Some(first);
    let known = second.clone();
    assert_eq!(older.change(&second, &third), Outcome::Backwards { known, found: found.clone() });
    assert_eq!(older.read(&second), Outcome::Backwards { known: second.clone(), found });
    let known = second.clone();
    assert_eq!(Table::new(3).read(&second), Outcome::Backwards { known, found: None });
}

/// Operations one after the other, with any one acceptor down for each, against the plain list of
/// what they said.
#[test]
fn histories_are_those_of_a_plain_list() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut table, first) = Table::founded(8);
        let mut model = vec![first];
        let mut spare = 3;
        for step in 0..30 {
            let newest = model.last().unwrap().clone();
            let any = |random: &mut Random| newest.seats[random.index(3)].node.0[0];
            table.down = vec![any(&mut random)];
            let stale = model[random.index(model.len())].clone();
            match random.within(0, 4) {
                0 => assert_eq!(table.read(&newest), Outcome::Chosen(newest)),
                1 => {
                    let next = promoted(&stale, &format!("{step}"));
                    let told = table.change(&stale, &next);
                    if stale == newest {
                        assert_eq!(told, Outcome::Chosen(next.clone()), "seed {seed}");
                        model.push(next);
                    } else {
                        let is_lost = told == Outcome::Lost(newest);
                        let is_silent = matches!(told, Outcome::NoQuorum(_));
                        assert!(is_lost || is_silent, "seed {seed}: {told:?}");
                    }
                }
                2 if spare < 8 => {
                    let gone = seat(table.down[0]).acceptor;
                    let next = newest.replaced(gone, seat(spare), act("gone")).unwrap();
                    assert_eq!(table.change(&newest, &next), Outcome::Chosen(next.clone()));
                    model.push(next);
                    spare += 1;
                }
                _ => {
                    let next = promoted(&newest, &format!("{step}"));
                    assert_eq!(table.change(&newest, &next), Outcome::Chosen(next.clone()));
                    model.push(next);
                }
            }
        }
    }
}
