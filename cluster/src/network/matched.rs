//! What each replica told this node, while it led its group, that it has on disk. A replica that
//! denies it later runs on an older copy of its disk: it must not be brought up to date as if nothing
//! had been (what it held counted for a majority), and it must not vote.
//!
//! ```text
//!  answers to appends, heartbeats, snapshots ──▶ judge ──▶ last match in a term
//!                                                  └─▶ a conflict at or below it: the log went back
//!  what is sent: how much is committed ──▶ of the match, what no later leader cuts: kept
//!  hello of a node that starts, answers to votes ──▶ their logs are compared
//! ```
//!
//! Sound, because a log is cut only under a leader of a later term, and never below what is committed:
//! a replica whose vote is of no later term than the match still holds all of it, and every replica
//! for ever what the leader that it was matched with knew as committed. The second outlives elections
//! for as long as this node runs, whoever leads meanwhile.
// Hot path: every answer of a follower passes here.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtm_peers::OriginGuard;
use dtm_proto::cluster as wire;
use dtm_types::NodeId;
use openraft::raft::{StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;

use crate::type_config::TypeConfig;

/// A log that no longer holds what its replica held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "replica {replica} of group {group} held index {through} by term {term} and its log lacks index \
     {lacks}: its node runs on an old copy of its disk"
)]
pub(crate) struct WentBack {
    pub(crate) group: u32,
    pub(crate) replica: u64,
    pub(crate) term: u64,
    pub(crate) through: u64,
    pub(crate) lacks: u64,
}

/// One replica, as this node knows it.
#[derive(Debug)]
pub(crate) struct MatchedLog {
    group: u32,
    replica: u64,
    node: NodeId,
    guard: Arc<OriginGuard>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    term: u64,
    through: u64,
    /// Highest index that the leader of that term knew as committed.
    committed: u64,
    /// Held and committed, in that term or an earlier one: no later leader cuts it.
    kept: u64,
    /// An answer contradicted it, in this start of its node.
    lacks: Option<(u64, u64)>,
}

impl State {
    fn keep(&mut self) {
        self.kept = self.kept.max(self.through.min(self.committed));
    }

    /// What a log holds whose replica voted in this term, and in none after it.
    fn held(&self, voted: u64) -> u64 {
        if voted <= self.term { self.kept.max(self.through) } else { self.kept }
    }
}

impl MatchedLog {
    /// A leader of `term` sends to the replica, and knows this index as committed.
    pub(crate) fn sends(&self, term: u64, committed: u64) {
        let mut state = self.state.lock();
        // What an earlier term said stays until the replica answers to a later one.
        if term == state.term {
            state.committed = state.committed.max(committed);
            state.keep();
        }
    }

    /// What a replica answered to a leader of `term`, unless it contradicts an earlier answer.
    pub(crate) fn judge(
        &self,
        term: u64,
        answer: StreamAppendResult<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, WentBack> {
        if let Some(found) = self.found() {
            return Err(found);
        }
        match &answer {
            Ok(through) => self.note(term, through.as_ref().map_or(0, |last| last.index)),
            Err(StreamAppendError::Conflict(at)) => {
                let state = *self.state.lock();
                // Late answers to a leader of an earlier term say nothing.
                let held = if term < state.term { 0 } else { state.held(term) };
                if held > 0 && held >= at.index {
                    return Err(self.lacks(at.index));
                }
            }
            Err(StreamAppendError::HigherVote(_)) => {}
        }
        Ok(answer)
    }

    fn lacks(&self, index: u64) -> WentBack {
        let mut state = self.state.lock();
        state.lacks = Some((index, self.start()));
        self.contradiction(*state, index)
    }

    /// What the log holds under any leader: to be asked before a call whose answer is then held
    /// against it by [`MatchedLog::still_holds`].
    pub(crate) fn kept(&self) -> u64 {
        self.state.lock().kept
    }

    /// The last index of a log that is neither damaged nor being replaced, in an answer to a call
    /// which began when it held `kept`.
    pub(crate) fn still_holds(&self, kept: u64, last: u64) -> Result<(), WentBack> {
        if last < kept { Err(self.lacks(last + 1)) } else { Ok(()) }
    }

    /// The replica has everything up to `index` on disk, says its answer to a leader of `term`.
    pub(crate) fn note(&self, term: u64, index: u64) {
        let mut state = self.state.lock();
        if term > state.term {
            let kept = state.kept;
            let lacks = state.lacks.filter(|(index, _)| *index <= kept);
            *state = State { term, through: index, committed: 0, kept, lacks };
        } else if term == state.term {
            state.through = state.through.max(index);
        }
        state.keep();
    }

    fn contradiction(&self, state: State, lacks: u64) -> WentBack {
        let (group, replica) = (self.group, self.replica);
        let through = state.through.max(state.kept);
        WentBack { group, replica, term: state.term, through, lacks }
    }

    /// Compares with what a log holds whose replica starts; `voted` is the latest term in it.
    fn compare(&self, voted: u64, last: u64) -> Option<WentBack> {
        let state = *self.state.lock();
        (last < state.held(voted)).then(|| self.contradiction(state, last + 1))
    }

    /// The latest start of its node that was heard of.
    fn start(&self) -> u64 {
        self.guard.roster().of(self.node).0
    }

    /// A log that was found to have gone back in the present start of its node. A later start is
    /// another disk, or the same one judged anew.
    pub(crate) fn found(&self) -> Option<WentBack> {
        let state = *self.state.lock();
        let lacks = state.lacks.filter(|(_, start)| *start == self.start());
        lacks.map(|(lacks, _)| self.contradiction(state, lacks))
    }
}

/// All replicas that a leader here heard of: one small entry for each that was a member while this
/// node ran.
#[derive(Debug)]
pub(crate) struct MatchedLogs {
    guard: Arc<OriginGuard>,
    replicas: Mutex<BTreeMap<(u32, u64), Arc<MatchedLog>>>,
}

impl MatchedLogs {
    pub(crate) fn new(guard: Arc<OriginGuard>) -> Self {
        Self { guard, replicas: Mutex::default() }
    }

    /// The one of a replica on `node`, made at first use.
    pub(crate) fn of(&self, target: wire::Target, node: NodeId) -> Arc<MatchedLog> {
        let wire::Target { group, replica } = target;
        let mut replicas = self.replicas.lock();
        let log = replicas.entry((group, replica)).or_insert_with(|| {
            let guard = Arc::clone(&self.guard);
            Arc::new(MatchedLog { group, replica, node, guard, state: Mutex::default() })
        });
        Arc::clone(log)
    }

    /// The first log of a node that runs which was found to lack what it held.
    pub(crate) fn found(&self, node: NodeId) -> Option<WentBack> {
        let replicas = self.replicas.lock();
        replicas.values().filter(|log| log.node == node).find_map(|log| log.found())
    }

    /// The first log of a node that starts which lacks what it held.
    pub(crate) fn compare(&self, positions: &[wire::ReplicaPosition]) -> Option<WentBack> {
        let replicas = self.replicas.lock();
        positions.iter().find_map(|at| {
            let target = at.target.as_ref()?;
            replicas.get(&(target.group, target.replica))?.compare(at.term, at.last)
        })
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::{ClusterId, Incarnation};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::convert;

    const TARGET: wire::Target = wire::Target { group: 3, replica: 2 };
    const NODE: NodeId = NodeId([2; 16]);

    fn logs() -> (MatchedLogs, Arc<OriginGuard>) {
        let guard = OriginGuard::new(ClusterId([7; 16]), NodeId([1; 16]), Incarnation(1), 1);
        (MatchedLogs::new(Arc::clone(&guard)), guard)
    }

    fn through(index: u64) -> StreamAppendResult<TypeConfig> {
        Ok(Some(convert::log_id(5, 1, index)))
    }

    fn conflict(index: u64) -> StreamAppendResult<TypeConfig> {
        Err(StreamAppendError::Conflict(convert::log_id(5, 1, index)))
    }

    fn at(term: u64, last: u64) -> [wire::ReplicaPosition; 1] {
        [wire::ReplicaPosition { target: Some(TARGET), term, last }]
    }

    // holds: ING-1, RAFT-1
    #[test]
    fn a_conflict_at_or_below_the_last_match_is_a_log_that_went_back() {
        let (logs, _) = logs();
        let log = logs.of(TARGET, NODE);
        assert!(log.judge(5, conflict(90)).is_ok(), "nothing was matched yet");
        assert!(log.judge(5, through(100)).is_ok());
        assert!(log.judge(5, through(80)).is_ok(), "an answer that came late");
        assert!(log.judge(5, conflict(101)).is_ok());
        assert!(logs.found(NODE).is_none());
        let back = log.judge(5, conflict(100)).expect_err("held and denied");
        assert_eq!((back.through, back.lacks, back.term), (100, 100, 5));
        assert_eq!(logs.found(NODE), Some(back));
        assert!(logs.found(NodeId([3; 16])).is_none(), "of another node");
        log.judge(6, through(7)).expect_err("it is not brought up to date");
        assert_eq!(logs.found(NODE), Some(back), "under no later leader either");
    }

    #[test]
    fn what_no_leader_committed_a_later_one_may_have_cut() {
        let (logs, _) = logs();
        let log = logs.of(TARGET, NODE);
        assert!(log.judge(5, through(100)).is_ok());
        log.sends(5, 60);
        log.sends(4, 100);
        assert!(log.judge(6, conflict(100)).is_ok());
        assert!(log.judge(6, conflict(61)).is_ok());
        assert!(log.judge(6, through(61)).is_ok());
        assert!(log.judge(5, conflict(3)).is_ok(), "late, of the earlier term");
        assert!(log.judge(6, conflict(62)).is_ok());
        assert_eq!(log.still_holds(log.kept(), 60), Ok(()));
        assert!(logs.compare(&at(6, 61)).is_none() && logs.compare(&at(7, 60)).is_none());
        assert!(logs.found(NODE).is_none());
    }

    // Two leaders ago the replica held what was committed then; the leaders since heard little of it.
    //
    // holds: ING-1, RAFT-1
    #[test]
    fn what_was_committed_is_held_for_ever() {
        let held = || {
            let (logs, guard) = logs();
            let log = logs.of(TARGET, NODE);
            assert!(log.judge(5, through(100)).is_ok());
            // Its own answer made the rest committed: the next thing that is sent says so.
            log.sends(5, 100);
            assert!(log.judge(6, Ok(None)).is_ok(), "a heartbeat of a new leader");
            assert!(log.judge(8, through(40)).is_ok(), "a leader that looks for the match");
            (logs, guard, log)
        };
        let (logs, _guard, log) = held();
        let back = log.judge(8, conflict(70)).expect_err("held and denied");
        assert_eq!((back.through, back.lacks, back.term), (100, 70, 8));
        assert_eq!(logs.found(NODE), Some(back));
        log.note(9, 0);
        assert!(logs.found(NODE).is_some(), "no later term takes it back");

        let (logs, _guard, log) = held();
        assert!(logs.compare(&at(8, 99)).is_some() && logs.compare(&at(9, 99)).is_some());
        assert!(logs.compare(&at(9, 100)).is_none());
        let kept = log.kept();
        assert_eq!(log.still_holds(kept, 100), Ok(()));
        let back = log.still_holds(kept, 99).expect_err("its vote is of a shorter log");
        assert_eq!((logs.found(NODE), back.lacks), (Some(back), 100));
    }

    // holds: ING-1
    #[test]
    fn a_log_that_starts_is_compared_within_the_term_of_its_match() {
        let (logs, _) = logs();
        logs.of(TARGET, NODE).note(5, 100);
        let known = |positions: &[_]| logs.compare(positions).is_some();
        assert!(known(&at(5, 99)) && known(&at(4, 0)));
        assert!(!known(&at(5, 100)) && !known(&at(5, 140)));
        assert!(!known(&at(6, 3)), "a leader of term 6 may have cut it");
    }

    // holds: LIVE-1
    #[test]
    fn a_later_start_does_not_inherit_what_was_found_in_an_earlier_one() {
        let (logs, guard) = logs();
        let line = guard.roster().accept(NODE, CancellationToken::new());
        guard.roster().hear(&line, 4).expect("heard");
        let log = logs.of(TARGET, NODE);
        log.note(5, 100);
        log.judge(5, conflict(50)).expect_err("held and denied");
        assert!(logs.found(NODE).is_some());
        assert!(logs.compare(&[]).is_none(), "an empty disk says nothing");
        guard.roster().hear(&line, 5).expect("heard");
        assert!(logs.found(NODE).is_none());
    }
}
