//! What a program may do on any disk works here too.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::time::Instant;

use crate::{Disk, errno};

#[test]
fn files_and_folders() {
    let Some(disk) = Disk::mount() else { return };
    fs::create_dir_all(disk.at("a/b/c")).unwrap();
    let mut file = disk.write("a/b/f", b"0123456789");
    file.seek(SeekFrom::Start(3)).unwrap();
    file.write_all(b"xyz").unwrap();
    assert_eq!(disk.read("a/b/f"), b"012xyz6789");
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(disk.read("a/b/f"), b"012x\0\0");
    let mut more = OpenOptions::new().append(true).open(disk.at("a/b/f")).unwrap();
    more.write_all(b"end").unwrap();
    assert_eq!(disk.read("a/b/f"), b"012x\0\0end");
    fs::rename(disk.at("a/b/f"), disk.at("a/g")).unwrap();
    fs::rename(disk.at("a/b"), disk.at("moved")).unwrap();
    assert_eq!(disk.names("a"), ["g"]);
    assert_eq!(disk.names(""), ["a", "moved"]);
    assert_eq!(errno(fs::remove_dir(disk.at("moved"))), libc::ENOTEMPTY);
    assert_eq!(errno(File::open(disk.at(".faultfs-grave"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(disk.at("none"))), libc::ENOENT);
    fs::hard_link(disk.at("a/g"), disk.at("h")).unwrap();
    assert_eq!(fs::metadata(disk.at("h")).unwrap().nlink(), 2);
    fs::remove_file(disk.at("a/g")).unwrap();
    assert_eq!(fs::metadata(disk.at("h")).unwrap().nlink(), 1);
    assert_eq!(disk.read("h"), b"012x\0\0end");
    symlink("h", disk.at("s")).unwrap();
    assert_eq!(fs::read_link(disk.at("s")).unwrap().to_str(), Some("h"));
    assert_eq!(disk.read("s"), b"012x\0\0end");
    fs::set_permissions(disk.at("h"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(disk.at("h")).unwrap().mode() & 0o777, 0o640);
    fs::remove_dir_all(disk.at("moved")).unwrap();
    // An open file lives on without a name.
    let mut open = File::open(disk.at("h")).unwrap();
    fs::remove_file(disk.at("h")).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"012x\0\0end");
    let stat = nix::sys::statvfs::statvfs(disk.path()).unwrap();
    assert!(stat.blocks_available() > 0);
}

#[test]
fn a_folder_of_many_files_is_listed_whole() {
    let Some(disk) = Disk::mount() else { return };
    for at in 0..2_000 {
        disk.write(&format!("{at:04}"), b"");
    }
    let names = disk.names("");
    assert_eq!(names.len(), 2_000);
    assert!(names.is_sorted());
}

#[test]
fn what_databases_ask_of_a_disk() {
    let Some(disk) = Disk::mount() else { return };
    let file = disk.write("f", b"");
    let room = nix::fcntl::FallocateFlags::empty();
    nix::fcntl::fallocate(&file, room, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    file.write_all_at(&[7; 8_192], 4_096).unwrap();
    let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
        | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&file, hole, 4_096, 4_096).unwrap();
    assert!(disk.read("f")[4_096..12_288] == [[0; 4_096], [7; 4_096]].concat());
    // Locks hold between two opens of one file.
    file.lock().unwrap();
    assert!(disk.open("f").try_lock().is_err());
    file.unlock().unwrap();
    disk.open("f").try_lock().unwrap();
    // O_DIRECT, with a buffer that is aligned as it asks for.
    let direct = OpenOptions::new()
        .write(true)
        .read(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(disk.at("f"))
        .unwrap();
    #[repr(align(4096))]
    struct Aligned([u8; 4_096]);
    let mut page = Box::new(Aligned([9; 4_096]));
    let syncs = disk.counts().syncs;
    direct.write_all_at(&page.0, 8_192).unwrap();
    assert!(disk.counts().syncs > syncs, "O_DSYNC syncs");
    page.0.fill(0);
    direct.read_exact_at(&mut page.0, 8_192).unwrap();
    assert!(page.0 == [9; 4_096]);
    mapped_reads(&file);
    disk.sync_folder("");
    assert_eq!(disk.counts().folder_syncs, 1);
}

/// A mapping shows what is in the file, also what is written later.
#[allow(unsafe_code)]
fn mapped_reads(file: &File) {
    let len = 1 << 20;
    // SAFETY: a fresh shared mapping of a file of that length, unmapped before it is cut off.
    let mapped = unsafe {
        let kind = (libc::PROT_READ, libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), len, kind.0, kind.1, file.as_raw_fd(), 0)
    };
    assert_ne!(mapped, libc::MAP_FAILED);
    let at = |offset: usize| {
        // SAFETY: within the mapping; volatile, since the file changes below it.
        unsafe { mapped.cast::<u8>().add(offset).read_volatile() }
    };
    assert_eq!((at(8_192), at(0)), (9, 0));
    file.write_all_at(&[5], 0).unwrap();
    assert_eq!(at(0), 5);
    // SAFETY: the mapping made above, used no more.
    assert_eq!(unsafe { libc::munmap(mapped, len) }, 0);
}

#[test]
fn it_is_fast_enough_to_live_on() {
    let Some(disk) = Disk::mount() else { return };
    let began = Instant::now();
    let mut file = disk.write("big", b"");
    let chunk = vec![3; 1 << 20];
    for _ in 0..256 {
        file.write_all(&chunk).unwrap();
    }
    file.sync_data().unwrap();
    let wrote = began.elapsed();
    let began = Instant::now();
    let small = disk.write("small", b"");
    for at in 0..2_000 {
        small.write_all_at(&[1; 300], at * 300).unwrap();
        small.sync_data().unwrap();
    }
    let synced = began.elapsed();
    let began = Instant::now();
    assert_eq!(disk.read("big").len(), 256 << 20);
    println!("256 MiB written in {wrote:?}, read in {:?}", began.elapsed());
    println!("2,000 small writes, each synced (not to the disk below), in {synced:?}");
    assert!(wrote.as_secs() < 30 && synced.as_secs() < 20);
}
