//! What goes on beside the doors while a node runs. A part that ends or panics stops the node, since
//! what it guards would rot unseen; the founding of a cluster alone ends by itself, when it is done
//! or has been tried often enough.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::found;
use crate::pki::Genesis;
use crate::services::{Shared, follow_leaders, keep_cluster_key, watch_rights};

/// The parts, running. Dropped, they end.
pub(super) struct Beside {
    stamping: AbortOnDropHandle<()>,
    following: AbortOnDropHandle<()>,
    watching: AbortOnDropHandle<()>,
    keeping: AbortOnDropHandle<()>,
    #[allow(dead_code, reason = "held for its Drop: ends with the others")]
    founding: Option<AbortOnDropHandle<()>>,
}

impl Beside {
    /// Starts them beside `stamping`, which runs since this start was admitted. On the first node
    /// of a cluster what `genesis` says is founded too.
    pub(super) fn start(
        shared: &Arc<Shared>,
        stamping: AbortOnDropHandle<()>,
        genesis: Option<Genesis>,
    ) -> Self {
        let following = tokio::spawn(follow_leaders(Arc::clone(shared)));
        let watching = tokio::spawn(watch_rights(Arc::clone(shared)));
        let keeping = tokio::spawn(keep_cluster_key(Arc::clone(shared)));
        let founding =
            genesis.map(|genesis| tokio::spawn(found_cluster(Arc::clone(shared), genesis)));
        Self {
            stamping,
            following: AbortOnDropHandle::new(following),
            watching: AbortOnDropHandle::new(watching),
            keeping: AbortOnDropHandle::new(keeping),
            founding: founding.map(AbortOnDropHandle::new),
        }
    }

    /// Name of the first part that ended. To be waited for once.
    pub(super) async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.stamping => "the stamp of this start",
            _ = &mut self.following => "the watch over leaders",
            _ = &mut self.watching => "the watch over rights",
            _ = &mut self.keeping => "the watch over the cluster key",
        }
    }

    /// At a planned stop: sessions are told to leave in its order, and no stamp is written any more.
    /// Rights are watched to the end.
    pub(super) fn leave(&self) {
        self.stamping.abort();
        self.following.abort();
    }
}

async fn found_cluster(shared: Arc<Shared>, genesis: Genesis) {
    // Each try waits for a leader by itself; a node that is told to stop ends this with the process.
    for _ in 0..20 {
        match found::found(&shared, &genesis).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "founding is not complete, trying again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::error!("the cluster could not be founded; restart the node to try again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_told_by_name() {
        let endless = || AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let mut beside = Beside {
            stamping: endless(),
            following: endless(),
            watching: AbortOnDropHandle::new(tokio::spawn(async { panic!("a defect") })),
            keeping: endless(),
            founding: None,
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), beside.ended()).await;
        assert_eq!(ended, Ok("the watch over rights"));
    }

    #[tokio::test]
    async fn nothing_of_it_outlives_the_node() {
        let part = || {
            let (held, gone) = tokio::sync::oneshot::channel::<()>();
            let holds = async move {
                let _held = held;
                std::future::pending::<()>().await;
            };
            (AbortOnDropHandle::new(tokio::spawn(holds)), gone)
        };
        let [stamping, following, watching, keeping, founding] = [(); 5].map(|()| part());
        drop(Beside {
            stamping: stamping.0,
            following: following.0,
            watching: watching.0,
            keeping: keeping.0,
            founding: Some(founding.0),
        });
        for gone in [stamping.1, following.1, watching.1, keeping.1, founding.1] {
            let ended = tokio::time::timeout(Duration::from_secs(10), gone).await;
            assert!(ended.expect("in time").is_err(), "its task was dropped");
        }
    }
}
