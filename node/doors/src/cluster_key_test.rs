//! The cluster key of a node against meta's, with other nodes in memory.

use std::collections::HashMap;

use dtm_machine::keys::table;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
use dtm_storage::keys::Master;
use dtm_storage::vfs::RealVfs;
use dtm_types::GroupId;
use dtm_types::command::ClusterRow;
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;
use tonic::Code;

use super::*;
use crate::system::OsEntropy;

const NEW: KeyId = KeyId([2; 16]);

/// Keys by node; none where it does not answer.
type Rings = Vec<(u8, Option<HashMap<KeyId, u8>>)>;

/// Other nodes by name, and the keys that each holds; those without keys do not answer.
#[derive(Default)]
struct Nodes {
    rings: Mutex<Rings>,
    /// Who joins at each look.
    joining: Mutex<Vec<u8>>,
    looks: Mutex<usize>,
    handed: Mutex<Vec<u8>>,
    asked: Mutex<Vec<u8>>,
}

impl Nodes {
    fn of(rings: Rings) -> Self {
        Self { rings: Mutex::new(rings), ..Self::default() }
    }

    fn joining(mut self, nodes: impl IntoIterator<Item = u8>) -> Self {
        self.joining = Mutex::new(nodes.into_iter().collect());
        self
    }
}

#[async_trait]
impl Others for Nodes {
    async fn present(&self) -> Result<Vec<NodeRow>, Status> {
        *self.looks.lock() += 1;
        let row =
            |(node, _): &(u8, _)| NodeRow { node: vec![*node; 16].into(), ..Default::default() };
        let rows = self.rings.lock().iter().map(row).collect();
        // Right behind the look: it does not show the joiner.
        if let Some(node) = self.joining.lock().pop() {
            self.rings.lock().push((node, Some(HashMap::new())));
        }
        Ok(rows)
    }

    async fn hand(&self, node: &NodeRow, key: &KeyInfo) -> Result<(), Status> {
        let mut rings = self.rings.lock();
        let ring = rings.iter_mut().find(|(name, _)| *name == node.node[0]).expect("present");
        let ring = ring.1.as_mut().ok_or_else(|| Status::unavailable("silent"))?;
        ring.insert(key.id, 9);
        self.handed.lock().push(node.node[0]);
        Ok(())
    }

    async fn fetch(&self, node: &NodeRow, key: KeyId) -> Option<(ClusterKey, i64)> {
        self.asked.lock().push(node.node[0]);
        let rings = self.rings.lock();
        let ring = rings.iter().find(|(name, _)| *name == node.node[0]).expect("present");
        let byte = *ring.1.as_ref()?.get(&key)?;
        Some((ClusterKey::from_bytes(&mut [byte; 32]), 77))
    }
}

fn empty() -> Option<HashMap<KeyId, u8>> {
    Some(HashMap::new())
}

fn ring() -> (TempDir, Keyring) {
    let folder = tempfile::tempdir().expect("scratch folder");
    let master = Master::create(&folder.path().join("master"), &OsEntropy).expect("written");
    let (vfs, entropy) = (Arc::new(RealVfs), Arc::new(OsEntropy));
    let ring = Keyring::create(vfs, &folder.path().join("ring"), master, entropy, 1);
    (folder, ring.expect("written"))
}

fn key() -> KeyInfo {
    KeyInfo { id: NEW, created_us: 77, current: false }
}

// holds: LIVE-1
#[tokio::test]
async fn a_node_that_joins_while_a_key_is_handed_out_is_handed_it_too() {
    let nodes = Nodes::of(vec![(1, empty()), (2, empty())]).joining([5, 4]);
    hand_out(&nodes, &key()).await.expect("everybody takes it");
    assert_eq!(*nodes.handed.lock(), [1, 2, 4, 5], "each once");
    assert_eq!(*nodes.looks.lock(), 4, "until none was new");
}

#[tokio::test]
async fn a_key_that_a_node_does_not_take_is_not_everywhere() {
    let nodes = Nodes::of(vec![(1, empty()), (2, None)]);
    let refused = hand_out(&nodes, &key()).await.expect_err("one is silent");
    assert_eq!(refused.code(), Code::Unavailable);
    let crowd = Nodes::of(vec![(1, empty())]).joining(10..200);
    let refused = hand_out(&crowd, &key()).await.expect_err("it has an end");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(*crowd.looks.lock(), PASSES_MAX);
}

// holds: LIVE-1
#[tokio::test]
async fn a_key_that_is_lacking_is_fetched_and_becomes_current() {
    let (_folder, ring) = ring();
    let first = ring.current();
    let holder = HashMap::from([(NEW, 7)]);
    let nodes = Nodes::of(vec![(1, None), (2, empty()), (3, Some(holder)), (4, empty())]);
    follow(&ring, NEW, &nodes).await.expect("one holds it");
    assert_eq!(*nodes.asked.lock(), [1, 2, 3]);
    assert_eq!((ring.current(), ring.list().len()), (NEW, 2));
    assert_eq!(ring.list()[1].created_us, 77);
    assert_eq!(ring.cluster_key(NEW).expect("held").expose(), &[7; 32]);
    ring.cluster_key(first).expect("what is wrapped under the former one still opens");
    follow(&ring, NEW, &nodes).await.expect("in line");
    // Held already: nobody is asked.
    follow(&ring, first, &nodes).await.expect("held");
    assert_eq!((ring.current(), nodes.asked.lock().len()), (first, 3));
}

#[tokio::test]
async fn a_key_that_nobody_holds_leaves_the_ring_as_it_is() {
    let (_folder, ring) = ring();
    let first = ring.current();
    let nodes = Nodes::of(vec![(1, None), (2, empty())]);
    let error = follow(&ring, NEW, &nodes).await.expect_err("nobody holds it");
    assert!(matches!(error, Error::Lacking { key: NEW }), "{error}");
    assert_eq!((ring.current(), ring.list().len()), (first, 1));
}

#[test]
fn a_node_without_the_key_that_meta_names_is_not_ready_and_says_which() {
    let (_folder, ring) = ring();
    let meta = MemoryStateStore::new(GroupId::META);
    assert_eq!(lack(&ring, &meta), None, "no cluster yet");
    let names = |key: KeyId| {
        let row = ClusterRow { cluster_key_id: key.0.to_vec().into(), ..ClusterRow::default() };
        let mut batch = StateBatch::default();
        batch.put([table::CLUSTER], row.encode_to_vec());
        meta.write(&batch).expect("memory");
    };
    names(ring.current());
    assert_eq!(lack(&ring, &meta), None);
    names(NEW);
    let told = lack(&ring, &meta).expect("not ready");
    assert!(told.contains(&NEW.to_string()), "{told}");
    ring.adopt(NEW, ClusterKey::from_bytes(&mut [1; 32]), 5).expect("written");
    assert_eq!(lack(&ring, &meta), None, "held, and current within a second");
}
