//! A start that may not run its groups yet: the cluster goes over to another life, or did so without
//! this node.

use std::path::Path;
use std::sync::Arc;

use dtm_cluster::{DbStates, Order, Starting, StateProvider};
use dtm_doors::lives::{self, Lives};
use dtm_doors::primacy::{Primacy, has_register};
use dtm_machine::reads;
use dtm_machine::seams::{Clock, Entropy, StateError};
use dtm_types::command::LayoutRow;
use dtm_types::{GroupId, Incarnation, NodeId};
use tokio_util::sync::CancellationToken;

use super::admit::{Start, Started, counted, stamping, start};
use super::boot::Boot;
use super::run::{Ended, Error};
use crate::config::Config;

/// The disk of a node, as its start finds it.
pub(super) struct Found<'a> {
    pub(super) data: &'a Path,
    pub(super) lives: &'a Lives,
    pub(super) own: Incarnation,
    pub(super) last: Boot,
    pub(super) states: &'a DbStates,
    pub(super) clock: &'a Arc<dyn Clock>,
}

/// Starts the groups; where they may not run, how the run ended.
pub(super) async fn begin(
    starting: Starting,
    found: Found<'_>,
    primacy: &Arc<Primacy>,
    shutdown: &CancellationToken,
) -> Result<Result<Started, Ended>, Error> {
    let Found { data, lives, own, last, states, clock } = found;
    if let Some(order) = lives.order(own)? {
        // A start that peers hear of is counted: the next one would be taken for an old copy.
        let _stamping = stamping(counted(last, data, clock)?, data, clock);
        let layout = layout(states).unwrap_or_default();
        let going_over = going_over(lives, &starting, (primacy, &layout), order);
        return again(&starting, going_over, shutdown).await.map(Err);
    }
    if let Some(life) = lives.over(own)? {
        let _stamping = stamping(counted(last, data, clock)?, data, clock);
        return again(&starting, lives.agree(&starting, life), shutdown).await.map(Err);
    }
    match start(starting, last, data, clock, shutdown).await? {
        Start::Runs(started) => Ok(Ok(started)),
        Start::Stopped => Ok(Err(Ended::Stopped)),
        Start::Over(starting, life) => {
            again(&starting, lives.agree(&starting, life), shutdown).await.map(Err)
        }
    }
}

/// Takes part in going over, until it is done or another decision is to be followed.
async fn going_over(
    lives: &Lives,
    starting: &Starting,
    (primacy, layout): (&Arc<Primacy>, &LayoutRow),
    order: Order,
) -> Result<(), lives::Error> {
    let newer = primacy.newer_order(starting, layout, &order);
    tokio::select! {
        over = lives.go_over(starting, order.clone()) => over,
        newer = newer => {
            let kept = lives.command(&newer);
            kept.map_err(|source| lives::Error::File { path: lives.promotion(), source })
        }
    }
}

/// No group runs until this node knows how it goes on in the next life, at its next start.
async fn again(
    starting: &Starting,
    preparing: impl Future<Output = Result<(), lives::Error>>,
    shutdown: &CancellationToken,
) -> Result<Ended, Error> {
    let over = shutdown.run_until_cancelled(preparing).await;
    starting.stop().await;
    Ok(over.transpose()?.map_or(Ended::Stopped, |()| Ended::Again))
}

/// What this node knows of which site is primary. Rows that cannot be read name no layout: then the
/// right is needed until they can.
pub(super) fn primacy(
    data: &Path,
    config: &Config,
    node: NodeId,
    own: Incarnation,
    states: &DbStates,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Arc<Primacy>, Error> {
    // Rows may be older than what was acknowledged, and a node that rejoined has none: who took part in a
    // register, or in a change of lives, asks it first.
    let took_part = ["register", "primacy", "lineage"].iter().any(|of| data.join(of).exists());
    let is_needed = layout(states).map_or(true, |layout| took_part || has_register(&layout));
    let seams = (Arc::clone(clock), Arc::clone(entropy));
    Ok(Primacy::open(data, (node, &config.node.site), own, is_needed, seams)?)
}

/// The layout, as the rows here tell.
fn layout(states: &DbStates) -> Result<LayoutRow, StateError> {
    StateProvider::open(states, GroupId::META).and_then(|meta| reads::layout(&*meta))
}
