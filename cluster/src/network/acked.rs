//! What each replica told this node that it has on disk, while this node led its group. A replica
//! that denies it later runs on an older copy of its disk: it must not be brought up to date as if
//! nothing had been (what it acked counted for a majority), and it must not vote.
//!
//! ```text
//!  answers to appends, heartbeats, snapshots ──▶ judge ──▶ highest index acked in a term
//!                                                  └─▶ a conflict at or below it: the log went back
//!  hello of a node that starts ──▶ its logs are compared
//! ```
//!
//! Sound, because a log is cut only under a leader of a later term: a replica whose vote is of no later
//! term than the ack still holds what it acked.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtm_proto::cluster as wire;
use openraft::raft::{StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;

use crate::type_config::TypeConfig;

/// A log that no longer holds what its replica acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "replica {replica} of group {group} acked index {acked} in term {term} and its log lacks index \
     {lacks}: its node runs on an old copy of its disk"
)]
pub(crate) struct WentBack {
    pub(crate) group: u32,
    pub(crate) replica: u64,
    pub(crate) term: u64,
    pub(crate) acked: u64,
    pub(crate) lacks: u64,
}

/// One replica, as this node knows it.
#[derive(Debug)]
pub(crate) struct AckedLog {
    group: u32,
    replica: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    term: u64,
    acked: u64,
    /// A conflict contradicted it.
    lacks: Option<u64>,
}

impl AckedLog {
    /// What a replica answered to a leader of `term`, unless it contradicts an earlier answer.
    pub(crate) fn judge(
        &self,
        term: u64,
        answer: StreamAppendResult<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, WentBack> {
        match &answer {
            Ok(through) => self.acked(term, through.as_ref().map_or(0, |last| last.index)),
            Err(StreamAppendError::Conflict(at)) => {
                let mut state = self.state.lock();
                if state.term == term && state.acked >= at.index && state.acked > 0 {
                    state.lacks = Some(at.index);
                    return Err(self.contradiction(*state, at.index));
                }
            }
            Err(StreamAppendError::HigherVote(_)) => {}
        }
        Ok(answer)
    }

    /// The replica has everything up to `index` on disk, says its answer to a leader of `term`.
    pub(crate) fn acked(&self, term: u64, index: u64) {
        let mut state = self.state.lock();
        if term > state.term {
            *state = State { term, acked: index, lacks: None };
        } else if term == state.term {
            state.acked = state.acked.max(index);
        }
    }

    fn contradiction(&self, state: State, lacks: u64) -> WentBack {
        let (group, replica) = (self.group, self.replica);
        WentBack { group, replica, term: state.term, acked: state.acked, lacks }
    }

    /// Compares with what a log holds whose replica starts; `voted` is the term of its vote. A log that
    /// holds it all is another disk than one that was found to have gone back.
    fn compare(&self, voted: u64, last: u64) -> Option<WentBack> {
        let mut state = self.state.lock();
        if voted <= state.term && last < state.acked {
            return Some(self.contradiction(*state, last + 1));
        }
        state.lacks = None;
        None
    }

    /// A log that was found to have gone back while its node ran.
    fn found(&self) -> Option<WentBack> {
        let state = *self.state.lock();
        state.lacks.map(|lacks| self.contradiction(state, lacks))
    }
}

/// All replicas that a leader here heard of. Bounded by the replicas of the groups of this node.
#[derive(Debug, Default)]
pub(crate) struct AckedLogs {
    replicas: Mutex<BTreeMap<(u32, u64), Arc<AckedLog>>>,
}

impl AckedLogs {
    /// The one of a target, made at first use.
    pub(crate) fn of(&self, target: wire::Target) -> Arc<AckedLog> {
        let wire::Target { group, replica } = target;
        let mut replicas = self.replicas.lock();
        let log = replicas
            .entry((group, replica))
            .or_insert_with(|| Arc::new(AckedLog { group, replica, state: Mutex::default() }));
        Arc::clone(log)
    }

    /// The first log of a node that runs which was found to lack what it acked, among the replicas
    /// that `is_its` names.
    pub(crate) fn found(&self, is_its: impl Fn(u32, u64) -> bool) -> Option<WentBack> {
        let replicas = self.replicas.lock();
        let mut its = replicas.iter().filter(|(id, _)| is_its(id.0, id.1));
        its.find_map(|(_, log)| log.found())
    }

    /// The first log of a node that starts which lacks what it acked.
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
    use super::*;
    use crate::convert;

    const TARGET: wire::Target = wire::Target { group: 3, replica: 2 };

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
    fn a_conflict_at_or_below_what_was_acked_is_a_log_that_went_back() {
        let logs = AckedLogs::default();
        let log = logs.of(TARGET);
        assert!(log.judge(5, conflict(90)).is_ok(), "nothing was acked yet");
        assert!(log.judge(5, through(100)).is_ok());
        assert!(log.judge(5, through(80)).is_ok(), "an answer that came late");
        assert!(log.judge(5, conflict(101)).is_ok());
        assert!(logs.found(|_, _| true).is_none());
        let back = log.judge(5, conflict(100)).expect_err("acked and denied");
        assert_eq!((back.acked, back.lacks, back.term), (100, 100, 5));
        assert_eq!(logs.found(|group, replica| (group, replica) == (3, 2)), Some(back));
        assert!(logs.found(|_, _| false).is_none(), "of another node");
        assert!(log.judge(6, conflict(100)).is_ok(), "a later leader may have cut it");
        assert!(log.judge(6, through(7)).is_ok());
        assert!(log.judge(6, conflict(8)).is_ok());
        assert!(logs.found(|_, _| true).is_none(), "a new term begins anew");
    }

    // holds: ING-1
    #[test]
    fn a_log_that_starts_is_compared_within_the_term_of_its_ack() {
        let logs = AckedLogs::default();
        logs.of(TARGET).acked(5, 100);
        let known = |positions: &[_]| logs.compare(positions).is_some();
        assert!(known(&at(5, 99)) && known(&at(4, 0)));
        assert!(!known(&at(5, 100)) && !known(&at(5, 140)));
        assert!(!known(&at(6, 3)), "a leader of term 6 may have cut it");
        let log = logs.of(TARGET);
        log.judge(5, conflict(50)).expect_err("acked and denied");
        assert!(logs.found(|_, _| true).is_some());
        assert!(!known(&at(5, 100)), "the right disk was put back");
        assert!(logs.found(|_, _| true).is_none());
    }
}
