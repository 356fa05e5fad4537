//! Which entries of folders are not on the disk yet, so that a power cut can undo them.
//!
//! For each name that changed since its folder's last sync stands what the disk has under it. A
//! rename between two folders is one step: a sync of either makes both sides durable, as in every
//! file system with a journal. What the disk still names but the live tree does not is kept in the
//! grave, a folder of this crate's own.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use crate::node::Node;

/// Number of a folder and a name in it.
type Place = (u64, OsString);

/// Paths in the grave by number.
pub(crate) type Graves = HashMap<u64, Vec<PathBuf>>;

/// What the disk has under a name.
#[derive(Debug)]
pub(crate) struct Was {
    pub(crate) folder: Arc<Node>,
    /// None: nothing.
    pub(crate) node: Option<Arc<Node>>,
    /// The other sides of renames.
    with: Vec<Place>,
}

/// All changes that no sync has written.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    changed: HashMap<u64, BTreeMap<OsString, Was>>,
    /// How many names on the disk are kept for a node.
    kept: HashMap<u64, usize>,
    /// Where a node lies in the grave; a folder at most once.
    graves: Graves,
}

impl Entries {
    /// The entry is about to change from `node`. Only the first change since a sync counts.
    pub(crate) fn change(&mut self, folder: &Arc<Node>, name: &OsStr, node: Option<&Arc<Node>>) {
        let names = self.changed.entry(folder.number).or_default();
        if names.contains_key(name) {
            return;
        }
        let was = Was { folder: Arc::clone(folder), node: node.cloned(), with: Vec::new() };
        names.insert(name.to_owned(), was);
        if let Some(node) = node {
            *self.kept.entry(node.number).or_default() += 1;
        }
    }

    /// Two changed entries are the sides of one rename.
    pub(crate) fn join(&mut self, one: (&Arc<Node>, &OsStr), other: (&Arc<Node>, &OsStr)) {
        if one.0.number == other.0.number {
            return;
        }
        for (here, there) in [(one, other), (other, one)] {
            let names = self.changed.get_mut(&here.0.number);
            if let Some(was) = names.and_then(|names| names.get_mut(here.1)) {
                was.with.push((there.0.number, there.1.to_owned()));
            }
        }
    }

    /// The folder's entries are on the disk, and the other sides of its renames. Returns what lies
    /// in the grave for nothing now.
    pub(crate) fn synced(&mut self, folder: u64) -> Vec<PathBuf> {
        let names = self.changed.remove(&folder).unwrap_or_default();
        let mut done: Vec<Was> = names.into_values().collect();
        let mut unneeded = Vec::new();
        // Each turn takes one change away for good.
        while let Some(was) = done.pop() {
            for (folder, name) in was.with {
                if let Some(names) = self.changed.get_mut(&folder) {
                    done.extend(names.remove(&name));
                }
            }
            if let Some(node) = was.node {
                unneeded.extend(self.release(node.number));
            }
        }
        self.changed.retain(|_, names| !names.is_empty());
        unneeded
    }

    /// Whether the disk names this node where the live tree may not.
    pub(crate) fn is_kept(&self, number: u64) -> bool {
        self.kept.contains_key(&number)
    }

    /// It lies in the grave now.
    pub(crate) fn buried(&mut self, number: u64, path: PathBuf) {
        self.graves.entry(number).or_default().push(path);
    }

    /// Links of a node that are only in the grave.
    pub(crate) fn hidden_links(&self, number: u64) -> usize {
        self.graves.get(&number).map_or(0, Vec::len)
    }

    /// Everything, for a power cut.
    pub(crate) fn take(&mut self) -> (Vec<(OsString, Was)>, Graves) {
        let all = std::mem::take(self);
        (all.changed.into_values().flatten().collect(), all.graves)
    }

    fn release(&mut self, number: u64) -> Vec<PathBuf> {
        let Some(names) = self.kept.get_mut(&number) else { return Vec::new() };
        *names -= 1;
        if *names > 0 {
            return Vec::new();
        }
        self.kept.remove(&number);
        self.graves.remove(&number).unwrap_or_default()
    }
}
