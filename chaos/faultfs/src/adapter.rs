//! The kernel's requests, handed to the disk.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use std::os::unix::fs::{MetadataExt, chown};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::disk::{Disk, len};
use crate::folders::{Found, Owner};

/// One mount of a disk.
pub(crate) struct Adapter(pub(crate) Arc<Disk>);

/// Nobody else changes the backing folder while it is mounted, and what the disk itself changes is
/// told to the kernel.
const TTL: Duration = Duration::from_secs(60);
/// Bytes of one write or read from the kernel.
const REQUEST_BYTES: u32 = 1 << 20;

impl Adapter {
    fn attr(&self, (node, metadata, links): &Found) -> FileAttr {
        let time = |seconds: i64, nanos: i64| {
            let nanos = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let epoch = SystemTime::UNIX_EPOCH;
            let at = if seconds < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
            at.unwrap_or(epoch) + nanos
        };
        FileAttr {
            ino: INodeNo(self.0.swapped(node.number)),
            size: metadata.len(),
            blocks: metadata.blocks(),
            atime: time(metadata.atime(), metadata.atime_nsec()),
            mtime: time(metadata.mtime(), metadata.mtime_nsec()),
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
            crtime: SystemTime::UNIX_EPOCH,
            kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
            perm: u16::try_from(metadata.mode() & 0o7777).expect("twelve bits fit sixteen"),
            nlink: u32::try_from(*links).unwrap_or(u32::MAX),
            uid: metadata.uid(),
            gid: metadata.gid(),
            rdev: u32::try_from(metadata.rdev()).unwrap_or(0),
            blksize: 4_096,
            flags: 0,
        }
    }

    fn stat(&self, number: u64) -> io::Result<FileAttr> {
        let node = self.0.node(number)?;
        let _on = self.0.on()?;
        let found = self.0.stat(node, &self.0.entries.lock())?;
        Ok(self.attr(&found))
    }

    fn entry(&self, found: io::Result<Found>, reply: ReplyEntry) {
        match found {
            Ok(found) => reply.entry(&TTL, &self.attr(&found), Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn change(&self, number: u64, change: &Change) -> io::Result<FileAttr> {
        let node = self.0.node(number)?;
        if let Some(size) = change.size {
            self.0.resize(&node, size)?;
        }
        let on = self.0.on()?;
        let path = node.path();
        if let Some(mode) = change.mode {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777);
            std::fs::set_permissions(&path, mode)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            chown(&path, change.uid, change.gid)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let (atime, mtime) = (time(change.atime), time(change.mtime));
            let flags = UtimensatFlags::FollowSymlink;
            utimensat(nix::fcntl::AT_FDCWD, &path, &atime, &mtime, flags)?;
        }
        drop(on);
        self.stat(number)
    }

    fn space(&self) -> io::Result<nix::sys::statvfs::Statvfs> {
        let _on = self.0.on()?;
        Ok(nix::sys::statvfs::statvfs(&self.0.root_path)?)
    }
}

/// What `setattr` asks for.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn time(time: Option<TimeOrNow>) -> TimeSpec {
    match time {
        None => TimeSpec::UTIME_OMIT,
        Some(TimeOrNow::Now) => TimeSpec::UTIME_NOW,
        Some(TimeOrNow::SpecificTime(time)) => {
            TimeSpec::from_duration(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
        }
    }
}

fn done(outcome: io::Result<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn attributes(outcome: io::Result<FileAttr>, reply: ReplyAttr) {
    match outcome {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The writeback cache stays off: a write that was answered is here, a sync means a sync.
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_ASYNC_DIO;
        let _missing_in_old_kernels = config.add_capabilities(wanted);
        let _smaller_than_asked_for = config.set_max_write(REQUEST_BYTES);
        let _smaller_than_asked_for = config.set_max_readahead(REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.0.lookup(parent.0, name), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.0.nodes.lock().forget(self.0.swapped(ino.0), lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.stat(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(self.change(ino.0, &Change { mode, uid, gid, size, atime, mtime }), reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        use std::os::unix::ffi::OsStrExt;
        let target = self.0.node(ino.0).and_then(|node| {
            let _on = self.0.on()?;
            std::fs::read_link(node.backing_path()?)
        });
        match target {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let owner = owner(request, mode);
        self.entry(self.0.make_special(parent.0, name, owner, device.into()), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.entry(self.0.make_folder(parent.0, name, owner(request, mode)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.remove(parent.0, name, true), reply);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.entry(self.0.make_symlink(parent.0, name, target), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(self.0.rename((parent.0, name), (new_parent.0, new_name), flags.bits()), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.0.link(ino.0, parent.0, name), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(ino.0, flags.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let is_new = flags & libc::O_EXCL != 0;
        match self.0.create(parent.0, name, owner(request, mode), is_new) {
            Ok((found, handle)) => {
                let (handle, flags) = (FileHandle(handle), FopenFlags::empty());
                reply.created(&TTL, &self.attr(&found), Generation(0), handle, flags);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle.0, offset, usize::try_from(size).unwrap_or(0)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(handle.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(len(data)).unwrap_or(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.drop_handle(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.sync(handle.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(self.0.allocate(handle.0, offset, length, mode), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.node(ino.0) {
            Ok(node) => {
                let handle = self.0.keep_handle(node, None);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.0.handle(handle.0).and_then(|handle| {
            if offset == 0 {
                *handle.list.lock() = self.0.list(ino.0)?;
            }
            Ok(handle)
        });
        let handle = match listed {
            Ok(handle) => handle,
            Err(error) => return reply.error(error.into()),
        };
        let list = handle.list.lock();
        let dots = [".", ".."].map(|name| (ino, FileType::Directory, OsStr::new(name)));
        let lines = list.iter().map(|line| {
            let kind = line.kind.and_then(FileType::from_std).unwrap_or(FileType::RegularFile);
            (INodeNo(line.number), kind, line.name.as_os_str())
        });
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (1..).zip(dots.into_iter().chain(lines)).skip(from) {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.drop_handle(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.sync_folder(ino.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = match self.space() {
            Ok(space) => space,
            Err(error) => return reply.error(Errno::from(error)),
        };
        let block = space.fragment_size().max(1);
        let left = self.0.space_left.lock().map_or(u64::MAX, |left| left / block);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        reply.statfs(
            space.blocks(),
            space.blocks_free().min(left),
            space.blocks_available().min(left),
            space.files(),
            space.files_free(),
            small(space.block_size()),
            small(space.name_max()),
            small(block),
        );
    }
}

fn owner(request: &Request, mode: u32) -> Owner {
    Owner { uid: request.uid(), gid: request.gid(), mode }
}
