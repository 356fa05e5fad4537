//! A damaged log is mended below openraft, before the group starts: it neither votes nor leads until
//! every entry that this replica may have acknowledged is back or known to be nobody's.
//!
//! ```text
//!  at or below the applied index   the rows hold it: purged, its bundles are fetched later
//!  a gap, next entry undamaged     any peer whose log holds that (index, term): same log below it
//!  anything else                   the log of a leader that a quorum confirms; without one, when
//!                                  every other voter answers, the most advanced of their logs
//! ```
//!
//! Nothing is cut on a guess: what this replica acknowledged and was committed is in that log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::StateStore;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, ReplicaId};

use crate::applied::Applied;
use crate::convert;
use crate::log_store::{IndexRange, LogEntry, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::network::{Link, Links, entries};
use crate::ranges::Ranges;
use crate::state_machine::read_applied;
use crate::type_config::{LogId, Membership, Payload, PeerNode};

const LEADER_TIMEOUT: Duration = Duration::from_secs(3);
/// Answers asked for while one range is mended.
const ASKS_MAX: usize = 100_000;

/// Why a log is not whole yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Both copies of a vote are gone.
    #[error("its vote is lost: only a new replica id helps")]
    VoteLost,
    /// Not yet: other replicas must answer first.
    #[error("{0}")]
    Waiting(String),
    /// Log or rows refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A replica whose log is damaged.
pub(crate) struct Repair<'a> {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) log: &'a Arc<dyn ReplicaLog>,
    pub(crate) store: &'a Arc<dyn StateStore>,
    pub(crate) links: &'a Arc<Links>,
}

/// The other replicas of the group.
#[derive(Default)]
struct Others {
    nodes: BTreeMap<u64, PeerNode>,
    voters: BTreeSet<u64>,
}

impl Repair<'_> {
    /// Mends what can be mended now. Idempotent; what was done stays when it fails.
    pub(crate) async fn run(&self) -> Result<(), Error> {
        let Some(damage) = self.log.marks().recovering else { return Ok(()) };
        if damage.vote_lost {
            return Err(Error::VoteLost);
        }
        let (applied, membership) = read_applied(&**self.store)?;
        self.leave_to_rows(applied, &damage.missing).await?;
        let applied = applied.map(|applied| applied.index);
        let others = self.others(applied.unwrap_or(0), membership.membership());
        for range in self.missing() {
            self.fill(&others, range).await?;
        }
        if self.log.marks().recovering.is_some() {
            let (replica, peer) = self.source(&others).await?;
            self.adopt(replica, &peer, applied).await?;
        }
        match self.log.marks().recovering {
            None => Ok(()),
            Some(damage) => Err(Error::Waiting(format!("still {damage}"))),
        }
    }

    fn missing(&self) -> Vec<IndexRange> {
        self.log.marks().recovering.map(|damage| damage.missing).unwrap_or_default()
    }

    /// What the rows hold the log need not: it is purged, its bundles come later.
    async fn leave_to_rows(
        &self,
        applied: Option<LogId>,
        missing: &[IndexRange],
    ) -> Result<(), Error> {
        let Some(applied) = applied else { return Ok(()) };
        let mut lost = Ranges::default();
        for range in missing {
            lost.insert(range.from, range.to.min(applied.index));
        }
        if lost.is_empty() {
            return Ok(());
        }
        // Also makes the rows durable, which the purge relies on (ING-1).
        let applied_here = Arc::new(Applied::new());
        let note = Missing::load(self.group, Arc::clone(self.store), applied_here)?;
        note.add_durably(&lost).await?;
        self.log.purge_to(convert::position(&applied)).map_err(io::Error::other)?;
        Ok(())
    }

    /// Members by the rows and by what the log still shows above them.
    fn others(&self, applied: u64, membership: &Membership) -> Others {
        let mut others = Others::default();
        others.add(membership);
        let last = self.log.marks().last.map_or(0, |last| last.index);
        for index in applied + 1..=last {
            let Ok(found) = self.log.read(index..index + 1, 1) else { continue };
            let entry = found.into_iter().next().map(convert::entry_from_log);
            if let Some(Ok(entry)) = entry
                && let Payload::Membership(membership) = entry.payload
            {
                others.add(&membership);
            }
        }
        others.nodes.remove(&self.replica.0);
        others.voters.remove(&self.replica.0);
        others
    }

    fn link(&self, peer: &PeerNode) -> Arc<Link> {
        self.links.to(peer.node, &peer.peer_address)
    }

    async fn ask(
        &self,
        replica: u64,
        peer: &PeerNode,
        range: IndexRange,
        next: Option<wire::LogId>,
    ) -> Result<entries::Answer, tonic::Status> {
        let target = Some(wire::Target { group: self.group.0, replica });
        let IndexRange { from, to } = range;
        let request = wire::EntriesRequest { target, from, to, committed: false, next };
        entries::ask(&self.link(peer), request).await
    }

    /// Our own entry at an index, when it can be read.
    fn own(&self, index: u64) -> Option<LogEntry> {
        self.log.read(index..index + 1, 1).ok()?.pop()
    }

    /// Fills one gap from peers that hold the entry behind it.
    async fn fill(&self, others: &Others, range: IndexRange) -> Result<(), Error> {
        let behind = self.own(range.to + 1);
        let behind = behind.map(|entry| (entry.index, entry.term));
        let last = self.log.marks().last.filter(|last| last.index == range.to);
        let Some((index, term)) = behind.or(last.map(|last| (last.index, last.term))) else {
            return Ok(());
        };
        let next = wire::LogId { term, leader: 0, index };
        let mut from = range.from;
        for (&replica, peer) in &others.nodes {
            for _ in 0..ASKS_MAX {
                let left = IndexRange { from, to: range.to };
                let Ok(answer) = self.ask(replica, peer, left, Some(next)).await else { break };
                let is_dense = answer.entries.iter().zip(from..).all(|(e, at)| e.index == at);
                if !answer.holds_next || answer.entries.is_empty() || !is_dense {
                    break;
                }
                from += answer.entries.len() as u64;
                let count = answer.entries.len() as u64;
                metrics::counter!("dtm_cluster_entries_repaired_total").increment(count);
                wait_flushed(|done| self.log.store_records(answer.entries, done)).await?;
                if from > range.to {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whose log is to be ours.
    async fn source(&self, others: &Others) -> Result<(u64, PeerNode), Error> {
        for (&replica, peer) in &others.nodes {
            let target = Some(wire::Target { group: self.group.0, replica });
            let link = self.link(peer);
            let request = link.guard().stamp(wire::ReadIndexRequest { target });
            let mut client = link.control();
            let asked = tokio::time::timeout(LEADER_TIMEOUT, client.read_index(request)).await;
            if let Ok(Ok(_)) = asked {
                return Ok((replica, peer.clone()));
            }
        }
        let mut best = None;
        for replica in &others.voters {
            let nothing = IndexRange { from: 1, to: 0 };
            let peer = others.nodes.get(replica);
            let peer =
                peer.ok_or_else(|| Error::Waiting(format!("replica {replica} is unknown")))?;
            let answer = self.ask(*replica, peer, nothing, None).await.map_err(|status| {
                let cause = status.message();
                Error::Waiting(format!("no leader, and replica {replica} does not answer: {cause}"))
            })?;
            let last = answer.last.map(|last| (last.term, last.index));
            if best.as_ref().is_none_or(|(known, _, _)| *known < last) {
                best = Some((last, *replica, peer.clone()));
            }
        }
        let best = best.map(|(_, replica, peer)| (replica, peer));
        best.ok_or_else(|| Error::Waiting("no other voter holds this log".to_owned()))
    }

    /// Makes our log agree with another one above what is applied: keeps what is the same, fills
    /// what is damaged, cuts what contradicts it, adds what follows. Goes through what that log held
    /// at the first answer; when it is cut below what was taken over this begins anew, later.
    async fn adopt(
        &self,
        replica: u64,
        peer: &PeerNode,
        applied: Option<u64>,
    ) -> Result<(), Error> {
        let waiting = |cause: String| Error::Waiting(format!("replica {replica} {cause}"));
        let mut pending: Vec<LogEntry> = Vec::new();
        let mut taken = Taken { last: None, next: applied.map_or(0, |applied| applied + 1) };
        let mut end = None;
        for _ in 0..ASKS_MAX {
            let range = IndexRange { from: taken.from(), to: u64::MAX };
            let answer = self.ask(replica, peer, range, None).await;
            let answer =
                answer.map_err(|status| waiting(format!("ended: {}", status.message())))?;
            let end = *end.get_or_insert(answer.last.map_or(0, |last| last.index));
            if applied.is_some_and(|applied| end < applied) {
                return Err(waiting(format!("ends at {end}, below what is applied here")));
            }
            let page = taken.join(answer.entries).map_err(waiting)?;
            if page.is_empty() && taken.next <= end {
                return Err(waiting(format!("gives nothing at {}", taken.next)));
            }
            self.adopt_page(page, &mut pending).await?;
            if taken.next > end {
                return self.finish(pending, taken.next - 1).await;
            }
        }
        Err(waiting("gives too little at a time".to_owned()))
    }

    /// Everything through `end` was taken over, but for what is pending.
    async fn finish(&self, pending: Vec<LogEntry>, end: u64) -> Result<(), Error> {
        self.replace(pending).await?;
        // A gap behind the end of that log: held by nobody else, so never committed.
        if let Some(gap) = self.missing().into_iter().find(|range| range.to > end) {
            self.cut(gap.from.checked_sub(1)).await?;
        }
        Ok(wait_flushed(|done| self.log.declare_whole(done)).await?)
    }

    /// Takes over entries without holes. `pending` are those before them whose places are damaged
    /// here and of which it is not known yet whether our log goes on in the same way behind them.
    async fn adopt_page(
        &self,
        page: Vec<LogEntry>,
        pending: &mut Vec<LogEntry>,
    ) -> Result<(), Error> {
        let last = self.log.marks().last.map_or(0, |last| last.index);
        let mut page = page.into_iter();
        while let Some(entry) = page.next() {
            match self.own(entry.index) {
                Some(own) if own.term == entry.term => {
                    // The same entry, so the same log below it: the gap is filled in place.
                    let filled = std::mem::take(pending);
                    if !filled.is_empty() {
                        wait_flushed(|done| self.log.store_records(filled, done)).await?;
                    }
                }
                None if entry.index <= last => pending.push(entry),
                // Our log goes on otherwise, or ends here: all of this page follows instead.
                Some(_) | None => {
                    pending.push(entry);
                    pending.extend(page);
                    return self.replace(std::mem::take(pending)).await;
                }
            }
        }
        Ok(())
    }

    /// Our log ends before these entries, which follow instead.
    async fn replace(&self, entries: Vec<LogEntry>) -> Result<(), Error> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        if self.log.marks().last.is_some_and(|last| last.index >= first) {
            self.cut(first.checked_sub(1)).await?;
        }
        metrics::counter!("dtm_cluster_entries_repaired_total").increment(entries.len() as u64);
        Ok(wait_flushed(|done| self.log.append(entries, done)).await?)
    }

    async fn cut(&self, keep: Option<u64>) -> Result<(), Error> {
        let last = self.log.marks().last;
        tracing::warn!(
            group = self.group.0,
            ?keep,
            ?last,
            "log is cut: the rest is nobody's, or replaced"
        );
        Ok(wait_flushed(|done| self.log.truncate_after(keep, done)).await?)
    }
}

/// How far another log was taken over. Each page begins with the last entry of the one before: where
/// that is still the same all below it is, too, so that no two histories are spliced.
struct Taken {
    /// Index and term of the last entry.
    last: Option<(u64, u64)>,
    next: u64,
}

impl Taken {
    /// From where the next page is asked for.
    fn from(&self) -> u64 {
        self.last.map_or(self.next, |(index, _)| index)
    }

    /// What a page adds.
    fn join(&mut self, page: Vec<LogEntry>) -> Result<Vec<LogEntry>, String> {
        let mut page = page.into_iter();
        if let Some(last) = self.last
            && page.next().is_none_or(|entry| (entry.index, entry.term) != last)
        {
            return Err(format!("no longer holds index {} as it did", last.0));
        }
        let page: Vec<LogEntry> = page.collect();
        if let Some((_, at)) = page.iter().zip(self.next..).find(|(entry, at)| entry.index != *at) {
            return Err(format!("lacks index {at} too"));
        }
        if let Some(entry) = page.last() {
            self.last = Some((entry.index, entry.term));
            self.next = entry.index + 1;
        }
        Ok(page)
    }
}

impl Others {
    fn add(&mut self, membership: &Membership) {
        self.nodes.extend(membership.nodes().map(|(&id, peer)| (id, peer.clone())));
        self.voters.extend(membership.voter_ids());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entries(term: u64, from: u64, to: u64) -> Vec<LogEntry> {
        let entry = |index| LogEntry { index, term, leader: 1, payload: Bytes::from_static(b"x") };
        (from..=to).map(entry).collect()
    }

    // holds: RAFT-1
    #[test]
    fn pages_of_two_histories_are_never_joined() {
        let mut taken = Taken { last: None, next: 7 };
        assert_eq!(taken.join(entries(3, 7, 20)).map(|page| page.len()), Ok(14));
        assert_eq!((taken.from(), taken.next), (20, 21));
        // It was deposed and its tail replaced from 15 on.
        assert!(taken.join(entries(4, 20, 40)).is_err());
        assert!(taken.join(Vec::new()).is_err(), "it was cut below");
        assert_eq!(taken.join(entries(3, 20, 20)), Ok(Vec::new()));
        let mut more = entries(3, 20, 22);
        more.extend(entries(5, 23, 30));
        assert_eq!(taken.join(more).map(|page| page.len()), Ok(10));
        assert!(taken.join([entries(5, 30, 31), entries(5, 33, 34)].concat()).is_err(), "a hole");
    }
}
