//! A life that begins without the places, because two people accepted that two sites may acknowledge; and
//! that a node of the life before hears of it.
//!
//! ```text
//!  standby   order on disk ─▶ starts again, goes over ─▶ the life begins, with one site and no register
//!  primary   asks the nodes of the standby each few seconds in which life they are ─▶ a later one: ends,
//!            starts again, rejoins. Until it hears one of them it goes on acknowledging
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{ClusterNode, Order};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_register::Question;
use dtm_types::GroupId;
use dtm_types::command::LayoutRow;

use super::Primacy;
use super::watch::{keep_way, rejoin, seats_of};
use crate::Shared;
use crate::lives::Lives;

/// Between two looks at the life of the standby's nodes.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Who asked is answered before the node starts again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

impl Primacy {
    /// Whether a majority of the places of this layout answers: then they decide, and nobody else.
    pub async fn places_answer(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        layout: &LayoutRow,
    ) -> bool {
        // Without a ballot: places that only argue with each other are there.
        let seats = self.decision().map_or_else(|| seats_of(layout), |known| known.seats);
        let asked = seats.iter().map(async |seat| {
            let answer = self.ask(cluster, seat.node, &Question::Heard).await;
            answer.is_some_and(|answer| answer.acceptor == seat.acceptor)
        });
        let there = futures::future::join_all(asked).await.into_iter().filter(|is| *is).count();
        there > seats.len() / 2
    }

    /// This node goes over by an order that no place decided. The order is on disk when it returns; the
    /// node starts again in a moment.
    ///
    /// # Errors
    /// Of the disk: nothing was ordered then.
    pub fn goes_by_split(&self, order: &Order) -> io::Result<()> {
        Lives::of(&self.data).command(order)?;
        self.state.write().split_at = Some(self.now());
        Ok(())
    }

    /// Starts this node again, where it was ordered to go over.
    pub(super) async fn follow_split(&self, shared: &Shared) {
        let ordered = self.state.read().split_at;
        if ordered.is_none_or(|at| self.now().saturating_sub(at) < ANSWERED_WITHIN) {
            return;
        }
        keep_way(shared).await;
        tracing::warn!("this site goes over to a life that two people accepted: starting again");
        shared.goes_over.cancel();
    }
}

/// Looks whether the nodes of the standby began a later life without this one. Runs until it is dropped.
pub(super) async fn listen(shared: &Shared) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if shared.goes_over.is_cancelled() {
            continue;
        }
        let Ok(view) = shared.cluster.view(GroupId::META, Freshness::Local).await else { continue };
        // Whatever the layout is now: a standby that was cut off when it was detached does not know of it.
        let nodes = reads::nodes(view.state.as_ref()).unwrap_or_default();
        let others = nodes.iter().filter(|node| !node.removed && node.site != shared.row.site);
        let sites: BTreeSet<&str> = others.map(|node| node.site.as_str()).collect();
        for site in sites {
            if let Some(life) = shared.cluster.later_life_at(site).await
                && let Err(error) = rejoin(shared, life, site).await
            {
                tracing::warn!(%error, %life, "that the cluster goes on in a later life is not noted");
            }
        }
    }
}
