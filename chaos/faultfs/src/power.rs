//! The power cut: the backing folder becomes what the disk had.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::counts::Counters;
use crate::disk::{Disk, GRAVE};
use crate::entries::{Graves, Was};
use crate::folders::link_node;
use crate::unsynced::CutStyle;

/// What a power cut took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CutReport {
    /// Files that lost unsynced data, by the paths that they had.
    pub files_rolled_back: Vec<String>,
    /// Unsynced bytes that are gone, counted by sectors and length.
    pub bytes_dropped: u64,
    /// Unsynced sectors that arrived all the same.
    pub sectors_arrived: u64,
    /// Entries of folders that were undone, by path.
    pub entries_undone: Vec<String>,
}

impl Disk {
    /// Waits for operations that are under way, fails all later ones, and takes back what no sync
    /// has written.
    pub(crate) fn cut(&self, style: CutStyle) -> io::Result<CutReport> {
        let mut power = self.power.write();
        *power = false;
        self.drop_all_handles();
        let mut report = CutReport::default();
        self.roll_back_files(style, &mut report)?;
        self.undo_entries(&mut report)?;
        self.nodes.lock().clear();
        self.older.lock().clear();
        self.kept_bytes.store(0, Ordering::Relaxed);
        let counters = &self.counters;
        let number = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
        Counters::add(&counters.power_cuts, 1);
        Counters::add(&counters.files_rolled_back, number(report.files_rolled_back.len()));
        Counters::add(&counters.bytes_dropped, report.bytes_dropped);
        Counters::add(&counters.sectors_arrived, report.sectors_arrived);
        Counters::add(&counters.entries_undone, number(report.entries_undone.len()));
        Ok(report)
    }

    fn roll_back_files(&self, style: CutStyle, report: &mut CutReport) -> io::Result<()> {
        let nodes = self.nodes.lock().all();
        let mut named: Vec<_> =
            nodes.into_iter().map(|node| (self.relative(&node), node)).collect();
        // By path, so that a seed does the same to the same files.
        named.sort_by(|one, other| one.0.cmp(&other.0));
        for (path, node) in named {
            let Some(unsynced) = node.unsynced.lock().take() else { continue };
            let dropped = unsynced.cut(&node.open(true)?, style, hash(&path))?;
            report.bytes_dropped += dropped.bytes;
            report.sectors_arrived += dropped.sectors_arrived;
            if dropped.bytes > 0 {
                report.files_rolled_back.push(path);
            }
        }
        Ok(())
    }

    /// First every changed name goes to the grave, then the disk's names come back from there or
    /// from the place where the node is called otherwise; what nobody fetched is gone.
    fn undo_entries(&self, report: &mut CutReport) -> io::Result<()> {
        let (mut changed, mut graves) = self.entries.lock().take();
        changed.sort_by_cached_key(|(name, was)| (self.relative(&was.folder), name.clone()));
        let paths = changed.iter().map(|(name, was)| {
            Path::new(&self.relative(&was.folder)).join(name).to_string_lossy().into_owned()
        });
        let paths: Vec<String> = paths.collect();
        let mut live = Vec::new();
        for (name, was) in &changed {
            let path = was.folder.child(name);
            // A folder that is gone itself has no entries.
            let number = path.symlink_metadata().ok().map(|metadata| metadata.ino());
            if let Some(number) = number {
                let grave = self.grave();
                std::fs::rename(&path, &grave)?;
                graves.entry(number).or_default().push(grave);
            }
            live.push(number);
        }
        for (((name, was), live), path) in changed.iter().zip(live).zip(paths) {
            match bring_back(name, was, &mut graves) {
                // Its folder was never on the disk, so neither is what was in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                outcome => outcome?,
            }
            if live != was.node.as_ref().map(|node| node.number) {
                report.entries_undone.push(path);
            }
        }
        for left in std::fs::read_dir(self.root_path.join(GRAVE))? {
            let left = left?;
            if left.file_type()?.is_dir() {
                std::fs::remove_dir_all(left.path())?;
            } else {
                std::fs::remove_file(left.path())?;
            }
        }
        Ok(())
    }
}

/// Gives a name its node again.
fn bring_back(name: &OsString, was: &Was, graves: &mut Graves) -> io::Result<()> {
    let Some(node) = &was.node else { return Ok(()) };
    let path = was.folder.child(name);
    if !node.is_dir {
        return link_node(node, &path);
    }
    match graves.get_mut(&node.number).and_then(Vec::pop) {
        Some(grave) => std::fs::rename(grave, &path),
        None => Ok(()),
    }
}

/// FNV-1a: a number for a path that is the same in every run.
fn hash(path: &str) -> u64 {
    path.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
