//! The faulty disk as a test holds it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, INodeNo, MountOption, SessionACL};
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;

use crate::adapter::Adapter;
use crate::counts::Counters;
use crate::disk::Disk;
use crate::rng::SplitMix;
use crate::{Counts, CutReport, CutStyle, Effect, Error, Rule, RuleId};

/// What is mounted, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds the files; on a file system with hard links.
    pub backing: PathBuf,
    /// An empty folder at which programs see them.
    pub mount_at: PathBuf,
    /// Decides delays.
    pub seed: u64,
    /// Whether syncs reach the backing folder's disk too, which costs time and matters only where
    /// the machine itself may lose power.
    pub does_sync: bool,
}

impl Options {
    /// Syncs reach the disk, as they would without this one in between.
    #[must_use]
    pub fn new(backing: &Path, mount_at: &Path, seed: u64) -> Self {
        let (backing, mount_at) = (backing.to_owned(), mount_at.to_owned());
        Self { backing, mount_at, seed, does_sync: true }
    }
}

/// A bit that was turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flipped {
    /// Path below the mount.
    pub path: String,
    /// The byte.
    pub offset: u64,
    /// 0 to 7.
    pub bit: u8,
}

/// A disk that is mounted, or without power. Unmounted when dropped; then the backing folder holds
/// what programs saw last.
#[derive(Debug)]
pub struct FaultFs {
    options: Options,
    disk: Arc<Disk>,
    session: Mutex<Option<BackgroundSession>>,
}

/// Requests that are answered at a time. Slow syncs keep theirs occupied.
const THREADS: usize = 16;
/// Memory for what files held when a rule about stale reads was made.
const OLDER_BYTES_MAX: u64 = 256 << 20;
/// Folders in folders that are searched for files.
const DEPTH_MAX: usize = 32;

impl FaultFs {
    /// Mounts the backing folder. A mount that a killed run left there is taken down first.
    ///
    /// # Errors
    /// Without root and `/dev/fuse` the kernel refuses.
    pub fn mount(options: Options) -> Result<Self, Error> {
        // A dead mount answers "not connected" to everything.
        let dead = std::fs::metadata(&options.mount_at)
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
        if dead {
            let _then_mounting_fails = umount2(&options.mount_at, MntFlags::MNT_DETACH);
        }
        let disk = Disk::new(&options.backing, options.seed, options.does_sync)
            .map_err(Error::backing("cannot use", &options.backing))?;
        let fs = Self { options, disk: Arc::new(disk), session: Mutex::default() };
        fs.attach()?;
        Ok(fs)
    }

    /// Where programs see the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.options.mount_at
    }

    /// Makes a fault; it fires from the next operation on.
    ///
    /// # Errors
    /// When there are 1,000 already, or what files held cannot be kept for stale reads.
    pub fn add(&self, rule: Rule) -> Result<RuleId, Error> {
        let (effect, files) = (rule.effect, rule.clone());
        let id = self.disk.rules.add(rule).ok_or(Error::Rule("too many rules"))?;
        if effect == Effect::Stale {
            self.remember(id, &files)?;
        }
        if files.op == crate::Op::Read {
            self.forget_caches();
        }
        Ok(id)
    }

    /// Takes a fault away; returns how often it fired.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn remove(&self, id: RuleId) -> Result<u64, Error> {
        self.disk.older.lock().retain(|(rule, _), _| *rule != id);
        self.disk.rules.remove(id).ok_or(Error::Rule("no such rule"))
    }

    /// Every fault and how often it fired.
    #[must_use]
    pub fn rules(&self) -> Vec<(RuleId, Rule, u64)> {
        self.disk.rules.list()
    }

    /// How often a fault fired.
    #[must_use]
    pub fn fired(&self, id: RuleId) -> u64 {
        self.rules().iter().find(|rule| rule.0 == id).map_or(0, |rule| rule.2)
    }

    /// No more faults, and all the space that there is.
    pub fn heal(&self) {
        self.disk.rules.clear();
        self.disk.older.lock().clear();
        self.limit_space(None);
        self.forget_caches();
    }

    /// After so many more bytes the disk is full, removed files give theirs back; None: no limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        *self.disk.space_left.lock() = bytes;
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.disk.counters.read()
    }

    /// Whether a rule cut the power, so that [`FaultFs::cut_power`] is due.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.disk.is_failing()
    }

    /// Cuts the power: what no sync has written is gone, open files are dead for good, nothing is
    /// mounted until [`FaultFs::power_on`]. Programs that use the disk should be killed before or
    /// after; none of their operations succeeds once this has begun.
    ///
    /// # Errors
    /// When the power is off already, or the backing folder does not obey.
    pub fn cut_power(&self, style: CutStyle) -> Result<CutReport, Error> {
        let mut session = self.session.lock();
        let Some(mounted) = session.take() else { return Err(Error::Power("off")) };
        let report = self.disk.cut(style);
        self.detach(mounted);
        report.map_err(Error::backing("cannot take back", &self.options.backing))
    }

    /// Mounts what the disk has. Rules stay.
    ///
    /// # Errors
    /// When the power is on already, or the kernel does not mount.
    pub fn power_on(&self) -> Result<(), Error> {
        if self.session.lock().is_some() {
            return Err(Error::Power("on"));
        }
        self.disk.recovered();
        self.attach()
    }

    /// Turns one bit of a file where it lies.
    ///
    /// # Errors
    /// When the file is not so long.
    pub fn flip(&self, path: &str, offset: u64, bit: u8) -> Result<(), Error> {
        let full = self.disk.root_path.join(path);
        let flip = || {
            let file = OpenOptions::new().read(true).write(true).open(&full)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset)?;
            byte[0] ^= 1 << (bit & 7);
            file.write_all_at(&byte, offset)?;
            file.metadata().map(|metadata| metadata.ino())
        };
        let number = flip().map_err(Error::backing("cannot flip a bit of", &full))?;
        Counters::add(&self.disk.counters.bits_flipped, 1);
        self.forget_cache(number);
        Ok(())
    }

    /// Turns one bit of one file that fits the pattern, as the seed decides.
    ///
    /// # Errors
    /// When no file fits that has a byte.
    pub fn flip_any(&self, files: &str, seed: u64) -> Result<Flipped, Error> {
        let mut luck = SplitMix::new(seed);
        let mut fitting = self.files(files)?;
        fitting.retain(|(_, len)| *len > 0);
        fitting.sort();
        let many = u64::try_from(fitting.len()).unwrap_or(0);
        let at = usize::try_from(luck.below(many)).unwrap_or(0);
        let Some((path, len)) = fitting.into_iter().nth(at) else {
            return Err(Error::Command(format!("no file with a byte fits {files}")));
        };
        let bit = u8::try_from(luck.below(8)).unwrap_or(0);
        let flipped = Flipped { path, offset: luck.below(len), bit };
        self.flip(&flipped.path, flipped.offset, flipped.bit)?;
        Ok(flipped)
    }

    /// Cuts a file off where it lies.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn truncate(&self, path: &str, len: u64) -> Result<(), Error> {
        let full = self.disk.root_path.join(path);
        let cut = || {
            let file = OpenOptions::new().write(true).open(&full)?;
            file.set_len(len)?;
            file.metadata().map(|metadata| metadata.ino())
        };
        let number = cut().map_err(Error::backing("cannot cut off", &full))?;
        self.forget_cache(number);
        Ok(())
    }

    /// Files that fit a pattern, and their lengths.
    fn files(&self, pattern: &str) -> Result<Vec<(String, u64)>, Error> {
        let root = &self.disk.root_path;
        let mut found = Vec::new();
        let mut folders = vec![(root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let lines =
                std::fs::read_dir(&folder).map_err(Error::backing("cannot list", &folder))?;
            for line in lines.flatten() {
                let path = line.path();
                let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                // A file that goes away meanwhile is none.
                let Ok(metadata) = line.metadata() else { continue };
                if metadata.is_dir() && below != crate::disk::GRAVE && depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                } else if metadata.is_file() && crate::rule::matches(pattern, &below) {
                    found.push((below, metadata.len()));
                }
            }
        }
        Ok(found)
    }

    fn remember(&self, id: RuleId, rule: &Rule) -> Result<(), Error> {
        let mut left = OLDER_BYTES_MAX;
        for (path, len) in self.files(&rule.files)? {
            let full = self.disk.root_path.join(path);
            let Some(less) = left.checked_sub(len) else { break };
            left = less;
            let read = || Ok((std::fs::metadata(&full)?.ino(), std::fs::read(&full)?));
            let (number, bytes) = read().map_err(Error::backing("cannot keep", &full))?;
            self.disk.older.lock().insert((id, number), bytes);
        }
        Ok(())
    }

    /// Reads come here again instead of being answered by the kernel's memory.
    fn forget_caches(&self) {
        let nodes = self.disk.nodes.lock().all();
        for node in nodes.iter().filter(|node| !node.is_dir) {
            self.forget_cache(node.number);
        }
    }

    fn forget_cache(&self, number: u64) {
        let notifier = self.session.lock().as_ref().map(BackgroundSession::notifier);
        if let Some(notifier) = notifier {
            // A file that the kernel does not hold has no cache.
            let _unknown = notifier.inval_inode(INodeNo(self.disk.swapped(number)), 0, 0);
        }
    }

    fn attach(&self) -> Result<(), Error> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("faultfs".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let adapter = Adapter(Arc::clone(&self.disk));
        let session = fuser::spawn_mount(adapter, &self.options.mount_at, &config)
            .map_err(|source| Error::Mount { path: self.options.mount_at.clone(), source })?;
        *self.session.lock() = Some(session);
        Ok(())
    }

    /// Forced, so that requests under way end, and lazy, so that programs that sit there do not
    /// hold it up. In a user namespace force is not allowed: there the old session serves what is
    /// left of it, whose handles are dead, until the programs that hold it end.
    fn detach(&self, session: BackgroundSession) {
        let at = &self.options.mount_at;
        if umount2(at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).is_err() {
            let _unmounted_by_hand = umount2(at, MntFlags::MNT_DETACH);
        }
        let _held_by_programs: io::Result<()> = session.umount_and_join();
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        if let Some(session) = self.session.lock().take() {
            self.detach(session);
        }
        let _left_for_the_next_mount =
            std::fs::remove_dir_all(self.disk.root_path.join(crate::disk::GRAVE));
    }
}
