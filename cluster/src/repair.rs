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
use futures::future::BoxFuture;
use tonic::Status;

use crate::adoption::{self, Adoption, EntrySource};
use crate::applied::Applied;
use crate::convert;
use crate::log_store::{IndexRange, ReplicaLog};
use crate::missing::Missing;
use crate::network::{Link, Links, entries};
use crate::ranges::Ranges;
use crate::state_machine::read_applied;
use crate::type_config::{Membership, Payload, PeerNode};

const LEADER_TIMEOUT: Duration = Duration::from_secs(3);

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
        leave_to_rows(self.group, self.log, self.store).await?;
        let applied = applied.map(|applied| applied.index);
        let others = self.others(applied.unwrap_or(0), membership.membership());
        for range in self.missing() {
            self.fill(&others, range).await?;
        }
        if self.log.marks().recovering.is_some() {
            let (replica, peer) = self.source(&others).await?;
            let from = Replica { repair: self, replica, peer: &peer };
            let adoption = Adoption { group: self.group, log: self.log };
            adoption.run(&from, applied).await?;
        }
        match self.log.marks().recovering {
            None => Ok(()),
            Some(damage) => Err(Error::Waiting(format!("still {damage}"))),
        }
    }

    fn missing(&self) -> Vec<IndexRange> {
        self.log.marks().recovering.map(|damage| damage.missing).unwrap_or_default()
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
    ) -> Result<entries::Answer, Status> {
        let target = Some(wire::Target { group: self.group.0, replica });
        let IndexRange { from, to } = range;
        let request = wire::EntriesRequest { target, from, to, committed: false, next };
        entries::ask(&self.link(peer), request).await
    }

    /// Fills one gap from peers that hold the entry behind it.
    async fn fill(&self, others: &Others, range: IndexRange) -> Result<(), Error> {
        let of = |(&replica, peer)| Replica { repair: self, replica, peer };
        let replicas: Vec<Replica<'_>> = others.nodes.iter().map(of).collect();
        let sources: Vec<&dyn EntrySource> =
            replicas.iter().map(|replica| replica as &dyn EntrySource).collect();
        let adoption = Adoption { group: self.group, log: self.log };
        Ok(adoption.fill(&sources, range).await?)
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
}

/// What the rows hold the log need not: what is damaged there is purged, its bundles come later. The
/// rows are on disk then.
pub(crate) async fn leave_to_rows(
    group: GroupId,
    log: &Arc<dyn ReplicaLog>,
    store: &Arc<dyn StateStore>,
) -> io::Result<()> {
    let (Some(applied), _) = read_applied(&**store)? else { return Ok(()) };
    let damage = log.marks().recovering.unwrap_or_default();
    let mut lost = Ranges::default();
    for range in damage.missing {
        lost.insert(range.from, range.to.min(applied.index));
    }
    if lost.is_empty() {
        return Ok(());
    }
    // Also makes the rows durable, which the purge relies on (ING-1).
    let note = Missing::load(group, Arc::clone(store), Arc::new(Applied::new()))?;
    note.add_durably(&lost).await?;
    log.purge_to(convert::position(&applied)).map_err(io::Error::other)
}

/// Another replica, asked for its entries.
struct Replica<'a> {
    repair: &'a Repair<'a>,
    replica: u64,
    peer: &'a PeerNode,
}

impl EntrySource for Replica<'_> {
    fn name(&self) -> String {
        format!("replica {}", self.replica)
    }

    fn ask(&self, request: wire::EntriesRequest) -> BoxFuture<'_, Result<entries::Answer, Status>> {
        let range = IndexRange { from: request.from, to: request.to };
        Box::pin(self.repair.ask(self.replica, self.peer, range, request.next))
    }
}

impl From<adoption::Error> for Error {
    fn from(error: adoption::Error) -> Self {
        match error {
            adoption::Error::Waiting(cause) => Self::Waiting(cause),
            adoption::Error::Io(error) => Self::Io(error),
        }
    }
}

impl Others {
    fn add(&mut self, membership: &Membership) {
        self.nodes.extend(membership.nodes().map(|(&id, peer)| (id, peer.clone())));
        self.voters.extend(membership.voter_ids());
    }
}
