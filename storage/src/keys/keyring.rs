//! The keyring of a node.
//!
//! Reads take a shared lock for the time of one unwrap; changes write the file first and show
//! the new keys afterwards, one change at a time.

use super::ring::{HeldKey, KeyInfo, Ring};
use super::{Error, Master, file};
use crate::vfs::Vfs;
use dtm_machine::seams::Entropy;
use dtm_seal::{ClusterKey, DataKey, KEY_BYTES, Nonce, Secret, WrapContext, unwrap_key, wrap_key};
use dtm_types::format::{KeyPurpose, WrappedKey};
use dtm_types::{GroupId, KeyId, Month, SourceId};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The cluster keys of this node, and the named secrets beside them.
pub struct Keyring {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    entropy: Arc<dyn Entropy>,
    ring: RwLock<Ring>,
    /// Held through each change of the file. The master key seals it.
    master: Mutex<Master>,
}

impl Keyring {
    /// Makes the keyring of a new cluster in `dir`, with one cluster key. Durable when it
    /// returns. `now_us` is noted as the key's time.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`].
    pub fn create(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
        now_us: i64,
    ) -> Result<Self, Error> {
        let mut ring = Ring::default();
        let held = fresh(entropy.as_ref(), now_us);
        let id = held.info.id;
        ring.keys.push(held);
        ring.make_current(id);
        Self::write_first(vfs, dir, master, entropy, ring)
    }

    /// Makes the keyring of a node that joins, from what [`Keyring::export`] gave on another
    /// node. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Import`], [`Error::Exists`], [`Error::Io`].
    pub fn import(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
        exported: &[u8],
    ) -> Result<Self, Error> {
        let ring = Ring::decode(exported).ok_or(Error::Import)?;
        Self::write_first(vfs, dir, master, entropy, ring)
    }

    /// Opens the keyring in `dir` and removes what an interrupted change left there.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::WrongMaster`], [`Error::Damaged`], [`Error::Version`],
    /// [`Error::Io`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let keyring = Self::look(vfs, dir, master, entropy)?;
        file::remove_left_over(keyring.vfs.as_ref(), dir)?;
        Ok(keyring)
    }

    /// As [`Keyring::open`], and writes nothing: for who only looks.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn look(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let ring = file::read(vfs.as_ref(), dir, &master)?;
        Ok(Self::of(vfs, dir, master, entropy, ring))
    }

    /// The id of the key under which new keys are wrapped.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.ring.read().current().info.id
    }

    /// What may be told about the cluster keys, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        self.ring.read().keys.iter().map(|held| held.info).collect()
    }

    /// A cluster key, to hand it to another node.
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub fn cluster_key(&self, id: KeyId) -> Result<ClusterKey, Error> {
        let ring = self.ring.read();
        ring.find(id).map(|held| held.key.clone()).ok_or_else(|| self.unknown(id))
    }

    /// Wraps a data, source or audit key under the current cluster key, as the row that the
    /// group of the context is to hold.
    ///
    /// # Panics
    /// If the purpose is unspecified.
    #[must_use]
    pub fn wrap_data_key<K: Secret>(&self, context: &WrapContext<'_>, key: &K) -> WrappedKey {
        let mut nonce: Nonce = [0; 24];
        self.entropy.fill(&mut nonce);
        let ring = self.ring.read();
        let current = ring.current();
        let wrapped = wrap_key(&current.key, current.info.id, context, &nonce, key);
        WrappedKey {
            key_id: context.key_id.0.to_vec().into(),
            purpose: context.purpose as i32,
            source: context.source.map_or("", SourceId::as_str).to_owned(),
            month: context.month.0,
            cluster_key_id: current.info.id.0.to_vec().into(),
            wrapped: wrapped.to_vec().into(),
        }
    }

    /// Unwraps the key in a row of `group`, under whichever cluster key it was wrapped, current
    /// or retired.
    ///
    /// # Errors
    /// [`Error::Row`], [`Error::UnknownKey`], [`Error::Unwrap`].
    pub fn unwrap_data_key<K: Secret>(&self, group: GroupId, row: &WrappedKey) -> Result<K, Error> {
        let source = SourceId::parse(&row.source);
        let context = context_of(group, row, source.as_ref())?;
        let id =
            KeyId::from_slice(&row.cluster_key_id).ok_or(Error::Row { what: "cluster key id" })?;
        let ring = self.ring.read();
        let held = ring.find(id).ok_or_else(|| self.unknown(id))?;
        unwrap_key(&held.key, id, &context, &row.wrapped)
            .map_err(|source| Error::Unwrap { id: context.key_id, source })
    }

    /// Wraps the key in a row of `group` anew, under the current cluster key and for `to_group`:
    /// for a rotation (the same group) or when a source moves to another group. The key itself
    /// and its id stay.
    ///
    /// # Errors
    /// As [`Keyring::unwrap_data_key`].
    pub fn rewrap(
        &self,
        group: GroupId,
        row: &WrappedKey,
        to_group: GroupId,
    ) -> Result<WrappedKey, Error> {
        // A source key is 32 bytes as well; the type decides only what may be derived from it.
        let key: DataKey = self.unwrap_data_key(group, row)?;
        let source = SourceId::parse(&row.source);
        let context = context_of(to_group, row, source.as_ref())?;
        Ok(self.wrap_data_key(&context, &key))
    }

    /// Makes a new cluster key that is not current yet: the other nodes have to hold it before
    /// anything is wrapped under it. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn generate(&self, now_us: i64) -> Result<KeyId, Error> {
        let held = fresh(self.entropy.as_ref(), now_us);
        let id = held.info.id;
        self.change(false, |ring| {
            ring.keys.push(held);
            Ok(())
        })?;
        Ok(id)
    }

    /// Takes a cluster key that another node made; none of the present ones changes its role.
    /// Taking the same key again changes nothing. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Full`], [`Error::Io`].
    pub fn adopt(&self, id: KeyId, key: ClusterKey, created_us: i64) -> Result<(), Error> {
        self.change(false, |ring| match ring.find(id) {
            // Both are known to this process: no need to compare in constant time.
            Some(held) if held.key.expose() == key.expose() => Ok(()),
            Some(_) => Err(Error::Conflict { path: self.path(), id }),
            None => {
                let info = KeyInfo { id, created_us, current: false };
                ring.keys.push(HeldKey { info, key });
                Ok(())
            }
        })
    }

    /// Wraps new keys under this one from now on; the former one is retired and still unwraps.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Io`].
    pub fn make_current(&self, id: KeyId) -> Result<(), Error> {
        self.change(false, |ring| {
            ring.find(id).ok_or_else(|| self.unknown(id))?;
            ring.make_current(id);
            Ok(())
        })
    }

    /// [`Keyring::generate`] and [`Keyring::make_current`] in one step, for a cluster of one
    /// node.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn rotate(&self, now_us: i64) -> Result<KeyId, Error> {
        let held = fresh(self.entropy.as_ref(), now_us);
        let id = held.info.id;
        self.change(false, |ring| {
            ring.keys.push(held);
            ring.make_current(id);
            Ok(())
        })?;
        Ok(id)
    }

    /// Destroys a retired key on this node: whatever is wrapped under it alone is lost for good.
    /// Durable when it returns. A key that is not held is destroyed already.
    ///
    /// # Errors
    /// [`Error::CurrentKey`], [`Error::Io`].
    pub fn shred(&self, id: KeyId) -> Result<(), Error> {
        self.change(true, |ring| {
            if ring.current().info.id == id {
                return Err(Error::CurrentKey { id });
            }
            ring.keys.retain(|held| held.info.id != id);
            Ok(())
        })
    }

    /// A secret that was put here under `name`.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.ring.read().secrets.get(name).cloned()
    }

    /// Keeps a secret of this node or cluster, such as the key of the issuing certificate,
    /// replacing the former one of that name. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Full`], also for a name above 255 bytes or a secret above 64 KiB; [`Error::Io`].
    pub fn put_secret(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.change(true, |ring| {
            ring.secrets.insert(name.to_owned(), Zeroizing::new(bytes.to_vec()));
            Ok(())
        })
    }

    /// Everything in clear, for one node that joins. The caller seals it to that node's key
    /// before it leaves the process.
    #[must_use]
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        self.ring.read().encode()
    }

    /// Seals the keyring under another master key. Durable when it returns; the old master key
    /// opens it no more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn change_master(&self, new: Master) -> Result<(), Error> {
        let mut master = self.master.lock();
        let ring = self.ring.read().clone();
        file::replace(self.vfs.as_ref(), &self.dir, &ring, &new, self.entropy.as_ref(), true)?;
        *master = new;
        Ok(())
    }

    fn write_first(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
        ring: Ring,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Io { what: "creating", path: dir.to_owned(), source };
        vfs.create_dir_all(dir).map_err(failed)?;
        if file::exists(vfs.as_ref(), dir)? {
            return Err(Error::Exists { path: file::path_in(dir) });
        }
        file::replace(vfs.as_ref(), dir, &ring, &master, entropy.as_ref(), false)?;
        Ok(Self::of(vfs, dir, master, entropy, ring))
    }

    fn of(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        master: Master,
        entropy: Arc<dyn Entropy>,
        ring: Ring,
    ) -> Self {
        let (ring, master) = (RwLock::new(ring), Mutex::new(master));
        Self { vfs, dir: dir.to_owned(), entropy, ring, master }
    }

    /// Changes a copy, writes it, then shows it. After an error the former keys stay in use.
    fn change(
        &self,
        wipe_old: bool,
        change: impl FnOnce(&mut Ring) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let master = self.master.lock();
        let mut next = self.ring.read().clone();
        change(&mut next)?;
        if !next.within_bounds() {
            return Err(Error::Full { path: self.path() });
        }
        file::replace(
            self.vfs.as_ref(),
            &self.dir,
            &next,
            &master,
            self.entropy.as_ref(),
            wipe_old,
        )?;
        *self.ring.write() = next;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        file::path_in(&self.dir)
    }

    fn unknown(&self, id: KeyId) -> Error {
        Error::UnknownKey { path: self.path(), id }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// What a row belongs to; `source` is its own, parsed.
fn context_of<'a>(
    group: GroupId,
    row: &WrappedKey,
    source: Option<&'a SourceId>,
) -> Result<WrapContext<'a>, Error> {
    let purpose = KeyPurpose::try_from(row.purpose)
        .ok()
        .filter(|purpose| *purpose != KeyPurpose::Unspecified)
        .ok_or(Error::Row { what: "purpose" })?;
    if source.is_none() && !row.source.is_empty() {
        return Err(Error::Row { what: "source" });
    }
    let key_id = KeyId::from_slice(&row.key_id).ok_or(Error::Row { what: "key id" })?;
    Ok(WrapContext { purpose, group, source, month: Month(row.month), key_id })
}

fn fresh(entropy: &dyn Entropy, created_us: i64) -> HeldKey {
    let id = KeyId(entropy.id16());
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    entropy.fill(key.as_mut());
    let info = KeyInfo { id, created_us, current: false };
    HeldKey { info, key: ClusterKey::from_bytes(&mut key) }
}

#[cfg(test)]
#[path = "keyring_test.rs"]
mod tests;
