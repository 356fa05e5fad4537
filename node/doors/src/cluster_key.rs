//! The cluster key of this node, held against the one that meta names.
//!
//! ```text
//!  dtm key rotate, on the node that was asked:
//!    made here ─▶ entry "begun" ─▶ handed to every node, and meta read again until none is new
//!              ─▶ entry "current" ─▶ every node told ─▶ data keys wrapped anew
//!
//!  each node, each second: does the ring wrap under the key that meta names?
//!    no ─▶ the row confirmed by its leader ─▶ held? else fetched from any node that holds it
//!       ─▶ current here
//! ```
//! Whoever joins before the last look at meta is handed the key; whoever joins later gets it with the
//! keyring, since every node that could give one holds it by then. What was away when a key became
//! current, or came with an old keyring, finds it by itself. A node that lacks the key of meta's row
//! opens nothing that is wrapped under it, and is not ready.
//!
//! Owner of the state: the [`Keyring`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{StateError, StateRead};
use dtm_proto::admin as wire;
use dtm_seal::{ClusterKey, Secret};
use dtm_storage::keys::{self, KeyInfo, Keyring};
use dtm_types::command::NodeRow;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, KeyId, chain};
use tonic::Status;

use super::cluster_status::CONFIRM_WITHIN;
use super::shared::Shared;
use super::status::{internal, told};

/// How often the ring is held against meta's row, as it is here.
const INTERVAL: Duration = Duration::from_secs(1);
/// The pause after what did not succeed.
const RETRY: Duration = Duration::from_secs(5);
/// Looks at the nodes during one rotation: more means that they join faster than they are handed
/// a key.
const PASSES_MAX: usize = 16;

/// Why the ring does not follow meta.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No node that answers holds it.
    #[error(
        "cluster key {key} is not held here yet; it is fetched from the other nodes (docs/errors/\
         key-missing.md)"
    )]
    Lacking {
        /// What meta names.
        key: KeyId,
    },
    /// The keyring.
    #[error("the keyring cannot take a cluster key")]
    Keyring(#[from] keys::Error),
    /// Rows of meta.
    #[error("the row of the cluster cannot be read")]
    Rows(#[from] StateError),
    /// The other nodes.
    #[error("the other nodes are not known: {}", .0.message())]
    Nodes(Status),
}

/// The other nodes, for cluster keys.
#[async_trait]
pub(crate) trait Others: Sync {
    /// Those that meta names, with everything committed before the call.
    async fn present(&self) -> Result<Vec<NodeRow>, Status>;

    /// Hands a key over; the node holds it on disk when this returns.
    async fn hand(&self, node: &NodeRow, key: &KeyInfo) -> Result<(), Status>;

    /// A key that the node holds, with the time of its making (Unix microseconds). `None` where it
    /// does not answer in time or lacks the key too.
    async fn fetch(&self, node: &NodeRow, key: KeyId) -> Option<(ClusterKey, i64)>;
}

/// Why this node is not ready, as far as the cluster key goes: the ring lacks what meta names.
pub(crate) fn lack(ring: &Keyring, meta: &dyn StateRead) -> Option<String> {
    match named(meta) {
        Ok(named) => {
            let key = named.filter(|key| info(ring, *key).is_none())?;
            Some(Error::Lacking { key }.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

/// The key that meta names; `None` where it has no row of the cluster yet.
fn named(meta: &dyn StateRead) -> Result<Option<KeyId>, StateError> {
    let row = reads::cluster(meta)?;
    Ok(row.and_then(|row| KeyId::from_slice(&row.cluster_key_id)))
}

fn info(ring: &Keyring, key: KeyId) -> Option<KeyInfo> {
    ring.list().into_iter().find(|info| info.id == key)
}

/// Brings the ring to the key that meta names: fetched where it is lacking, then current.
async fn follow(ring: &Keyring, named: KeyId, others: &dyn Others) -> Result<(), Error> {
    if ring.current() == named {
        return Ok(());
    }
    if info(ring, named).is_none() {
        let mut found = None;
        for node in others.present().await.map_err(Error::Nodes)? {
            found = others.fetch(&node, named).await.map(|found| (found, node.name));
            if found.is_some() {
                break;
            }
        }
        let ((key, created_us), from) = found.ok_or(Error::Lacking { key: named })?;
        ring.adopt(named, key, created_us)?;
        tracing::warn!(key = %named, %from, "a cluster key that was lacking here is fetched");
    }
    ring.make_current(named)?;
    tracing::info!(key = %named, "the cluster key that meta names is current here");
    Ok(())
}

/// Hands a key to every node; those that join meanwhile too.
async fn hand_out(others: &dyn Others, key: &KeyInfo) -> Result<(), Status> {
    let mut holders: BTreeSet<Bytes> = BTreeSet::new();
    for _ in 0..PASSES_MAX {
        let nodes = others.present().await?;
        let fresh: Vec<NodeRow> =
            nodes.into_iter().filter(|row| !holders.contains(&row.node)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for node in fresh {
            others.hand(&node, key).await?;
            holders.insert(node.node);
        }
    }
    Err(told(ErrorCode::Unavailable, &Told::new("refused.nodes_join")))
}

/// Keeps the ring at the key that meta names. Runs as long as the node.
pub async fn keep_cluster_key(shared: Arc<Shared>) {
    loop {
        let pause = match shared.follow_cluster_key().await {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the cluster key is not that of the cluster");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Shared {
    async fn follow_cluster_key(&self) -> Result<(), Error> {
        // Without meta there is nothing to hold it against.
        let Ok(meta) = self.directory.meta(self.view()).await else { return Ok(()) };
        if named(meta.state.as_ref())?.is_none_or(|named| named == self.keyring.current()) {
            return Ok(());
        }
        // A row that is behind must not bring a retired key back.
        let now = tokio::time::timeout(CONFIRM_WITHIN, self.directory.meta_now(self.view()));
        let Ok(Ok(meta)) = now.await else { return Ok(()) };
        match named(meta.state.as_ref())? {
            Some(named) => follow(&self.keyring, named, self).await,
            None => Ok(()),
        }
    }

    /// Hands a key of this node's ring to every node of the cluster.
    ///
    /// # Errors
    /// A node that does not take it: then it must not become current.
    pub async fn hand_out_cluster_key(&self, key: KeyId) -> Result<(), Status> {
        let other = || told(ErrorCode::VersionConflict, &Told::new("refused.rotation"));
        hand_out(self, &info(&self.keyring, key).ok_or_else(other)?).await
    }

    /// Wraps under the key that meta names from now on, here and on every node. One that does not
    /// answer follows meta by itself.
    ///
    /// # Errors
    /// This node's own keyring.
    pub async fn use_cluster_key(&self, key: KeyId) -> Result<(), Status> {
        self.keyring.make_current(key).map_err(internal)?;
        let request = wire::AdoptClusterKeyRequest {
            key_id: Bytes::copy_from_slice(&key.0),
            make_current: true,
            ..wire::AdoptClusterKeyRequest::default()
        };
        for node in self.present().await.unwrap_or_default() {
            if let Err(error) = self.peers.adopt_key(&node, request.clone()).await {
                tracing::warn!(%error, node = %node.name, "told of the new cluster key in vain");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Others for Shared {
    async fn present(&self) -> Result<Vec<NodeRow>, Status> {
        let meta = self.directory.meta_now(self.view()).await?;
        let mut rows = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        rows.retain(|row| !row.removed && row.node != self.node.0.as_slice());
        Ok(rows)
    }

    async fn hand(&self, node: &NodeRow, key: &KeyInfo) -> Result<(), Status> {
        let held = self.keyring.cluster_key(key.id).map_err(internal)?;
        let request = wire::AdoptClusterKeyRequest {
            key_id: Bytes::copy_from_slice(&key.id.0),
            key: Bytes::copy_from_slice(held.expose()),
            created_us: key.created_us,
            make_current: false,
        };
        self.peers.adopt_key(node, request).await
    }

    async fn fetch(&self, node: &NodeRow, key: KeyId) -> Option<(ClusterKey, i64)> {
        self.peers.cluster_key(node, key).await
    }
}

#[cfg(test)]
#[path = "cluster_key_test.rs"]
mod tests;
