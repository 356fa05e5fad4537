//! What a power cut leaves.

use std::fs;
use std::os::unix::fs::FileExt;

use dtm_faultfs::{CutStyle, Effect, Op, Rule};

use crate::{Disk, errno};

// fault: F3
#[test]
fn unsynced_data_is_gone_and_synced_data_is_there() {
    let Some(disk) = Disk::mount() else { return };
    disk.write_durable("f", b"first");
    let file = disk.open("f");
    file.write_all_at(b" second", 5).unwrap();
    file.write_all_at(b"F", 0).unwrap();
    assert_eq!(disk.read("f"), b"First second");
    let report = disk.cut_power(CutStyle::DropAll).unwrap();
    assert_eq!(report.files_rolled_back, ["f"]);
    assert!(errno(file.write_all_at(b"x", 0)) > 0, "an open file outlived the cut");
    assert!(disk.cut_power(CutStyle::DropAll).is_err());
    disk.power_on().unwrap();
    assert!(disk.power_on().is_err());
    assert!(errno(file.write_all_at(b"x", 0)) > 0);
    assert_eq!(disk.read("f"), b"first");
    assert!(disk.counts().files_rolled_back == 1 && disk.counts().power_cuts == 1);
    assert!(disk.counts().bytes_dropped > 0);
    // Nothing is left to be undone.
    let report = disk.cut_power(CutStyle::DropAll).unwrap();
    assert_eq!((report.files_rolled_back.len(), report.entries_undone.len()), (0, 0));
    disk.power_on().unwrap();
    assert_eq!(disk.read("f"), b"first");
}

// fault: F3
#[test]
fn names_are_undone_until_their_folder_is_synced() {
    let Some(disk) = Disk::mount() else { return };
    for name in ["old", "target", "removed"] {
        disk.write_durable(name, name.as_bytes());
    }
    disk.write("created", b"x").sync_all().unwrap();
    fs::rename(disk.at("old"), disk.at("target")).unwrap();
    fs::remove_file(disk.at("removed")).unwrap();
    fs::create_dir(disk.at("folder")).unwrap();
    assert_eq!(disk.names(""), ["created", "folder", "target"]);
    let mut undone = disk.cut_power(CutStyle::DropAll).unwrap().entries_undone;
    undone.sort();
    assert_eq!(undone, ["created", "folder", "old", "removed", "target"]);
    disk.power_on().unwrap();
    assert_eq!(disk.names(""), ["old", "removed", "target"]);
    for name in ["old", "target", "removed"] {
        assert_eq!(disk.read(name), name.as_bytes());
    }
    // The same once more, with a sync of the folder.
    fs::rename(disk.at("old"), disk.at("target")).unwrap();
    fs::remove_file(disk.at("removed")).unwrap();
    disk.write("created", b"x").sync_all().unwrap();
    disk.write("empty", b"unsynced");
    disk.sync_folder("");
    let report = disk.cut_power(CutStyle::DropAll).unwrap();
    assert!(report.entries_undone.is_empty(), "{report:?}");
    disk.power_on().unwrap();
    assert_eq!(disk.names(""), ["created", "empty", "target"]);
    assert_eq!(disk.read("target"), b"old");
    assert_eq!((disk.read("created"), disk.read("empty")), (b"x".to_vec(), Vec::new()));
}

// fault: F3
#[test]
fn folders_come_back_with_what_was_in_them() {
    let Some(disk) = Disk::mount() else { return };
    fs::create_dir_all(disk.at("a/b")).unwrap();
    disk.write_durable("a/b/f", b"deep");
    disk.sync_folder("a");
    disk.sync_folder("");
    fs::create_dir(disk.at("c")).unwrap();
    disk.sync_folder("");
    // A move into another folder, then away with the whole tree.
    fs::rename(disk.at("a/b/f"), disk.at("c/g")).unwrap();
    fs::rename(disk.at("a/b"), disk.at("c/b2")).unwrap();
    fs::remove_dir(disk.at("a")).unwrap();
    fs::remove_file(disk.at("c/g")).unwrap();
    fs::remove_dir(disk.at("c/b2")).unwrap();
    fs::remove_dir(disk.at("c")).unwrap();
    assert!(disk.names("").is_empty());
    disk.cut_power(CutStyle::DropAll).unwrap();
    disk.power_on().unwrap();
    assert_eq!((disk.names(""), disk.names("a"), disk.names("c")), {
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        (names(&["a", "c"]), names(&["b"]), names(&[]))
    });
    assert_eq!(disk.read("a/b/f"), b"deep");
    // A rename between folders is one step: a sync of either side keeps both.
    fs::rename(disk.at("a/b/f"), disk.at("c/f")).unwrap();
    disk.sync_folder("c");
    disk.cut_power(CutStyle::DropAll).unwrap();
    disk.power_on().unwrap();
    assert!(disk.names("a/b").is_empty());
    assert_eq!(disk.read("c/f"), b"deep");
}

// fault: F5
#[test]
fn a_torn_cut_leaves_sectors_of_both() {
    let Some(disk) = Disk::mount() else { return };
    disk.write_durable("f", &[1; 8_192]);
    disk.open("f").write_all_at(&[2; 16_384], 0).unwrap();
    let report = disk.cut_power(CutStyle::Torn { seed: 3 }).unwrap();
    disk.power_on().unwrap();
    let bytes = disk.read("f");
    let sectors: Vec<u8> = bytes[..8_192].chunks(512).map(|sector| sector[0]).collect();
    assert!(sectors.contains(&1) && sectors.contains(&2), "{sectors:?}");
    assert!(bytes[..8_192].chunks(512).all(|s| s.iter().all(|byte| *byte == s[0])));
    assert!(report.sectors_arrived > 0 && disk.counts().sectors_arrived > 0);
}

// fault: F10
#[test]
fn a_sync_that_fails_once_loses_its_data_though_the_next_succeeds() {
    let Some(disk) = Disk::mount() else { return };
    disk.write_durable("log", &[1; 4_096]);
    let rule = Rule::once(Op::Sync, "*log", Effect::Fail(libc::EIO));
    let id = disk.add(rule).unwrap();
    let file = disk.open("log");
    file.write_all_at(&[2; 4_096], 4_096).unwrap();
    assert_eq!(errno(file.sync_data()), libc::EIO);
    assert_eq!(disk.fired(id), 1);
    file.sync_data().unwrap();
    assert_eq!(disk.read("log")[4_096], 2, "the kernel's memory still has it");
    disk.cut_power(CutStyle::DropAll).unwrap();
    disk.power_on().unwrap();
    let bytes = disk.read("log");
    assert!(bytes[..4_096] == [1; 4_096] && bytes[4_096..] == [0; 4_096]);
    assert_eq!((disk.counts().failed, disk.remove(id).unwrap()), (1, 1));
}

// fault: F4
#[test]
fn a_rule_cuts_the_power_at_a_chosen_sync() {
    let Some(disk) = Disk::mount() else { return };
    disk.write_durable("f", b"");
    disk.add(Rule { after: 2, ..Rule::once(Op::Sync, "f", Effect::PowerCut) }).unwrap();
    let file = disk.open("f");
    let mut synced = 0;
    for at in 0..10 {
        file.write_all_at(&[1], at).unwrap();
        if file.sync_data().is_err() {
            break;
        }
        synced += 1;
    }
    assert_eq!(synced, 2);
    assert!(disk.is_failing());
    assert_eq!(errno(fs::write(disk.at("g"), b"")), libc::EIO, "the power is off");
    drop(file);
    disk.cut_power(CutStyle::DropAll).unwrap();
    disk.power_on().unwrap();
    assert!(!disk.is_failing());
    assert_eq!(disk.read("f").len(), 2);
}
