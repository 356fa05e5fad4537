//! While a node goes over: the decision in force may be another one by now, and who was to draw the
//! plan up may be gone.

use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{ClusterNode, Order, Starting};
use dtm_register::{Decision, Outcome, Proposer};
use dtm_types::command::LayoutRow;
use tokio::time::Instant;

use super::Primacy;
use super::raise::Raised;
use super::watch::{READ_WITHIN, order_of, seats_of};

const INTERVAL: Duration = Duration::from_secs(2);
/// Who draws the plan up is silent for so long before another node does.
const GONE_AFTER: Duration = Duration::from_secs(60);

impl Primacy {
    /// Returns when another order than this one is to be carried out. `layout`: of the life that ends,
    /// for its places.
    ///
    /// Where the coordinator is gone and a majority of the site waits for its plan, the first of those
    /// nodes decides the next life in its own name. The register takes one decision after another, and
    /// each names one coordinator: no life has two plans.
    pub async fn newer_order(
        self: &Arc<Self>,
        starting: &Starting,
        layout: &LayoutRow,
        order: &Order,
    ) -> Order {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let cluster = starting.node();
            let known = match self.in_force(cluster, layout).await {
                Some(known) => known,
                None => continue,
            };
            let is_newer = known.incarnation > order.next && known.primary == self.site;
            if let Some(newer) = order_of(&known).filter(|_| is_newer) {
                return newer;
            }
            let waiting = starting.waiting_for(order).await;
            if waiting.is_coordinator_there || order.coordinator == self.node {
                heard = Instant::now();
            }
            let is_mine = waiting.is_majority && waiting.first == Some(self.node);
            if heard.elapsed() < GONE_AFTER || !is_mine || known.incarnation != order.next {
                continue;
            }
            // Somebody acknowledges in that life: then its plan is out.
            if self.is_silent(cluster, &known).await.is_err() {
                continue;
            }
            if let Some(newer) = self.take_over(cluster, &known, order).await {
                return newer;
            }
        }
    }

    async fn in_force(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        layout: &LayoutRow,
    ) -> Option<Decision> {
        let read = match self.decision() {
            Some(known) => Proposer::read_from(self.proposer_id(), &known),
            None => Proposer::read(self.proposer_id(), &seats_of(layout)),
        };
        let Outcome::Chosen(decision) = self.drive(cluster, read, READ_WITHIN).await else {
            return None;
        };
        self.adopt(&decision);
        Some(decision)
    }

    async fn take_over(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        known: &Decision,
        order: &Order,
    ) -> Option<Order> {
        tracing::warn!(
            coordinator = %order.coordinator,
            life = order.next.0,
            "the node that was to draw the plan up is gone: this one does, of the life after it"
        );
        let reason = format!("{}; {} is gone", known.act.reason, order.coordinator);
        let act = self.own_act(reason);
        let next = |intent: &Decision| intent.begun_anew(intent.act.clone());
        match self.raise(cluster, known, act, next).await.ok()? {
            Raised::Done(decision) | Raised::Other(decision) => {
                order_of(&decision).filter(|newer| newer.next > order.next)
            }
            Raised::Not(_) | Raised::Unknown(_) => None,
        }
    }
}
