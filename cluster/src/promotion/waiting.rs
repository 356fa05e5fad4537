//! Who of the site waits for the plan, where the node that is to draw it up may be gone.

use dtm_proto::cluster as wire;
use dtm_types::NodeId;

use super::{ANSWER_WITHIN, Order};
use crate::lifecycle::Starting;
use crate::network::answered;

/// Nodes of the site that take part now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The node that is to draw the plan up is one of them.
    pub is_coordinator_there: bool,
    /// They are more than half of the site's nodes.
    pub is_majority: bool,
    /// The first of them, by id.
    pub first: Option<NodeId>,
}

impl Starting {
    /// Who waits for the plan of this order; nobody before [`Starting::go_over`] runs.
    pub async fn waiting_for(&self, order: &Order) -> Waiting {
        let Ok(promotion) = self.registry().promotion() else { return Waiting::default() };
        let Ok(nodes) = promotion.nodes() else { return Waiting::default() };
        let (incarnation, own) = (order.next.0, promotion.own.node);
        let asked = nodes.iter().map(async |peer| {
            if peer.node == own {
                return Some(own);
            }
            let link = promotion.links.to(peer.node, &peer.peer_address);
            let request = link.guard().stamp(wire::StandRequest { incarnation });
            let (mut client, what) = (link.control(), || format!("what {} holds", peer.node));
            answered(ANSWER_WITHIN, what, client.stand(request)).await.ok().map(|_| peer.node)
        });
        let answers = futures::future::join_all(asked).await;
        let here: Vec<NodeId> = answers.into_iter().flatten().collect();
        Waiting {
            is_coordinator_there: here.contains(&order.coordinator),
            is_majority: here.len() * 2 > nodes.len(),
            first: here.into_iter().min(),
        }
    }
}
