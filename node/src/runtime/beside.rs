//! What goes on beside the doors while a node runs. A part that ends or panics stops the node, since
//! what it guards would rot unseen; the founding of a cluster alone ends by itself, when it is done
//! or has been tried often enough.

use std::sync::Arc;
use std::time::Duration;

use dtm_administration::keep_backups;
use dtm_doors::primacy;
use dtm_doors::{
    Shared, enter_lines, follow_leaders, keep_certificate, keep_cluster_key, keep_drained,
    keep_settings, watch_fences, watch_rights,
};
use tokio_util::task::AbortOnDropHandle;

use super::found;
use crate::pki::Genesis;

type Part = AbortOnDropHandle<()>;

/// The parts, running. Dropped, they end.
pub(super) struct Beside {
    /// With the name that is told when one ends.
    parts: Vec<(&'static str, Part)>,
    /// At a planned stop these end before the others.
    first: Vec<(&'static str, Part)>,
    #[allow(dead_code, reason = "held for its Drop: ends with the others")]
    founding: Option<Part>,
}

impl Beside {
    /// Starts them beside `stamping`, which runs since this start was admitted. On the first node
    /// of a cluster what `genesis` says is founded too.
    pub(super) fn start(shared: &Arc<Shared>, stamping: Part, genesis: Option<Genesis>) -> Self {
        let shared = || Arc::clone(shared);
        let founding = genesis.map(|genesis| part(found_cluster(shared(), genesis)));
        Self {
            first: vec![
                ("the stamp of this start", stamping),
                ("the watch over leaders", part(follow_leaders(shared()))),
            ],
            parts: vec![
                ("the watch over rights", part(watch_rights(shared()))),
                ("the watch over older sessions", part(watch_fences(shared()))),
                ("the watch over this node's row", part(keep_drained(shared()))),
                ("the watch over the settings", part(keep_settings(shared()))),
                ("the watch over the cluster key", part(keep_cluster_key(shared()))),
                ("the watch over this node's certificate", part(keep_certificate(shared()))),
                ("the schedule of backups", part(keep_backups(shared()))),
                ("the entries about lines", part(enter_lines(shared()))),
                ("the watch over which site is primary", part(primacy::watch(shared()))),
            ],
            founding,
        }
    }

    /// Name of the first part that ended. To be waited for once.
    pub(super) async fn ended(&mut self) -> &'static str {
        let all = self.first.iter_mut().chain(&mut self.parts);
        let ended = all.map(|(name, part)| {
            Box::pin(async move {
                let _ = part.await;
                *name
            })
        });
        futures::future::select_all(ended).await.0
    }

    /// At a planned stop: sessions are told to leave in its order, and no stamp is written any more.
    /// Rights are watched to the end.
    pub(super) fn leave(&self) {
        self.first.iter().for_each(|(_, part)| part.abort());
    }
}

fn part(work: impl Future<Output = ()> + Send + 'static) -> Part {
    AbortOnDropHandle::new(tokio::spawn(work))
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
        let endless = || part(std::future::pending());
        let mut beside = Beside {
            first: vec![("the first", endless())],
            parts: vec![("beside it", endless()), ("the one", part(async { panic!("a defect") }))],
            founding: None,
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), beside.ended()).await;
        assert_eq!(ended, Ok("the one"));
    }

    #[tokio::test]
    async fn nothing_of_it_outlives_the_node() {
        let holding = || {
            let (held, gone) = tokio::sync::oneshot::channel::<()>();
            let holds = async move {
                let _held = held;
                std::future::pending::<()>().await;
            };
            (part(holds), gone)
        };
        let [first, beside, founding] = [(); 3].map(|()| holding());
        drop(Beside {
            first: vec![("first", first.0)],
            parts: vec![("beside", beside.0)],
            founding: Some(founding.0),
        });
        for gone in [first.1, beside.1, founding.1] {
            let ended = tokio::time::timeout(Duration::from_secs(10), gone).await;
            assert!(ended.expect("in time").is_err(), "its task was dropped");
        }
    }
}
