//! From one life of the cluster to the next on this node's disk: what was ordered, the plan, what the
//! groups stand on.
//!
//! ```text
//!  promotion   this node is to go over at its next start                 until it did
//!  plan        what its latest life began with                           kept for nodes that missed it
//!  rejoin      how far its replicas go with a later life that began      until it did
//!              without it
//!  left        what they held beyond that                                until an operator decided
//!  lineage     whose entries its groups go on from                       for ever
//!  incarnation the life that it lives in (life)                          written last
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_cluster::{
    Agreement, DbStates, Lineage, NodeLogs, Order, Over, Starting, follow, read_plan, rejoin,
    write_plan,
};
use dtm_storage::log::NodeLog;
use dtm_types::{ClusterId, Incarnation, NodeId};

use crate::life;

/// Why a node cannot go on from what is on its disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The groups.
    #[error(transparent)]
    Cluster(#[from] dtm_cluster::Error),
    /// A file of the data folder.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log is of another life of the cluster than the folder says.
    #[error(
        "the log is of incarnation {found} of the cluster, {path} says {own} (without the file it is 1): \
         put the file back that belongs to this log (docs/backup.md)"
    )]
    OtherLife {
        /// The file that says so.
        path: PathBuf,
        /// What the log says.
        found: Incarnation,
        /// What the file says.
        own: Incarnation,
    },
}

/// The files of a data folder.
pub struct Lives {
    data: PathBuf,
}

impl Lives {
    /// Names files; reads none.
    pub fn of(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    fn failed(&self, name: &str) -> impl Fn(io::Error) -> Error {
        let path = self.file(name);
        move |source| Error::File { path: path.clone(), source }
    }

    /// Where the plan is kept.
    pub fn plan(&self) -> PathBuf {
        self.file("plan")
    }

    /// The order that is still to be carried out by a node of this life.
    pub fn order(&self, own: Incarnation) -> Result<Option<Order>, Error> {
        let order = Order::read(&self.promotion()).map_err(self.failed("promotion"))?;
        Ok(order.filter(|order| order.next > own))
    }

    /// This node goes over at its next start. Durable when it returns.
    pub fn command(&self, order: &Order) -> io::Result<()> {
        order.write(&self.promotion())
    }

    /// Where the order is kept.
    pub fn promotion(&self) -> PathBuf {
        self.file("promotion")
    }

    /// Whose entries this node's groups go on from.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub fn lineage(&self) -> Result<Lineage, Error> {
        Lineage::read(&self.file("lineage")).map_err(self.failed("lineage"))
    }

    /// What the node held beyond what a later life has.
    pub fn left(&self) -> PathBuf {
        self.file("left")
    }

    /// Goes into a later life than this node's, by an agreement or by a plan, where it keeps one; the
    /// life that it lives in now. May be cut off at any point.
    pub async fn follow(
        &self,
        own: Incarnation,
        node: NodeId,
        log: &Arc<NodeLog>,
        states: &DbStates,
    ) -> Result<Incarnation, Error> {
        let agreement = Agreement::read(&self.file("rejoin")).map_err(self.failed("rejoin"))?;
        let is_next = |agreed: &Agreement| agreed.previous == own && agreed.next > own;
        if let Some(agreement) = agreement.filter(is_next) {
            return self.rejoin(&agreement, log, states).await;
        }
        let plan = read_plan(&self.plan()).map_err(self.failed("plan"))?;
        // A plan that ends another life than this node's is not for what it holds: it rejoins.
        let is_next = |next: u64, previous: u64| next > own.0 && previous == own.0;
        let plan = plan.filter(|plan| is_next(plan.incarnation, plan.previous));
        let Some(plan) = plan else { return Ok(own) };
        let followed = follow(&plan, node, log, states, &self.file("lineage")).await?;
        let next = Incarnation(plan.incarnation);
        life::write(&self.data, next).map_err(self.failed(life::FILE))?;
        let (members, left) = (followed.members.len(), followed.left.len());
        tracing::warn!(
            from = own.0,
            to = next.0,
            members,
            left,
            "this node went over to another life"
        );
        Ok(next)
    }

    /// At its next start this node compares what it holds with a later life, and runs no group before.
    /// Durable when it returns.
    pub fn note_over(&self, life: Incarnation) -> io::Result<()> {
        let (cluster, previous) = (ClusterId::default(), Incarnation(0));
        let asked = Agreement { cluster, next: life, previous, replicas: Vec::new() };
        asked.write(&self.file("rejoin"))
    }

    /// The later life that was noted and that this node did not compare itself with yet.
    pub fn over(&self, own: Incarnation) -> Result<Option<Incarnation>, Error> {
        let noted = Agreement::read(&self.file("rejoin")).map_err(self.failed("rejoin"))?;
        let noted = noted.filter(|noted| noted.previous == Incarnation(0) && noted.next > own);
        Ok(noted.map(|noted| noted.next))
    }

    async fn rejoin(
        &self,
        agreement: &Agreement,
        log: &Arc<NodeLog>,
        states: &DbStates,
    ) -> Result<Incarnation, Error> {
        let (own, next) = (agreement.previous, agreement.next);
        let (lineage, left) = (self.file("lineage"), self.left());
        let rejoined = match rejoin(agreement, log, states, &lineage, &left).await {
            Err(dtm_cluster::Error::Refused(cause)) => {
                tracing::warn!(%next, cause, "this node asks anew how far it goes with that life");
                std::fs::remove_file(self.file("rejoin")).map_err(self.failed("rejoin"))?;
                return Ok(own);
            }
            rejoined => rejoined?,
        };
        life::write(&self.data, next).map_err(self.failed(life::FILE))?;
        tracing::warn!(
            from = own.0,
            to = next.0,
            replicas = rejoined.replicas,
            entries = rejoined.entries,
            "this node goes on in a life that began without it; entries are what it leaves behind"
        );
        Ok(next)
    }

    /// The logs of this node's replicas in a life. A log of a life that is neither this one nor one
    /// that it goes on from is not this node's to go on with: its replicas would not be found, and the
    /// node would begin as one that lost them.
    pub fn logs(&self, own: Incarnation, log: &Arc<NodeLog>) -> Result<NodeLogs, Error> {
        let lineage = self.lineage()?;
        let is_known = |life: Incarnation| {
            life == own || (life < own && lineage.iter().any(|of| of.incarnation == life))
        };
        let mut lives = log.groups().into_iter().map(|of| Incarnation(of.key.incarnation));
        match lives.find(|life| !is_known(*life)) {
            Some(found) => Err(Error::OtherLife { path: self.file(life::FILE), found, own }),
            None => Ok(NodeLogs::new(Arc::clone(log), own).with_lineage(lineage)),
        }
    }

    /// Takes part in going over; returns when this node is to be started again.
    pub async fn go_over(&self, starting: &Starting, order: Order) -> Result<(), Error> {
        tracing::warn!(
            next = order.next.0,
            site = order.site,
            "this node goes over to the next life"
        );
        let path = self.plan();
        let keep = Arc::new(move |plan: &_| write_plan(&path, plan));
        match starting.go_over(order, keep).await? {
            Over::Planned => Ok(()),
            Over::Without(life) => self.agree(starting, life).await,
        }
    }

    /// Finds how far this node's replicas go with a later life; returns when it is to be started again.
    pub async fn agree(&self, starting: &Starting, life: Incarnation) -> Result<(), Error> {
        tracing::warn!(%life, "the cluster goes on in a later life: this node compares what it holds");
        let agreement = starting.agree(life).await?;
        agreement.write(&self.file("rejoin")).map_err(self.failed("rejoin"))
    }
}
