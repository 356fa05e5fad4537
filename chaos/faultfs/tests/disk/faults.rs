//! Faults of a disk that keeps its power.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use dtm_faultfs::{Control, Effect, Op, Rule, tell};

use crate::{Disk, errno};

// fault: F10
#[test]
fn errors_reach_the_program_and_only_the_files_that_are_meant() {
    let Some(disk) = Disk::mount() else { return };
    let (log, other) = (disk.write("1.log", b"abc"), disk.write("1.sst", b"abc"));
    let write = disk.add(Rule::once(Op::Write, "*.log", Effect::Fail(libc::EIO))).unwrap();
    other.write_all_at(b"x", 0).unwrap();
    assert_eq!(errno(log.write_all_at(b"x", 0)), libc::EIO);
    log.write_all_at(b"x", 0).unwrap();
    let read = disk.add(Rule::once(Op::Read, "*.log", Effect::Fail(libc::EIO))).unwrap();
    assert_eq!(errno(log.read_at(&mut [0; 3], 0)), libc::EIO);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(log.read_at(&mut [0; 3], 0).unwrap(), 3);
    let sync = disk.add(Rule::always(Op::SyncFolder, "", Effect::Fail(libc::EIO))).unwrap();
    let folder = fs::File::open(disk.path()).unwrap();
    assert_eq!((errno(folder.sync_all()), errno(folder.sync_all())), (libc::EIO, libc::EIO));
    let rename = disk.add(Rule::once(Op::Rename, "new", Effect::Fail(libc::EIO))).unwrap();
    assert_eq!(errno(fs::rename(disk.at("1.sst"), disk.at("new"))), libc::EIO);
    let create = disk.add(Rule::once(Op::Create, "c", Effect::Fail(libc::EROFS))).unwrap();
    assert_eq!(errno(fs::write(disk.at("c"), b"")), libc::EROFS);
    let remove = disk.add(Rule::once(Op::Remove, "1.sst", Effect::Fail(libc::EIO))).unwrap();
    assert_eq!(errno(fs::remove_file(disk.at("1.sst"))), libc::EIO);
    let fired = [write, read, sync, rename, create, remove].map(|id| disk.fired(id));
    assert_eq!(fired, [1, 1, 2, 1, 1, 1]);
    assert_eq!(disk.counts().failed, 7);
    disk.heal();
    folder.sync_all().unwrap();
    assert!(disk.rules().is_empty());
}

// fault: F12
#[test]
fn a_full_disk_says_so_and_removed_files_make_room() {
    let Some(disk) = Disk::mount() else { return };
    disk.write("old", &[1; 1 << 20]);
    disk.limit_space(Some(64 << 10));
    let stat = nix::sys::statvfs::statvfs(disk.path()).unwrap();
    assert_eq!(stat.blocks_available() * stat.fragment_size(), 64 << 10);
    let file = disk.write("new", &[2; 32 << 10]);
    assert_eq!(errno(file.write_all_at(&[2; 128 << 10], 32 << 10)), libc::ENOSPC);
    assert_eq!(errno(fs::write(disk.at("other"), [0; 128 << 10])), libc::ENOSPC);
    let room = nix::fcntl::FallocateFlags::empty();
    assert!(nix::fcntl::fallocate(&file, room, 0, 1 << 20).is_err());
    // What has its room already can be written anew.
    file.write_all_at(&[3; 32 << 10], 0).unwrap();
    assert!(disk.counts().no_space >= 3);
    fs::remove_file(disk.at("old")).unwrap();
    file.write_all_at(&[2; 128 << 10], 32 << 10).unwrap();
    disk.limit_space(None);
    file.write_all_at(&[2; 8 << 20], 0).unwrap();
}

// fault: F13
#[test]
fn syncs_get_slow_and_other_operations_do_not() {
    let Some(disk) = Disk::mount() else { return };
    let (slow, quick) = (disk.write("slow", b"x"), disk.write("quick", b"x"));
    let range = Effect::Delay(Duration::from_millis(500), Duration::from_millis(600));
    let id = disk.add(Rule::always(Op::Sync, "slow", range)).unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| slow.sync_data().unwrap());
        for _ in 0..10 {
            quick.write_all_at(b"y", 0).unwrap();
            quick.sync_data().unwrap();
        }
        assert!(began.elapsed() < Duration::from_millis(450), "others wait too");
    });
    let took = began.elapsed();
    assert!((500..5_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!((disk.fired(id), disk.counts().delayed), (1, 1));
}

// fault: F6 F7
#[test]
fn bits_turn_where_they_lie_and_files_end_early() {
    let Some(disk) = Disk::mount() else { return };
    disk.write_durable("f", &[0; 10_000]);
    let held = disk.open("f");
    assert_eq!(held.read_at(&mut [0; 100], 0).unwrap(), 100);
    disk.flip("f", 5_000, 3).unwrap();
    let mut byte = [0];
    held.read_exact_at(&mut byte, 5_000).unwrap();
    assert_eq!(byte, [8], "an open file shows it, though the kernel had read it");
    let flipped = disk.flip_any("*", 4).unwrap();
    assert_eq!(flipped, disk.flip_any("*", 4).unwrap(), "a seed finds the same bit");
    assert_eq!(disk.read("f").iter().filter(|byte| **byte != 0).count(), 1);
    assert_eq!(disk.counts().bits_flipped, 3);
    disk.truncate("f", 6_000).unwrap();
    assert_eq!(disk.read("f").len(), 6_000);
    assert!(disk.flip("f", 6_000, 0).is_err() && disk.flip_any("none", 1).is_err());
}

// fault: F9
#[test]
fn reads_lie_once() {
    let Some(disk) = Disk::mount() else { return };
    let file = disk.write("f", &[[1; 4_096], [2; 4_096]].concat());
    let stale = disk.add(Rule::once(Op::Read, "f", Effect::Stale)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!((byte, disk.fired(stale)), ([1], 0), "what did not change is not stale");
    file.write_all_at(&[3; 4_096], 0).unwrap();
    // A write leaves its page in the kernel's memory; opened anew, a file is read anew.
    let stale_bytes = disk.read("f");
    assert_eq!((stale_bytes[0], disk.fired(stale)), (1, 1));
    assert_eq!(disk.read("f")[0], 3);
    let rule = Rule::once(Op::Read, "f", Effect::Misdirect(4_096));
    let misdirected = disk.add(rule).unwrap();
    let mut page = [0; 4_096];
    fs::File::open(disk.at("f")).unwrap().read_exact_at(&mut page, 0).unwrap();
    let counts = disk.counts();
    assert_eq!((disk.fired(misdirected), counts.stale_reads, counts.misdirected_reads), (1, 1, 1));
    assert!(page == [2; 4_096], "{}", page[0]);
}

#[test]
fn another_process_steers_it_by_its_socket() {
    let Some(disk) = Disk::mount() else { return };
    let socket = disk.folder().join("control");
    let control = Control::serve(disk.shared(), &socket).unwrap();
    disk.write_durable("f", b"durable");
    assert_eq!(tell(&socket, "fail sync f EIO once").unwrap(), "{\"rule\":1}");
    let file = disk.open("f");
    file.write_all_at(b"D", 0).unwrap();
    assert_eq!(errno(file.sync_all()), libc::EIO);
    let rules = tell(&socket, "rules").unwrap();
    assert!(rules.contains("\"fired\":1"), "{rules}");
    assert!(tell(&socket, "cut").unwrap().contains("\"files_rolled_back\":[\"f\"]"));
    tell(&socket, "on").unwrap();
    assert_eq!(disk.read("f"), b"durable");
    assert!(tell(&socket, "counts").unwrap().contains("\"power_cuts\":1"));
    for wrong in [
        "",
        "fail sync f EIO",
        "fail sink f EIO once",
        "fail sync f EPERM once",
        "delay sync f 9-3 once",
        "space much",
        "flip f 0 8",
        "flip f 999 1",
        "remove 77",
        "on",
    ] {
        assert!(tell(&socket, wrong).is_err(), "{wrong}");
    }
    for right in [
        "space 100000",
        "space all",
        "delay sync * 5-500 always",
        "misdirect * -4096 3",
        "stale * once",
        "powercut sync *.log 7",
        "flip f 0 0",
        "flipany * 3",
        "truncate f 3",
        "heal",
        "cut torn 5",
        "on",
    ] {
        tell(&socket, right).unwrap();
    }
    drop(control);
    assert!(tell(&socket, "counts").is_err());
}
