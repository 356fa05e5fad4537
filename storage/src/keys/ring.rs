//! What a keyring holds, and its encoding inside the seal.
//!
//! ```text
//!  entries (2 bytes), then each:
//!    kind 1, cluster key:  id (16) ‖ current (1) ‖ created, unix µs (8) ‖ key (32)
//!    kind 2, secret:       length (2) ‖ name ‖ length (4) ‖ bytes
//!  all numbers big endian; cluster keys in the order of their making, exactly one is current
//! ```

use dtm_seal::{ClusterKey, KEY_BYTES, Secret};
use dtm_types::KeyId;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Cluster keys and secrets in one keyring: rotation every day for eleven years.
pub(super) const ENTRIES_MAX: usize = 4096;
/// Bytes of a name of a secret.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of one secret: a private key with its certificate chain fits.
const SECRET_BYTES_MAX: usize = 64 * 1024;

const KIND_CLUSTER_KEY: u8 = 1;
const KIND_SECRET: u8 = 2;

/// What may be told about a cluster key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// When it was made, as stamped by its maker; unix microseconds.
    pub created_us: i64,
    /// New keys are wrapped under this one.
    pub current: bool,
}

#[derive(Clone)]
pub(super) struct HeldKey {
    pub(super) info: KeyInfo,
    pub(super) key: ClusterKey,
}

/// The content of a keyring.
#[derive(Clone, Default)]
pub(super) struct Ring {
    pub(super) keys: Vec<HeldKey>,
    pub(super) secrets: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl Ring {
    pub(super) fn find(&self, id: KeyId) -> Option<&HeldKey> {
        self.keys.iter().find(|held| held.info.id == id)
    }

    pub(super) fn current(&self) -> &HeldKey {
        self.keys.iter().find(|held| held.info.current).expect("exactly one key is current")
    }

    pub(super) fn make_current(&mut self, id: KeyId) {
        for held in &mut self.keys {
            held.info.current = held.info.id == id;
        }
    }

    /// True where encoding cannot fail and what is read back is accepted.
    pub(super) fn within_bounds(&self) -> bool {
        self.keys.len() + self.secrets.len() <= ENTRIES_MAX
            && self.secrets.iter().all(|(name, bytes)| {
                name.len() <= NAME_BYTES_MAX && bytes.len() <= SECRET_BYTES_MAX
            })
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        assert!(self.within_bounds(), "checked before a ring is changed");
        let secrets: usize = self.secrets.iter().map(|(n, b)| 7 + n.len() + b.len()).sum();
        // Exactly as long as needed: growing would leave copies of keys behind.
        let length = 2 + self.keys.len() * (26 + KEY_BYTES) + secrets;
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        let entries = (self.keys.len() + self.secrets.len()) as u16;
        body.extend_from_slice(&entries.to_be_bytes());
        for held in &self.keys {
            body.push(KIND_CLUSTER_KEY);
            body.extend_from_slice(&held.info.id.0);
            body.push(u8::from(held.info.current));
            body.extend_from_slice(&held.info.created_us.to_be_bytes());
            body.extend_from_slice(held.key.expose());
        }
        for (name, bytes) in &self.secrets {
            body.push(KIND_SECRET);
            body.extend_from_slice(&(name.len() as u16).to_be_bytes());
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            body.extend_from_slice(bytes);
        }
        assert_eq!(body.len(), length, "the length was counted before");
        // Costs nothing beside the sync of the file, and a ring that cannot be read back is the
        // end of all data.
        assert!(Self::decode(&body).is_some(), "a ring that is written can be read back");
        body
    }

    /// None where the bytes are not exactly one well-formed ring.
    pub(super) fn decode(mut body: &[u8]) -> Option<Self> {
        let mut ring = Self::default();
        let entries = usize::from(u16::from_be_bytes(take(&mut body)?));
        if entries > ENTRIES_MAX {
            return None;
        }
        for _ in 0..entries {
            match take(&mut body)? {
                [KIND_CLUSTER_KEY] => {
                    let id = KeyId(take(&mut body)?);
                    let [current] = take(&mut body)?;
                    let created_us = i64::from_be_bytes(take(&mut body)?);
                    let mut key = Zeroizing::new(take::<KEY_BYTES>(&mut body)?);
                    if current > 1 || ring.find(id).is_some() {
                        return None;
                    }
                    let info = KeyInfo { id, created_us, current: current == 1 };
                    ring.keys.push(HeldKey { info, key: ClusterKey::from_bytes(&mut key) });
                }
                [KIND_SECRET] => {
                    let length = usize::from(u16::from_be_bytes(take(&mut body)?));
                    let name = std::str::from_utf8(body.split_off(..length)?).ok()?.to_owned();
                    let length = u32::from_be_bytes(take(&mut body)?) as usize;
                    let bytes = Zeroizing::new(body.split_off(..length)?.to_vec());
                    if ring.secrets.insert(name, bytes).is_some() {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        let one_current = ring.keys.iter().filter(|held| held.info.current).count() == 1;
        (body.is_empty() && one_current && ring.within_bounds()).then_some(ring)
    }
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    body.split_off(..N)?.try_into().ok()
}
