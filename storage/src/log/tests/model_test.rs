//! Random operations, power cuts and kills, against a naive model.
//!
//! After each crash the log must be in a state that the calls went through, not older than the
//! last one that was told durable: nothing flushed is lost, nothing cut comes back, votes never
//! go back.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use proptest::prelude::*;

use super::kit::*;
use crate::log::{Error, GroupLog, Health, NodeLog};
use crate::vfs::MemVfs;

const GROUPS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Append {
        group: u32,
        count: u64,
        bytes: usize,
    },
    Vote {
        group: u32,
    },
    Truncate {
        group: u32,
        back: u64,
    },
    Purge {
        group: u32,
        back: u64,
    },
    Reset {
        group: u32,
        ahead: u64,
    },
    /// Waits until everything so far is flushed.
    Flush,
    /// Lets the log idle, so that it marks its last round.
    Idle,
    Crash {
        keep_percent: u64,
    },
    Kill,
    Close,
}

/// What a group's log holds, by the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    purged: Option<(u64, u64)>,
    /// Term and payload size by index.
    entries: BTreeMap<u64, (u64, usize)>,
    vote: u64,
}

impl Model {
    fn next_index(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.map(|purged| purged.0)).map_or(0, |last| last + 1)
    }
}

/// States that the log may be found in, oldest first, and since when they are durable.
struct Group {
    states: Vec<Model>,
    term: u64,
    /// Answers of calls, with the number of the state they promise.
    waiting: Vec<(usize, Receiver<Result<(), Error>>)>,
    durable: usize,
}

impl Group {
    fn now(&self) -> Model {
        self.states.last().expect("never empty").clone()
    }

    fn settle(&mut self) {
        for (state, answer) in self.waiting.drain(..) {
            if let Ok(Ok(())) = answer.try_recv() {
                self.durable = self.durable.max(state);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let group = || 0..GROUPS;
    prop_oneof![
        8 => (group(), 1u64..6, prop_oneof![0usize..200, 200usize..6000])
            .prop_map(|(group, count, bytes)| Step::Append { group, count, bytes }),
        2 => group().prop_map(|group| Step::Vote { group }),
        2 => (group(), 0u64..8).prop_map(|(group, back)| Step::Truncate { group, back }),
        1 => (group(), 0u64..8).prop_map(|(group, back)| Step::Purge { group, back }),
        1 => (group(), 0u64..20).prop_map(|(group, ahead)| Step::Reset { group, ahead }),
        4 => Just(Step::Flush),
        1 => Just(Step::Idle),
        2 => prop_oneof![Just(0u64), Just(50), Just(90), Just(100)]
            .prop_map(|keep_percent| Step::Crash { keep_percent }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

struct World {
    vfs: MemVfs,
    node: Option<NodeLog>,
    groups: Vec<Group>,
}

impl World {
    fn log(&self, group: u32) -> GroupLog {
        self.node.as_ref().expect("open").group(group, 1, 1).expect("group")
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Append { group, count, bytes } => self.append(group, count, bytes),
            Step::Vote { group } => self.vote(group),
            Step::Truncate { group, back } => self.truncate(group, back),
            Step::Purge { group, back } => self.purge(group, back),
            Step::Reset { group, ahead } => self.reset(group, ahead),
            Step::Flush => self.flush(),
            Step::Idle => {
                self.flush();
                std::thread::sleep(std::time::Duration::from_millis(6));
            }
            Step::Crash { keep_percent } => {
                self.vfs.crash(keep_percent);
                self.reopen();
            }
            Step::Kill => {
                self.vfs.kill();
                self.reopen();
            }
            Step::Close => {
                self.flush();
                self.reopen();
            }
        }
    }

    fn append(&mut self, group: u32, count: u64, bytes: usize) {
        let log = self.log(group);
        let model = &mut self.groups[group as usize];
        let (mut state, term) = (model.now(), model.term);
        let first = state.next_index();
        for index in first..first + count {
            state.entries.insert(index, (term, bytes));
            model.states.push(state.clone());
        }
        let (callback, answer) = waiter();
        log.append(entries(first..=first + count - 1, term, bytes), callback).expect("taken");
        model.waiting.push((model.states.len() - 1, answer));
    }

    fn vote(&mut self, group: u32) {
        let log = self.log(group);
        let model = &mut self.groups[group as usize];
        model.term += 1;
        let mut state = model.now();
        state.vote = model.term;
        model.states.push(state);
        let (callback, answer) = waiter();
        log.save_vote(Bytes::copy_from_slice(&model.term.to_le_bytes()), callback).expect("taken");
        model.waiting.push((model.states.len() - 1, answer));
    }

    fn truncate(&mut self, group: u32, back: u64) {
        let log = self.log(group);
        let model = &mut self.groups[group as usize];
        let mut state = model.now();
        let next = state.next_index();
        let low = state.purged.map_or(0, |purged| purged.0 + 1);
        let from = next.saturating_sub(back).max(low);
        state.entries.split_off(&from);
        model.states.push(state);
        // What is written after a cut is of a newer term.
        model.term += 1;
        let (callback, answer) = waiter();
        log.truncate_after(from.checked_sub(1), callback).expect("taken");
        model.waiting.push((model.states.len() - 1, answer));
    }

    fn purge(&mut self, group: u32, back: u64) {
        let log = self.log(group);
        let model = &mut self.groups[group as usize];
        let mut state = model.now();
        let Some(index) = state.next_index().checked_sub(1 + back) else {
            return;
        };
        let Some((term, _)) = state.entries.get(&index).copied() else {
            return;
        };
        state.entries = state.entries.split_off(&(index + 1));
        state.purged = Some((index, term));
        model.states.push(state);
        // Not synced on its own: its answer promises nothing.
        let (callback, _answer) = waiter();
        log.purge_to(at(index, term), callback).expect("taken");
    }

    fn reset(&mut self, group: u32, ahead: u64) {
        let log = self.log(group);
        let model = &mut self.groups[group as usize];
        let mut state = model.now();
        let index = state.next_index() + ahead;
        state.entries.clear();
        state.purged = Some((index, model.term));
        model.states.push(state);
        let (callback, answer) = waiter();
        log.reset(at(index, model.term), None, callback).expect("taken");
        model.waiting.push((model.states.len() - 1, answer));
    }

    fn flush(&mut self) {
        for model in &mut self.groups {
            for (state, answer) in model.waiting.drain(..) {
                wait(&answer).expect("no fault was injected");
                model.durable = model.durable.max(state);
            }
        }
    }

    /// Opens the log again and finds each group in one of the states it may be in.
    fn reopen(&mut self) {
        drop(self.node.take());
        self.groups.iter_mut().for_each(Group::settle);
        let (node, recovery) = open(&self.vfs, small());
        assert!(recovery.recovering.is_empty(), "no damage was injected: {recovery:?}");
        self.node = Some(node);
        for group in 0..GROUPS {
            let log = self.log(group);
            let found = observe(&log);
            let model = &mut self.groups[group as usize];
            let allowed = &model.states[model.durable..];
            let state = allowed.iter().rposition(|state| *state == found);
            let state = state.unwrap_or_else(|| {
                panic!("group {group} is in no state it may be in: {found:?}, of {allowed:?}")
            });
            let state = allowed[state].clone();
            model.states = vec![state];
            model.durable = 0;
            // Newer than anything cut.
            model.term += 1;
        }
    }
}

fn observe(log: &GroupLog) -> Model {
    let state = log.state();
    assert_eq!(state.health, Health::Healthy);
    let all = read_all(log);
    let vote =
        state.vote.map_or(0, |vote| u64::from_le_bytes(vote.as_ref().try_into().expect("8 bytes")));
    for found in &all {
        assert_eq!(*found, entry(found.index, found.term, found.payload.len()));
        assert_eq!(log.read_record(found.index).expect("readable"), *found);
    }
    if let Some(last) = all.last() {
        assert_eq!(state.last, Some(last.position()));
    }
    Model {
        purged: state.last_purged.map(|purged| (purged.index, purged.term)),
        entries: all.iter().map(|e| (e.index, (e.term, e.payload.len()))).collect(),
        vote,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    // holds: ING-1
    // fault: F3
    // fault: F5
    #[test]
    fn crashes_lose_nothing_flushed_and_bring_back_nothing_cut(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let vfs = MemVfs::new(seed);
        let fresh = || Group {
            states: vec![Model::default()], term: 1, waiting: Vec::new(), durable: 0,
        };
        let groups = (0..GROUPS).map(|_| fresh()).collect();
        let node = Some(open(&vfs, small()).0);
        let mut world = World { vfs, node, groups };
        for step in steps {
            world.apply(step);
        }
        world.flush();
        world.vfs.crash(0);
        world.reopen();
    }
}
