#![allow(clippy::unwrap_used)]

use super::*;
use crate::vfs::{MemVfs, RealVfs, VfsFile};
use dtm_machine::seams::SeededEntropy;
use dtm_seal::MasterKey;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

const GROUP: GroupId = GroupId(1);

static SOURCE: LazyLock<SourceId> = LazyLock::new(|| SourceId::parse("tinh-01").unwrap());
static CONTEXT: LazyLock<WrapContext<'static>> = LazyLock::new(|| WrapContext {
    purpose: KeyPurpose::Data,
    group: GROUP,
    source: Some(&SOURCE),
    month: Month(24_322),
    key_id: KeyId([5; 16]),
});

fn dir() -> &'static Path {
    Path::new("/data/keys")
}

fn master(byte: u8) -> Master {
    Master::new(MasterKey::from_bytes(&mut [byte; 32]), "/safe/master.key")
}

/// Never the same bytes twice in one run.
fn counting() -> Arc<dyn Entropy> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    Arc::new(SeededEntropy::new(SEED.fetch_add(1, Ordering::Relaxed)))
}

fn open(vfs: &MemVfs, byte: u8) -> Result<Keyring, Error> {
    Keyring::open(Arc::new(vfs.clone()), dir(), master(byte), counting())
}

fn create(vfs: &MemVfs) -> Keyring {
    Keyring::create(Arc::new(vfs.clone()), dir(), master(1), counting(), 7).unwrap()
}

fn data_key(byte: u8) -> DataKey {
    DataKey::from_bytes(&mut [byte; 32])
}

fn unwrapped(keyring: &Keyring, row: &WrappedKey) -> Result<[u8; 32], Error> {
    keyring.unwrap_data_key(GROUP, row).map(|key: DataKey| *key.expose())
}

#[test]
fn rotation_keeps_what_was_wrapped_before() {
    let vfs = MemVfs::new(1);
    let keyring = create(&vfs);
    let first = keyring.current();
    let old = keyring.wrap_data_key(&CONTEXT, &data_key(9));
    let second = keyring.rotate(8).unwrap();
    let new = keyring.rewrap(GROUP, &old, GROUP).unwrap();
    assert_eq!(old.cluster_key_id, first.0.as_slice());
    assert_eq!(new.cluster_key_id, second.0.as_slice());
    let same = WrappedKey {
        cluster_key_id: old.cluster_key_id.clone(),
        wrapped: old.wrapped.clone(),
        ..new.clone()
    };
    assert_eq!(same, old);

    for keyring in [keyring, open(&vfs, 1).unwrap()] {
        assert_eq!(unwrapped(&keyring, &old).unwrap(), [9; 32]);
        assert_eq!(unwrapped(&keyring, &new).unwrap(), [9; 32]);
        let listed: Vec<_> =
            keyring.list().iter().map(|info| (info.id, info.created_us, info.current)).collect();
        assert_eq!(listed, [(first, 7, false), (second, 8, true)]);
    }
}

#[test]
fn a_row_unwraps_only_where_it_belongs() {
    let keyring = create(&MemVfs::new(1));
    let first = keyring.wrap_data_key(&CONTEXT, &data_key(9));
    keyring.rotate(8).unwrap();
    let second = keyring.wrap_data_key(&CONTEXT, &data_key(9));

    let mut crossed = first.clone();
    crossed.cluster_key_id = second.cluster_key_id.clone();
    let elsewhere = |change: fn(&mut WrappedKey)| {
        let mut row = second.clone();
        change(&mut row);
        row
    };
    for row in [
        crossed,
        elsewhere(|row| row.month += 1),
        elsewhere(|row| row.source = "tinh-02".to_owned()),
        elsewhere(|row| row.source.clear()),
        elsewhere(|row| row.purpose = KeyPurpose::Audit as i32),
        elsewhere(|row| row.key_id = vec![6; 16].into()),
        elsewhere(|row| row.wrapped.truncate(70)),
    ] {
        assert!(matches!(unwrapped(&keyring, &row), Err(Error::Unwrap { .. })), "{row:?}");
    }
    for row in [
        elsewhere(|row| row.purpose = 0),
        elsewhere(|row| row.purpose = 99),
        elsewhere(|row| row.source = "Not A Code".to_owned()),
        elsewhere(|row| row.key_id.clear()),
        elsewhere(|row| row.cluster_key_id.truncate(15)),
    ] {
        assert!(matches!(unwrapped(&keyring, &row), Err(Error::Row { .. })), "{row:?}");
    }
    let moved = keyring.rewrap(GROUP, &first, GroupId(2)).unwrap();
    assert!(matches!(unwrapped(&keyring, &moved), Err(Error::Unwrap { .. })));
    assert!(keyring.unwrap_data_key::<DataKey>(GroupId(2), &moved).is_ok());
}

#[test]
fn a_shredded_key_is_gone_from_memory_and_from_the_old_file() {
    let vfs = MemVfs::new(1);
    let keyring = create(&vfs);
    let first = keyring.current();
    let row = keyring.wrap_data_key(&CONTEXT, &data_key(9));
    assert!(matches!(keyring.shred(first), Err(Error::CurrentKey { .. })));
    keyring.rotate(8).unwrap();
    let old_file = Vfs::open(&vfs, &dir().join("keyring")).unwrap();

    keyring.shred(first).unwrap();
    keyring.shred(first).unwrap();
    for keyring in [keyring, open(&vfs, 1).unwrap()] {
        assert!(matches!(unwrapped(&keyring, &row), Err(Error::UnknownKey { .. })));
        assert!(keyring.cluster_key(first).is_err());
    }
    let mut bytes = vec![1; 64];
    old_file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 64]);
}

#[test]
fn a_second_node_takes_keys_before_they_become_current() {
    let (here, there) = (MemVfs::new(1), MemVfs::new(2));
    let first = create(&here);
    let import = |bytes: &[u8]| {
        Keyring::import(Arc::new(there.clone()), dir(), master(2), counting(), bytes)
    };
    let exported = first.export();
    assert!(matches!(import(&exported[1..]), Err(Error::Import)));
    let second = import(&exported).unwrap();
    assert!(matches!(import(&exported), Err(Error::Exists { .. })));

    let id = first.generate(8).unwrap();
    assert_ne!(first.current(), id);
    second.adopt(id, first.cluster_key(id).unwrap(), 8).unwrap();
    second.adopt(id, first.cluster_key(id).unwrap(), 8).unwrap();
    let other = ClusterKey::from_bytes(&mut [1; 32]);
    assert!(matches!(second.adopt(id, other, 8), Err(Error::Conflict { .. })));
    let unknown = second.make_current(KeyId([0; 16]));
    assert!(matches!(unknown, Err(Error::UnknownKey { .. })));
    first.make_current(id).unwrap();
    let row = first.wrap_data_key(&CONTEXT, &data_key(9));
    assert_eq!(row.cluster_key_id, id.0.as_slice());
    let second = open(&there, 2).unwrap();
    assert_ne!(second.current(), id);
    assert_eq!(unwrapped(&second, &row).unwrap(), [9; 32]);
}

#[test]
fn secrets_are_kept_and_bounded() {
    let vfs = MemVfs::new(1);
    let keyring = create(&vfs);
    keyring.put_secret("issuer", b"one").unwrap();
    keyring.put_secret("issuer", b"two").unwrap();
    assert!(matches!(keyring.put_secret("big", &vec![0; 65_537]), Err(Error::Full { .. })));
    assert!(matches!(keyring.put_secret(&"n".repeat(256), b""), Err(Error::Full { .. })));
    keyring.put_secret("big", &vec![0; 65_536]).unwrap();
    let keyring = open(&vfs, 1).unwrap();
    assert_eq!(keyring.secret("issuer").unwrap().as_slice(), b"two");
    assert!(keyring.secret("other").is_none());
}

#[test]
fn each_wrong_start_has_its_own_answer() {
    let vfs = MemVfs::new(1);
    let error = open(&vfs, 1).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(error.to_string().contains("/data/keys/keyring"), "{error}");

    let keyring = create(&vfs);
    let error = open(&vfs, 2).unwrap_err();
    assert!(matches!(error, Error::WrongMaster { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("/data/keys/keyring") && text.contains("/safe/master.key"), "{text}");
    let again = Keyring::create(Arc::new(vfs.clone()), dir(), master(1), counting(), 7);
    assert!(matches!(again, Err(Error::Exists { .. })));

    keyring.change_master(master(2)).unwrap();
    assert!(matches!(open(&vfs, 1), Err(Error::WrongMaster { .. })));
    keyring.rotate(9).unwrap();
    assert_eq!(open(&vfs, 2).unwrap().list(), keyring.list());

    assert!(vfs.flip_bit(&dir().join("keyring"), 70, 3));
    let error = open(&vfs, 2).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    vfs.put(&dir().join("keyring"), Vec::new());
    assert!(matches!(open(&vfs, 2), Err(Error::Damaged { .. })));
    assert!(!format!("{keyring:?}").contains("key:"), "{keyring:?}");
}

/// Stops at any step of a rotation, then cuts the power: the keyring opens with the keys of
/// before or those of after, and the next change works. The keyring's part of F24.
#[test]
fn a_power_cut_at_each_step_leaves_the_old_ring_or_the_new_one() {
    let mut outcomes = [0; 2];
    for step in 0..64 {
        for keep_percent in [0, 50, 100] {
            let vfs = MemVfs::new(step * 100 + keep_percent);
            let before = create(&vfs).list();
            let stopping = Stopping::after(&vfs, step);
            let opened = Keyring::open(stopping, dir(), master(1), counting());
            let finished = opened.is_ok_and(|keyring| keyring.rotate(8).is_ok());
            vfs.crash(keep_percent);

            let keyring = open(&vfs, 1).expect("opens after any cut");
            let grown = keyring.list().len() - before.len();
            assert_eq!(keyring.list()[0].id, before[0].id);
            assert!(grown == 1 || !finished, "a finished rotation is durable");
            outcomes[grown] += 1;
            keyring.rotate(9).expect("works on");
            assert_eq!(Vfs::list(&vfs, dir()).unwrap(), ["keyring"]);
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "both were seen: {outcomes:?}");
}

#[test]
fn a_failed_write_leaves_the_former_keys_in_use() {
    let vfs = MemVfs::new(1);
    create(&vfs);
    // Enough for opening, not for a whole rotation.
    let stopping = Stopping::after(&vfs, 4);
    let keyring = Keyring::open(stopping, dir(), master(1), counting()).unwrap();
    let before = keyring.list();
    assert!(matches!(keyring.rotate(8), Err(Error::Io { .. })));
    assert_eq!(keyring.list(), before);
}

/// A source of randomness that stands still.
struct Still;

impl Entropy for Still {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

/// Such a source must not make a keyring that cannot be read.
#[test]
#[should_panic(expected = "a ring that is written can be read back")]
fn the_same_key_twice_is_never_written() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new(1));
    let keyring = Keyring::create(vfs, dir(), master(1), Arc::new(Still), 7).unwrap();
    drop(keyring.rotate(8));
}

#[test]
fn works_on_the_operating_systems_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("keys");
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let path = folder.path().join("master.key");
    let made = Master::create(&path, counting().as_ref()).unwrap();
    let keyring = Keyring::create(vfs.clone(), &dir, made, counting(), 7).unwrap();
    keyring.rotate(8).unwrap();
    std::fs::write(dir.join("keyring.new"), b"left by a crash").unwrap();

    let master = Master::read(&path).unwrap();
    let again = Keyring::open(vfs, &dir, master, counting()).unwrap();
    assert_eq!(again.list(), keyring.list());
    assert!(!dir.join("keyring.new").exists());
    let first = again.list()[0].id;
    again.shred(first).unwrap();
    assert_eq!(again.list().len(), 1);
}

/// A file system whose process dies after some calls.
struct Stopping {
    vfs: MemVfs,
    left: AtomicU64,
}

impl Stopping {
    fn after(vfs: &MemVfs, calls: u64) -> Arc<dyn Vfs> {
        Arc::new(Arc::new(Self { vfs: vfs.clone(), left: AtomicU64::new(calls) }))
    }

    fn step(&self) -> io::Result<&MemVfs> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .map(|_| &self.vfs)
            .map_err(|_| io::Error::other("stopped"))
    }
}

impl Vfs for Arc<Stopping> {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step()?.create_dir_all(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = self.step()?.open(path)?;
        Ok(Arc::new(StoppingFile { file, vfs: Arc::clone(self) }))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = self.step()?.create(path)?;
        Ok(Arc::new(StoppingFile { file, vfs: Arc::clone(self) }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.step()?.list(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.step()?.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.step()?.lock(path)
    }
}

struct StoppingFile {
    file: Arc<dyn VfsFile>,
    vfs: Arc<Stopping>,
}

impl VfsFile for StoppingFile {
    fn write_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.vfs.step()?;
        self.file.write_at(offset, parts)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.vfs.step()?;
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.preallocate(bytes)
    }
}
