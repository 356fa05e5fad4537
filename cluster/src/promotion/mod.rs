//! The replicas of a standby go over to the next life of the cluster, when the site that acknowledged
//! until now is gone. openraft has no forced reconfiguration; so the groups end, and begin anew.
//!
//! ```text
//!  decided elsewhere: life n is over, this site begins n + 1, node C draws the plan up
//!  every node of the site starts without its groups
//!    C ──plan of n + 1──▶ each: whoever keeps one already has the only one
//!    C ──stand──▶ each: which replicas, which last entries            a majority of the site's nodes
//!    meta first, then the groups that its rows tell of, with the replicas that they give to the site
//!      C: a group ends at the highest last entry among them           a majority of those replicas
//!      C ──level──▶ each: fetch up to there, apply everything         same ledger at the same index
//!    C: the plan (members, what opens the life), tried on its own rows, and on its disk before anybody
//!       else has it
//!    each ──plan of n + 1──▶ the others of the site, until one keeps it; on its own disk
//!  each, at its next start and before anything else runs: follow the plan
//!    old replica:  nothing above the end, entries are records         (survivor)
//!    new replica:  vote, P + 1 membership, P + 2 genesis …, rows       (crate::restoring)
//!    lineage:      entries 1 ‥ P of the group are the old replica's
//!  then it starts in life n + 1, and the groups elect
//! ```
//!
//! One node draws up the plan of a life, and keeps it before anybody else has it: there are no two of
//! one life. Every step may be repeated; where C is lost before a plan is out, the decision for n + 2
//! names another. What a group held above its end, on a replica that was away, never comes back into
//! it: its new replicas have new ids.

mod coordinate;
mod draw;
pub(crate) mod file;
mod follow;
mod holdings;
mod kept;
mod survivor;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::command::NodeRow;
use dtm_types::{GroupId, Incarnation, NodeId, chain};
use futures::future::BoxFuture;
use tonic::Status;

use crate::adoption::EntrySource;
use crate::applied::Head;
use crate::convert;
use crate::error::Error;
use crate::lifecycle::Starting;
use crate::log_store::ReplicaLog;
use crate::network::{Links, answered, entries};
use crate::roots::head_to_wire;
use crate::runtime::off_thread;
use crate::type_config::{PeerNode, peer_of};

pub use file::{read_plan, write_plan};
pub use follow::{Followed, follow};
pub(crate) use kept::Kept;
use survivor::Survivor;
pub use waiting::Waiting;

/// What was decided: a life ends, this node's site begins the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The life that begins.
    pub next: Incarnation,
    /// The site that becomes primary.
    pub site: String,
    /// The node that draws the plan up.
    pub coordinator: NodeId,
    /// For the first leaf of each ledger of the new life.
    pub cause: String,
    /// When, for what opens the life; microseconds.
    pub stamp_us: i64,
    /// Two people accepted it without the places that decide: the life begins without a standby, and
    /// nobody's right is asked of them.
    pub is_split: bool,
}

/// Keeps the plan of a life. Durable when it returns.
pub type KeepPlan = Arc<dyn Fn(&wire::PromotionPlan) -> std::io::Result<()> + Send + Sync>;

/// Between two looks at what the others of the site say.
const PAUSE: Duration = Duration::from_millis(500);
/// A node answers within that.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A node that takes part.
pub(crate) struct Promotion {
    order: Order,
    survivors: BTreeMap<GroupId, Arc<Survivor>>,
    version_max: u8,
    links: Arc<Links>,
    own: PeerNode,
    keep: KeepPlan,
    kept: Arc<Kept>,
    /// Nodes of another life, of which it was told.
    strangers: parking_lot::Mutex<BTreeSet<NodeId>>,
    /// One levelling at a time.
    levelling: tokio::sync::Mutex<()>,
}

/// How going over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// This node keeps the plan, which names it: it is to be started anew, with [`follow`] first.
    Planned,
    /// The site went over without this node, to this life or a later one: it rejoins.
    Without(Incarnation),
}

impl Starting {
    /// Takes part in going over to the next life. No group runs meanwhile, nothing is voted. Waits
    /// without a bound for the other nodes of the site: the caller may drop it.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn go_over(&self, order: Order, keep: KeepPlan) -> Result<Over, Error> {
        let promotion = Promotion::open(self, order, keep)?;
        self.registry().set_promotion(Arc::clone(&promotion));
        let next = promotion.order.next;
        let planned = async {
            if promotion.order.coordinator == promotion.own.node {
                return Arc::clone(&promotion).coordinate().await;
            }
            promotion.keep_plan(promotion.plan_of_site().await?).await
        };
        tokio::select! {
            planned = planned => planned.map(|()| Over::Planned),
            life = async {
                loop {
                    tokio::time::sleep(PAUSE).await;
                    // Of the life that was ordered the plan says whether this node has a part in it.
                    let later = self.later_life().await.filter(|life| *life >= next);
                    match later {
                        Some(life) if life > next || !promotion.is_planned().await => return life,
                        _ => {}
                    }
                }
            } => Ok(Over::Without(life)),
        }
    }
}

impl Promotion {
    fn open(starting: &Starting, order: Order, keep: KeepPlan) -> Result<Arc<Self>, Error> {
        let (config, deps) = (starting.config(), starting.deps());
        let mut survivors = BTreeMap::new();
        // A group has one replica here; where an older one was left over, the latest counts.
        for key in deps.logs.replicas() {
            let opened = Survivor::open(&*deps.logs, &*deps.states, key, config.version_max)?;
            survivors.insert(key.0, Arc::new(opened));
        }
        let promotion = Arc::new(Self {
            order,
            survivors,
            version_max: config.version_max,
            links: Arc::clone(starting.registry().links()),
            own: config.node.clone(),
            keep,
            kept: Arc::clone(starting.registry().kept()),
            strangers: parking_lot::Mutex::default(),
            levelling: tokio::sync::Mutex::new(()),
        });
        promotion.links.learn(&promotion.rows()?);
        Ok(promotion)
    }

    /// The nodes of the cluster, by meta's rows here.
    fn rows(&self) -> Result<Vec<NodeRow>, Error> {
        reads::nodes(self.meta()?).map_err(|error| Error::Refused(chain(&error)))
    }

    /// Those of the site that begins the next life.
    fn nodes(&self) -> Result<Vec<PeerNode>, Error> {
        let rows = self.rows()?;
        let rows = rows.iter().filter(|row| !row.removed && row.site == self.order.site);
        Ok(rows.filter_map(peer_of).collect())
    }

    /// What another node of the site keeps.
    async fn plan_of_others(&self) -> Result<Option<wire::PromotionPlan>, Error> {
        let asked =
            self.nodes()?.into_iter().filter(|peer| peer.node != self.own.node).map(|peer| {
                let link = self.links.to(peer.node, &peer.peer_address);
                let incarnation = self.order.next.0;
                async move {
                    let request = link.guard().stamp(wire::PlanOfRequest { incarnation });
                    let mut client = link.control();
                    let what = || format!("the plan of life {incarnation} from {}", peer.node);
                    answered(ANSWER_WITHIN, what, client.plan_of(request)).await
                }
            });
        let answers = futures::future::join_all(asked).await;
        let kept = answers.into_iter().flatten().filter_map(|answer| answer.plan);
        Ok(kept.into_iter().find(|plan| plan.incarnation == self.order.next.0))
    }

    /// The log of a replica that does not run, for others that fetch from it.
    pub(crate) fn log_of(&self, target: &wire::Target) -> Option<(Arc<dyn ReplicaLog>, u64)> {
        let survivor = self.survivors.get(&GroupId(target.group))?;
        let is_it = survivor.replica.0 == target.replica;
        is_it.then(|| (Arc::clone(survivor.log()), survivor.applied().unwrap_or(0)))
    }

    fn same_life(&self, incarnation: u64) -> Result<(), Status> {
        if incarnation == self.order.next.0 {
            return Ok(());
        }
        let cause = format!("this node goes over to life {}", self.order.next);
        Err(Status::failed_precondition(cause))
    }

    pub(crate) async fn stand(
        &self,
        asked: &wire::StandRequest,
    ) -> Result<wire::StandResponse, Status> {
        self.same_life(asked.incarnation)?;
        let (mut replicas, life) = (Vec::new(), self.links.guard().own().0);
        for survivor in self.survivors.values() {
            let settled = survivor.settle(life).await;
            let here = Arc::clone(survivor);
            let stand = off_thread(move || here.stand()).await;
            let mut stand = stand.map_err(|error| Status::internal(error.to_string()))?;
            // One that is not in order holds up its own group alone.
            if let Err(error) = settled {
                stand.unfit = chain(&error);
            }
            replicas.push(stand);
        }
        let version_max = u32::from(self.version_max);
        Ok(wire::StandResponse { replicas, version_max, life })
    }

    pub(crate) async fn level(
        &self,
        asked: wire::LevelRequest,
    ) -> Result<wire::LevelResponse, Status> {
        self.same_life(asked.incarnation)?;
        let _one_at_a_time = self.levelling.lock().await;
        let mut groups = Vec::new();
        for end in asked.ends {
            let Some(survivor) = self.survivors.get(&GroupId(end.group)) else { continue };
            let target = wire::Target { group: end.group, replica: survivor.replica.0 };
            let of = wire::GroupHeads { target: Some(target), ..wire::GroupHeads::default() };
            // One group that cannot be brought to its end holds up no other.
            groups.push(match self.level_one(survivor, end).await {
                Ok(head) => wire::GroupHeads { heads: vec![head_to_wire(&head)], ..of },
                Err(error) => wire::GroupHeads { cause: chain(&error), ..of },
            });
        }
        Ok(wire::LevelResponse { groups })
    }

    async fn level_one(&self, survivor: &Survivor, end: wire::GroupEnd) -> Result<Head, Error> {
        let malformed = |what: &str| Error::Refused(format!("group {}: {what}", end.group));
        let last = end.last.ok_or_else(|| malformed("no end"))?;
        let last = convert::position(&convert::log_id_from_wire(last));
        let source = end.source.ok_or_else(|| malformed("no source"))?;
        let source = self.peer(end.group, source)?;
        let source = source.as_ref().map(|source| source as &dyn EntrySource);
        let others = end.others.into_iter().map(|member| self.peer(end.group, member));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let others: Vec<&dyn EntrySource> =
            others.iter().flatten().map(|other| other as &dyn EntrySource).collect();
        let head = survivor.level((source, &others), last, self.links.guard().own().0).await?;
        if survivor.group.is_meta() {
            // Nodes that came in last are heard from now on.
            self.links.learn(&self.rows()?);
        }
        Ok(head)
    }

    /// A replica that is asked for entries; nobody, where it is the one of this node.
    fn peer(&self, group: u32, member: wire::Member) -> Result<Option<Peer>, Error> {
        let target = wire::Target { group, replica: member.replica };
        let malformed = |what: String| Error::Refused(format!("group {group}: {what}"));
        let peer = member.node.ok_or_else(|| malformed("a member without a node".to_owned()))?;
        let peer = convert::node_from_wire(peer).map_err(|error| malformed(error.to_string()))?;
        let links = Arc::clone(&self.links);
        Ok((peer.node != self.own.node).then(|| Peer { links, peer, target }))
    }

    /// The plan that names this node, from whoever keeps it.
    async fn plan_of_site(&self) -> Result<wire::PromotionPlan, Error> {
        loop {
            if let Some(plan) = self.plan_of_others().await?.filter(|plan| self.is_in(plan)) {
                return Ok(plan);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a node of the site keeps a plan that names this node; where nobody says, it may.
    async fn is_planned(&self) -> bool {
        let kept = self.plan_of_others().await.ok().flatten();
        kept.is_none_or(|plan| self.is_in(&plan))
    }

    /// Whether a plan is for the replicas on this disk.
    fn is_in(&self, plan: &wire::PromotionPlan) -> bool {
        let own = &self.own.node.0[..];
        let mut members = plan.groups.iter().flat_map(|group| &group.members);
        let is_named = members.any(|of| of.node.as_ref().is_some_and(|node| node.node[..] == *own));
        is_named && plan.previous == self.links.guard().own().0
    }

    /// Given to others once it is durable here, not before.
    async fn keep_plan(&self, plan: wire::PromotionPlan) -> Result<(), Error> {
        let (keep, kept) = (Arc::clone(&self.keep), plan.clone());
        let written = tokio::task::spawn_blocking(move || keep(&kept)).await;
        let failed = |cause: String| Error::Refused(format!("the plan is not kept: {cause}"));
        let written = written.map_err(|error| failed(error.to_string()))?;
        written.map_err(|error| failed(error.to_string()))?;
        self.kept.set(plan);
        Ok(())
    }
}

/// A replica on another node of the site.
struct Peer {
    links: Arc<Links>,
    peer: PeerNode,
    target: wire::Target,
}

impl EntrySource for Peer {
    fn name(&self) -> String {
        format!("replica {} on node {}", self.target.replica, self.peer.node)
    }

    fn ask(&self, request: wire::EntriesRequest) -> BoxFuture<'_, Result<entries::Answer, Status>> {
        let request = wire::EntriesRequest { target: Some(self.target), ..request };
        Box::pin(async move {
            let link = self.links.to(self.peer.node, &self.peer.peer_address);
            entries::ask(&link, request).await
        })
    }
}
