//! Operations on the entries of folders. `entries` is held through each of them, so that a change
//! and its note are one.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink,
};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::counts::Counters;
use crate::disk::{Disk, GRAVE, errno};
use crate::entries::Entries;
use crate::node::Node;
use crate::rule::Op;

/// A node and what `stat` shows of it.
pub(crate) type Found = (Arc<Node>, Metadata, u64);

/// Whose a new entry is, and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// One line of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    pub(crate) kind: Option<FileType>,
    pub(crate) name: OsString,
}

impl Disk {
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> io::Result<Found> {
        let parent = self.node(parent)?;
        let _on = self.on()?;
        self.refuse_grave(&parent, name)?;
        let node = self.adopt(&parent, name, 1)?;
        self.stat(node, &self.entries.lock())
    }

    /// What `stat` shows, with the links that are in the grave left out.
    pub(crate) fn stat(&self, node: Arc<Node>, entries: &Entries) -> io::Result<Found> {
        let metadata = node.metadata()?;
        let hidden = u64::try_from(entries.hidden_links(node.number)).unwrap_or(u64::MAX);
        let links = metadata.nlink().saturating_sub(if metadata.is_dir() { 0 } else { hidden });
        Ok((node, metadata, links))
    }

    /// A new file, open for reading and writing, and its handle.
    pub(crate) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        owner: Owner,
        is_new: bool,
    ) -> io::Result<(Found, u64)> {
        let mut file = None;
        let found = self.make(parent, name, owner, |path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let options = if is_new { options.create_new(true) } else { options.create(true) };
            file = Some(options.open(path)?);
            Ok(())
        })?;
        let handle = self.keep_handle(Arc::clone(&found.0), file);
        Ok((found, handle))
    }

    pub(crate) fn make_folder(&self, parent: u64, name: &OsStr, owner: Owner) -> io::Result<Found> {
        self.make(parent, name, owner, |path| DirBuilder::new().mode(0o700).create(path))
    }

    /// A FIFO, a socket or a plain file that is not opened.
    pub(crate) fn make_special(
        &self,
        parent: u64,
        name: &OsStr,
        owner: Owner,
        device: u64,
    ) -> io::Result<Found> {
        use nix::sys::stat::{Mode, SFlag, mknod};
        self.make(parent, name, owner, |path| {
            let kind = SFlag::from_bits_truncate(owner.mode & libc::S_IFMT);
            Ok(mknod(path, kind, Mode::from_bits_truncate(0o600), device)?)
        })
    }

    pub(crate) fn make_symlink(
        &self,
        parent: u64,
        name: &OsStr,
        target: &Path,
    ) -> io::Result<Found> {
        self.make_entry(parent, name, |path| symlink(target, path))
    }

    /// Another name of a file.
    pub(crate) fn link(&self, number: u64, parent: u64, name: &OsStr) -> io::Result<Found> {
        let node = self.node(number)?;
        self.make_entry(parent, name, |path| link_node(&node, path))
    }

    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        owner: Owner,
        work: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Found> {
        self.make_entry(parent, name, |path| {
            let is_there = path.symlink_metadata().is_ok();
            work(path)?;
            if !is_there {
                chown(path, Some(owner.uid), Some(owner.gid))?;
                std::fs::set_permissions(path, Permissions::from_mode(owner.mode & 0o7777))?;
            }
            Ok(())
        })
    }

    fn make_entry(
        &self,
        parent: u64,
        name: &OsStr,
        work: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Found> {
        let parent = self.node(parent)?;
        self.fault(Op::Create, || self.relative_entry(&parent, name))?;
        let _on = self.on()?;
        self.refuse_grave(&parent, name)?;
        let mut entries = self.entries.lock();
        let path = parent.child(name);
        if path.symlink_metadata().is_err() {
            entries.change(&parent, name, None);
        }
        work(&path)?;
        let node = self.adopt(&parent, name, 1)?;
        self.stat(node, &entries)
    }

    pub(crate) fn remove(&self, parent: u64, name: &OsStr, is_dir: bool) -> io::Result<()> {
        let parent = self.node(parent)?;
        self.fault(Op::Remove, || self.relative_entry(&parent, name))?;
        let _on = self.on()?;
        self.refuse_grave(&parent, name)?;
        let mut entries = self.entries.lock();
        let node = self.adopt(&parent, name, 0)?;
        let path = parent.child(name);
        if is_dir && std::fs::read_dir(&path)?.next().is_some() {
            return Err(errno(libc::ENOTEMPTY));
        }
        entries.change(&parent, name, Some(&node));
        self.give_back(&self.stat(Arc::clone(&node), &entries)?);
        let is_moved = self.bury(&mut entries, &node, &path)?;
        match (is_dir, is_moved) {
            (true, true) => Ok(()),
            (true, false) => std::fs::remove_dir(&path),
            (false, _) => std::fs::remove_file(&path),
        }
    }

    pub(crate) fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: u32,
    ) -> io::Result<()> {
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        self.fault(Op::Rename, || self.relative_entry(&new, to.1))?;
        let _on = self.on()?;
        self.refuse_grave(&old, from.1)?;
        self.refuse_grave(&new, to.1)?;
        let flags = RenameFlags::from_bits(flags).ok_or_else(|| errno(libc::EINVAL))?;
        let swaps = flags.contains(RenameFlags::RENAME_EXCHANGE);
        let mut entries = self.entries.lock();
        let moved = self.adopt(&old, from.1, 0)?;
        let replaced = match self.adopt(&new, to.1, 0) {
            Ok(node) => Some(node),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if replaced.is_some() && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return Err(errno(libc::EEXIST));
        }
        if replaced.as_ref().is_some_and(|replaced| replaced.number == moved.number) {
            // Two names of one file: nothing happens.
            return Ok(());
        }
        let (old_path, new_path) = (old.child(from.1), new.child(to.1));
        if replaced.as_ref().is_some_and(|node| node.is_dir && !swaps)
            && std::fs::read_dir(&new_path)?.next().is_some()
        {
            return Err(errno(libc::ENOTEMPTY));
        }
        entries.change(&old, from.1, Some(&moved));
        entries.change(&new, to.1, replaced.as_ref());
        entries.join((&old, from.1), (&new, to.1));
        if let Some(replaced) = replaced.filter(|_| !swaps) {
            self.give_back(&self.stat(Arc::clone(&replaced), &entries)?);
            self.bury(&mut entries, &replaced, &new_path)?;
        }
        Ok(renameat2(AT_FDCWD, &old_path, AT_FDCWD, &new_path, flags)?)
    }

    /// `fsync` of a folder: its entries are on the disk when it returns.
    pub(crate) fn sync_folder(&self, number: u64) -> io::Result<()> {
        let node = self.node(number)?;
        self.fault(Op::SyncFolder, || self.relative(&node))?;
        let _on = self.on()?;
        for unneeded in self.entries.lock().synced(node.number) {
            if unneeded.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                std::fs::remove_dir_all(unneeded)?;
            } else {
                std::fs::remove_file(unneeded)?;
            }
        }
        if self.does_sync {
            node.open(false)?.sync_all()?;
        }
        Counters::add(&self.counters.folder_syncs, 1);
        Ok(())
    }

    /// The lines of a folder, without the grave.
    pub(crate) fn list(&self, number: u64) -> io::Result<Vec<Listed>> {
        let node = self.node(number)?;
        let _on = self.on()?;
        let mut lines = Vec::new();
        for line in std::fs::read_dir(node.path())? {
            let line = line?;
            let name = line.file_name();
            if self.refuse_grave(&node, &name).is_ok() {
                let kind = line.file_type().ok();
                lines.push(Listed { number: self.swapped(line.ino()), kind, name });
            }
        }
        Ok(lines)
    }

    fn adopt(&self, parent: &Node, name: &OsStr, lookups: u64) -> io::Result<Arc<Node>> {
        let found = Node::at(&parent.child(name))?;
        Ok(self.nodes.lock().adopt(found, lookups))
    }

    /// Keeps in the grave what a power cut would bring back. Returns whether it was moved there,
    /// as folders are, which cannot have a second name.
    fn bury(&self, entries: &mut Entries, node: &Arc<Node>, path: &Path) -> io::Result<bool> {
        if !entries.is_kept(node.number) {
            return Ok(false);
        }
        if !node.is_dir && entries.hidden_links(node.number) > 0 {
            return Ok(false);
        }
        let grave = self.grave();
        if node.is_dir {
            std::fs::rename(path, &grave)?;
        } else {
            std::fs::hard_link(path, &grave)?;
        }
        entries.buried(node.number, grave);
        Ok(node.is_dir)
    }

    fn refuse_grave(&self, parent: &Node, name: &OsStr) -> io::Result<()> {
        let is_grave = name == GRAVE && parent.number == self.root.number;
        if is_grave { Err(errno(libc::ENOENT)) } else { Ok(()) }
    }

    fn relative_entry(&self, parent: &Node, name: &OsStr) -> String {
        Path::new(&self.relative(parent)).join(name).to_string_lossy().into_owned()
    }
}

/// Another name for a node, wherever its own names are.
pub(crate) fn link_node(node: &Node, path: &Path) -> io::Result<()> {
    use nix::fcntl::AtFlags;
    let from = node.path();
    Ok(nix::unistd::linkat(AT_FDCWD, &from, AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}
