//! A promotion without the places: what two people signed, held against meta's rows here.
//!
//! ```text
//!  file ─▶ signed by two ─▶ every node of the standby: two different people in force by its own rows?
//!     the places silent?  this cluster, life, site; not past its time ─▶ the order, on disk ─▶ it goes over
//! ```
//! Nobody takes the right from the old primary: it goes on acknowledging until one of its nodes hears a
//! node of the life that begins. That is said wherever this is asked for.

use dtm_cluster::Order;
use dtm_doors::status::{internal, told};
use dtm_identity::{NotSigned, signed_by};
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::command::{LayoutKind, OperatorRow};
use dtm_types::split::SplitRequest;
use dtm_types::text::Told;
use dtm_types::{ClusterId, ErrorCode, Incarnation, NodeId};
use sha2::{Digest, Sha256};
use tonic::Status;

use super::AdminDoor;

impl AdminDoor {
    /// Has this node go over by what two people signed. The order is on disk when it returns.
    pub(super) async fn promote_by_split(&self, asked: &wire::SplitRequest) -> Result<(), Status> {
        let refuse = |key: &'static str| told(ErrorCode::InvalidArgument, &Told::new(key));
        let request = read(asked).ok_or_else(|| refuse("refused.split.words"))?;
        let now_us = self.0.clock.now_us();
        request.check(now_us).map_err(refuse)?;
        let (own, site) = (self.0.primacy.own(), &self.0.row.site);
        let known = self.0.primacy.decision().map_or(own, |decision| decision.incarnation);
        if request.cluster != self.0.cluster_id || request.site != *site || request.life != own {
            let what = Told::new("refused.split.other").with("site", site).with("life", own);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        if self.0.primacy.decision().is_some_and(|decision| !decision.is_attached()) {
            let what = Told::new("refused.promote.detached").with("site", site);
            return Err(told(ErrorCode::NotSupported, &what));
        }
        if known >= request.next {
            return Err(refuse("refused.split.lives"));
        }
        let meta = self.0.directory.meta(self.0.view()).await?;
        let state = meta.state.as_ref();
        let layout = reads::layout(state).map_err(internal)?;
        if layout.kind() != LayoutKind::Standby || layout.other != *site {
            let what = Told::new("refused.promote.not_standby").with("site", site);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        let node = reads::node(state, request.coordinator).map_err(internal)?;
        if node.is_none_or(|node| node.removed || node.site != *site) {
            return Err(refuse("refused.split.coordinator"));
        }
        let rows = reads::operators(state).map_err(internal)?;
        let signatures: Vec<(&[u8], &[u8])> =
            asked.signatures.iter().map(|of| (&of.certificate[..], &of.signature[..])).collect();
        let people = signed_by(&rows, &request, &signatures, now_us);
        let people = people.map_err(|wrong| match wrong {
            NotSigned::Signature => refuse("refused.split.signature"),
            NotSigned::People => {
                told(ErrorCode::ApprovalNeeded, &Told::new("refused.split.people"))
            }
        })?;
        if self.0.primacy.places_answer(&self.0.cluster, &layout).await {
            return Err(told(ErrorCode::NotSupported, &Told::new("refused.split.places")));
        }
        let order = order(&request, &people);
        tracing::warn!(
            people = people.iter().map(|who| &*who.name).collect::<Vec<_>>().join(", "),
            next = order.next.0,
            "administrative action: this site goes over without the places; the old primary may go on \
             acknowledging"
        );
        self.0.primacy.goes_by_split(&order).map_err(internal)
    }
}

fn read(asked: &wire::SplitRequest) -> Option<SplitRequest> {
    Some(SplitRequest {
        cluster: ClusterId::from_slice(&asked.cluster_id)?,
        life: Incarnation(asked.life),
        next: Incarnation(asked.next),
        site: asked.site.clone(),
        coordinator: NodeId::from_slice(&asked.coordinator)?,
        made_us: asked.made_us,
        expires_us: asked.expires_us,
        reason: asked.reason.clone(),
    })
}

/// What the first leaf of each ledger names: people by their ids, and a digest of what they signed.
fn order(request: &SplitRequest, people: &[OperatorRow]) -> Order {
    let ids = people.iter().map(|who| NodeId::from_slice(&who.id).unwrap_or_default().to_string());
    Order {
        next: request.next,
        site: request.site.clone(),
        coordinator: request.coordinator,
        cause: format!(
            "promotion of site {} without the places, accepting a split from life {}, by operators {}, \
             request {}: {}",
            request.site,
            request.life,
            ids.collect::<Vec<_>>().join(" and "),
            hex::encode(Sha256::digest(request.signed_text())),
            request.reason
        ),
        stamp_us: request.made_us,
        is_split: true,
    }
}
