//! The one node that draws the plan up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId, chain};
use tokio::time::Instant;

use super::holdings::{Due, Ends, Levelled, Stands, ends, is_damaged, of_life};
use super::{ANSWER_WITHIN, PAUSE, Promotion};
use crate::error::Error;
use crate::network::answered;
use crate::type_config::PeerNode;

/// With a majority of the site's nodes there, the others are waited for this long.
const GRACE: Duration = Duration::from_secs(10);
/// Bringing the replicas of one node to their ends; it is asked again then.
const LEVEL_WITHIN: Duration = Duration::from_secs(600);

impl Promotion {
    /// Draws the plan up and keeps it. Waits for a majority of the site's nodes, and of each group's
    /// replicas there.
    pub(super) async fn coordinate(self: Arc<Self>) -> Result<(), Error> {
        let (mut majority_since, mut told) = (None, String::new());
        loop {
            match self.attempt(&mut majority_since).await {
                Ok(plan) => return self.keep_plan(plan).await,
                Err(error) => {
                    let cause = chain(&error);
                    if cause != told {
                        tracing::warn!(
                            life = self.order.next.0,
                            cause,
                            "no plan of the next life yet"
                        );
                        told = cause;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        majority_since: &mut Option<Instant>,
    ) -> Result<wire::PromotionPlan, Error> {
        let nodes = self.nodes()?;
        // Where this node has drawn it up before and lost it, others may go by it already.
        let (kept, stands) = tokio::join!(self.plan_of_others(), self.stands(&nodes));
        if let Some(plan) = kept? {
            tracing::warn!(life = plan.incarnation, "the plan was drawn up before: it is kept");
            return Ok(plan);
        }
        are_there(&nodes, &stands, majority_since)?;
        // Meta first: its rows say of which groups the site has which replicas.
        let mut ends_of_all = ends(&stands, |_, target| GroupId(target.group).is_meta());
        let mut levelled = self.level_all(&stands, &ends_of_all).await?;
        if !levelled.members(GroupId::META).contains(&self.own.node) {
            let mut causes = levelled.causes(GroupId::META);
            let own = stands.get(&self.own.node).into_iter().flat_map(|(_, own)| own);
            let meta = own.filter(|of| of.target.is_some_and(|t| GroupId(t.group).is_meta()));
            causes.extend(meta.map(|meta| meta.unfit.as_str()));
            return Err(Error::Refused(format!("meta is not whole on this node; {causes}")));
        }
        let unread = |error| Error::Refused(format!("meta is not read: {error}"));
        let rows = reads::groups(self.meta()?).map_err(unread)?;
        let due = Due::read(&self.order.site, &rows, &self.nodes()?)?;
        due.are_here(&stands)?;
        let others = ends(&stands, |node, target| {
            !GroupId(target.group).is_meta() && due.knows(node, target)
        });
        levelled.extend(self.level_all(&stands, &others).await?);
        ends_of_all.extend(others);
        due.are_whole(&stands, &levelled)?;
        levelled.tell();
        let plan = self.draw(&ends_of_all, &levelled)?;
        self.try_out(&plan)?;
        Ok(plan)
    }

    /// What the nodes say that they hold; who does not answer is left out, and who lives in another
    /// life than this node: what it holds is of another history.
    async fn stands(&self, nodes: &[PeerNode]) -> Stands {
        let (incarnation, own) = (self.order.next.0, self.links.guard().own().0);
        let asked = nodes.iter().map(async |peer| {
            let request = wire::StandRequest { incarnation };
            let answer = if peer.node == self.own.node {
                self.stand(&request).await.ok()
            } else {
                let link = self.links.to(peer.node, &peer.peer_address);
                let (mut client, request) = (link.control(), link.guard().stamp(request));
                let what = || format!("what {} holds", peer.node);
                answered(ANSWER_WITHIN, what, client.stand(request)).await.ok()
            };
            Some((peer.clone(), answer?))
        });
        let answers = futures::future::join_all(asked).await.into_iter().flatten().collect();
        let (stands, strangers) = of_life(answers, own);
        for (node, life) in strangers {
            if self.strangers.lock().insert(node) {
                tracing::warn!(%node, life, own, "what it holds is of another life: it is left out");
            }
        }
        stands
    }

    /// Brings every replica to its end. One that cannot be is no member of its group. A source that is
    /// damaged is mended alone, and who holds what is asked anew then.
    async fn level_all(&self, stands: &Stands, ends: &Ends) -> Result<Levelled, Error> {
        let damaged: Ends = ends
            .iter()
            .filter(|(_, end)| is_damaged(stands, end))
            .map(|(group, end)| (*group, end.clone()))
            .collect();
        if damaged.is_empty() {
            return self.level_on(stands, ends, |_, _| true).await;
        }
        let is_source = |node: NodeId, end: &wire::GroupEnd| {
            let source = end.source.as_ref().and_then(|source| source.node.as_ref());
            source.is_some_and(|source| source.node == node.0[..])
        };
        let mended = self.level_on(stands, &damaged, is_source).await?;
        let names: Vec<String> = damaged.keys().map(ToString::to_string).collect();
        let causes: String = damaged.keys().map(|group| mended.causes(*group)).collect();
        Err(Error::Refused(format!(
            "groups {}: what holds the most is damaged, and mended first; {causes}",
            names.join(", ")
        )))
    }

    /// Asks the nodes for which `is_asked` holds.
    async fn level_on(
        &self,
        stands: &Stands,
        ends: &Ends,
        is_asked: impl Fn(NodeId, &wire::GroupEnd) -> bool,
    ) -> Result<Levelled, Error> {
        let asked = stands.values().map(|(peer, replicas)| {
            let fit = replicas.iter().filter(|replica| replica.unfit.is_empty());
            let fit: BTreeSet<u32> =
                fit.filter_map(|replica| Some(replica.target.as_ref()?.group)).collect();
            let ends = ends.values().filter(|end| fit.contains(&end.group));
            let ends: Vec<_> = ends.filter(|end| is_asked(peer.node, end)).cloned().collect();
            let groups: Vec<u32> = ends.iter().map(|end| end.group).collect();
            async move { (peer, groups, self.level_at(peer, ends).await) }
        });
        let mut levelled = Levelled::default();
        for (peer, groups, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => levelled.take(peer, answer.groups)?,
                Err(status) => groups
                    .into_iter()
                    .for_each(|group| levelled.refused(peer, GroupId(group), status.message())),
            }
        }
        Ok(levelled)
    }

    async fn level_at(
        &self,
        peer: &PeerNode,
        ends: Vec<wire::GroupEnd>,
    ) -> Result<wire::LevelResponse, tonic::Status> {
        if ends.is_empty() {
            return Ok(wire::LevelResponse::default());
        }
        let request = wire::LevelRequest { incarnation: self.order.next.0, ends };
        if peer.node == self.own.node {
            return self.level(request).await;
        }
        let link = self.links.to(peer.node, &peer.peer_address);
        let (mut client, request) = (link.control(), link.guard().stamp(request));
        let answer = tokio::time::timeout(LEVEL_WITHIN, client.level(request)).await;
        let late = |_| tonic::Status::deadline_exceeded("no answer in time");
        answer.map_err(late).flatten().map(tonic::Response::into_inner)
    }
}

/// A majority of the site's nodes, and the others too unless they are late.
fn are_there(
    nodes: &[PeerNode],
    stands: &Stands,
    majority_since: &mut Option<Instant>,
) -> Result<(), Error> {
    if stands.len() * 2 <= nodes.len() {
        *majority_since = None;
        let waiting = format!("{} of {} nodes of the site answer", stands.len(), nodes.len());
        return Err(Error::Refused(waiting));
    }
    let since = *majority_since.get_or_insert_with(Instant::now);
    if stands.len() < nodes.len() && since.elapsed() < GRACE {
        let waiting = format!("{} of {} nodes of the site are here", stands.len(), nodes.len());
        return Err(Error::Refused(waiting));
    }
    Ok(())
}
