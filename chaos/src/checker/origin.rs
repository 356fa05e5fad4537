//! LED-1: every head of an origin is consistent with every later one, and its leaves say what the
//! batches are.
//!
//! The tree is computed anew from the leaves with SHA-256 alone (RFC 6962, section 2.1), by other
//! code than the product's: a mistake there is found here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dtm_ledger::Frontier;
use dtm_machine::keys::{self, table};
use dtm_types::GroupId;
use dtm_types::command::command::Op;
use dtm_types::format::{EntryBody, HeaderA, HeaderB, Leaf, LeafKind, Place};
use prost::Message;
use sha2::{Digest, Sha256};

use super::breach::Breach;
use super::image::{Image, PlacedBatch};

type Hash = [u8; 32];

const INLINE: u8 = 0;
const POINTER: u8 = 1;

/// Heads that were seen of each group's origin; judges each ledger against all of them.
#[derive(Debug, Default)]
pub struct Origins {
    heads: BTreeMap<(GroupId, u64), (Hash, String)>,
    breaches: Vec<Breach>,
}

impl Origins {
    /// A head that somebody was shown: an ack's, a checkpoint's, a status page's.
    pub fn head(&mut self, group: GroupId, node: &str, size: u64, root: Hash) {
        let known = self.heads.entry((group, size)).or_insert_with(|| (root, node.to_owned()));
        if known.0 != root {
            let (seen, node) = (known.1.clone(), node.to_owned());
            self.breaches.push(Breach::Forked { group, size, seen, node });
        }
    }

    /// Judges a ledger: its own rows, its batches, and every head seen so far. Its head counts as
    /// seen from now on.
    pub fn ledger(&mut self, image: &Image) {
        let (group, node) = (image.group, image.node.clone());
        let ledger = |cause: String| Breach::Ledger { group, node: node.clone(), cause };
        let leaves = match leaves(image) {
            Ok(leaves) => leaves,
            Err(cause) => {
                self.breaches.push(ledger(cause));
                return;
            }
        };
        self.breaches.extend(batches(image, &leaves).into_iter().map(ledger));
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(&leaf.bytes)).collect();
        let head = image.head();
        match Frontier::decode(&head.frontier) {
            Ok(edge) if edge.size() == head.ledger_size && edge.root() == root(&hashes) => {}
            _ if head.frontier.is_empty() && hashes.is_empty() => {}
            _ => self.breaches.push(ledger("the head is not the root of the leaves".to_owned())),
        }
        let seen = self.heads.range((group, 0)..=(group, u64::MAX));
        for ((_, size), (known, at)) in seen {
            let prefix = usize::try_from(*size).ok().and_then(|size| hashes.get(..size));
            // A replica that is behind has not got there yet; one that is current has.
            let is_fine = prefix.map_or(!image.is_current, |prefix| root(prefix) == *known);
            if !is_fine {
                let (seen, node) = (at.clone(), node.clone());
                self.breaches.push(Breach::Forked { group, size: *size, seen, node });
            }
        }
        self.head(group, &image.node, hashes.len() as u64, root(&hashes));
    }

    /// What was found so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}

struct LeafRow {
    bytes: Vec<u8>,
    /// The batch that it is rebuilt from.
    batch: Option<(u64, u32)>,
}

/// Every leaf in order, as it was hashed; each against its stored hash.
fn leaves(image: &Image) -> Result<Vec<LeafRow>, String> {
    let size = image.head().ledger_size;
    let mut leaves = Vec::new();
    for (index, (key, row)) in (0..).zip(image.table(table::LEAF)) {
        if key != u64::to_be_bytes(index) {
            return Err(format!("leaf {index} is missing"));
        }
        let leaf = leaf(image, row).map_err(|cause| format!("leaf {index}: {cause}"))?;
        let stored = image.rows.get(&keys::tile(0, index)[..]);
        if stored.is_none_or(|stored| stored[..] != leaf_hash(&leaf.bytes)) {
            return Err(format!("leaf {index} is not what was hashed"));
        }
        leaves.push(leaf);
    }
    if leaves.len() as u64 != size {
        return Err(format!("{} leaves where the head says {size}", leaves.len()));
    }
    Ok(leaves)
}

fn leaf(image: &Image, row: &Bytes) -> Result<LeafRow, String> {
    match row.split_first() {
        Some((&INLINE, bytes)) => {
            let leaf = Leaf::decode(bytes).map_err(|error| error.to_string())?;
            if leaf.version == 0 || leaf.kind() == LeafKind::Unspecified {
                return Err("neither version nor kind".to_owned());
            }
            Ok(LeafRow { bytes: bytes.to_vec(), batch: None })
        }
        Some((&POINTER, at)) if at.len() == 12 => {
            let (index, ordinal) = at.split_at(8);
            let index = u64::from_be_bytes(index.try_into().expect("8 bytes"));
            let ordinal = u32::from_be_bytes(ordinal.try_into().expect("4 bytes"));
            let bytes = of_batch(image, index, ordinal)?;
            Ok(LeafRow { bytes, batch: Some((index, ordinal)) })
        }
        _ => Err("the row is neither a leaf nor a pointer".to_owned()),
    }
}

/// The leaf of a batch, from its place and its command.
fn of_batch(image: &Image, index: u64, ordinal: u32) -> Result<Vec<u8>, String> {
    let row = image.rows.get(&keys::place(index, ordinal)[..]).ok_or("its batch has no place")?;
    let place = Place::decode(row.clone()).map_err(|error| error.to_string())?;
    let bundle = image.bundle(index).ok_or_else(|| format!("bundle {index} is not readable"))?;
    let command = bundle.commands.into_iter().nth(ordinal as usize).ok_or("no such command")?;
    let Some(Op::AppendBatch(append)) = command.op else {
        return Err("the command is not a batch".to_owned());
    };
    let body = append.body.ok_or("the batch has no body")?;
    sealed_as_said(&body)?;
    let leaf = Leaf {
        version: 1,
        kind: LeafKind::Batch.into(),
        group_time_us: place.group_time_us,
        actor_id: command.actor.map(|actor| actor.id).unwrap_or_default(),
        request_id: command.request_id,
        header_a: body.header_a,
        header_b: body.header_b,
        duplicate_bitmap: place.duplicate_bitmap,
        ..Leaf::default()
    };
    Ok(leaf.encode_to_vec())
}

/// The header that the leaf covers speaks of these very bytes.
fn sealed_as_said(body: &EntryBody) -> Result<(), String> {
    let part_a = HeaderA::decode(body.header_a.clone()).map_err(|error| error.to_string())?;
    let part_b = HeaderB::decode(body.header_b.clone()).map_err(|error| error.to_string())?;
    let hashes: Vec<Hash> = body.record_hashes.as_chunks::<32>().0.to_vec();
    if part_b.ciphertext_digest[..] != Sha256::digest(&body.sealed)[..] {
        return Err("the sealed bytes are not those of the header".to_owned());
    }
    if hashes.len() != part_a.count as usize || part_a.record_root[..] != root(&hashes) {
        return Err("the record hashes are not those of the header".to_owned());
    }
    Ok(())
}

/// One leaf a batch, one batch a leaf.
fn batches(image: &Image, leaves: &[LeafRow]) -> Vec<String> {
    let mut causes = Vec::new();
    let mut pointed = BTreeSet::new();
    for (index, leaf) in leaves.iter().enumerate() {
        if leaf.batch.is_some_and(|batch| !pointed.insert(batch)) {
            causes.push(format!("leaf {index} is a second leaf of its batch"));
        }
    }
    for PlacedBatch { place, .. } in image.batches() {
        let at = usize::try_from(place.leaf_index).unwrap_or(usize::MAX);
        let own = leaves.get(at).and_then(|leaf| leaf.batch);
        if own != Some((place.index, place.ordinal)) {
            causes.push(format!("batch {}/{} has no leaf of its own", place.index, place.ordinal));
        }
    }
    causes
}

fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// MTH of RFC 6962.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [only] => *only,
        _ => {
            let middle = 1 << (leaves.len() - 1).ilog2();
            let (left, right) = leaves.split_at(middle);
            let node = Sha256::new().chain_update([1]).chain_update(root(left));
            node.chain_update(root(right)).finalize().into()
        }
    }
}
