//! The format of version 1 stays readable for ever, and is written byte by byte the same.

use bytes::Bytes;

use super::kit::*;
use crate::vfs::MemVfs;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/v1/log-segment.bin");

/// Written before blocks told how far back the newest vote lies.
const NO_DISTANCE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/v1/log-segment-no-distance.bin");

fn write_a_little_of_everything(vfs: &MemVfs) {
    let (node, _) = open(vfs, unmarked());
    let log = node.group(3, 7, 2).expect("group");
    append(&log, entries(0..=4, 1, 40));
    done(|callback| log.save_vote(Bytes::from_static(b"a vote"), callback)).expect("saved");
    done(|callback| log.truncate_after(Some(3), callback)).expect("cut");
    append(&log, vec![entry(4, 2, 1500)]);
    done(|callback| log.purge_to(at(1, 1), callback)).expect("purged");
    let other = node.group(4, 9, 2).expect("group");
    done(|callback| other.reset(at(100, 5), Some(40), callback)).expect("reset");
    done(|callback| other.store_records(entries(99..=100, 5, 10), callback)).expect("stored");
    done(|callback| other.declare_whole(callback)).expect("declared");
    let gone = node.group(5, 1, 2).expect("group");
    append(&gone, entries(1..=1, 1, 8));
    done(|callback| node.drop_replica(gone.key(), callback)).expect("dropped");
    log.save_committed(Bytes::from_static(b"a position"));
}

#[test]
fn the_bytes_of_version_1_do_not_change_and_open_for_ever() {
    let vfs = MemVfs::new(1);
    write_a_little_of_everything(&vfs);
    // Opening seals the segment with its footer and trailer.
    drop(open(&vfs, unmarked()));
    let path = segments(&vfs)[0].clone();
    let bytes = vfs.bytes(&path).expect("there");
    if std::env::var_os("DTM_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(GOLDEN).parent().expect("a folder"))
            .expect("made");
        std::fs::write(GOLDEN, &bytes).expect("written");
        panic!("{GOLDEN} is written, which proves nothing: run again without DTM_WRITE_GOLDEN");
    }
    let golden = std::fs::read(GOLDEN).expect("the golden file is committed");
    assert!(golden == bytes, "the format changed: that needs a new version, not a new file");
    opens(golden);
    opens(std::fs::read(NO_DISTANCE).expect("the golden file is committed"));
}

fn opens(golden: Vec<u8>) {
    let vfs = MemVfs::new(2);
    vfs.put(&dir().join("seg-0000000000000001.log"), golden);
    let (node, recovery) = open(&vfs, unmarked());
    assert!(recovery.recovering.is_empty() && recovery.torn_bytes == 0, "{recovery:?}");
    let log = node.group(3, 7, 2).expect("group");
    let mut expected = entries(2..=3, 1, 40);
    expected.push(entry(4, 2, 1500));
    assert_eq!(read_all(&log), expected);
    let state = log.state();
    assert_eq!(state.vote, Some(Bytes::from_static(b"a vote")));
    assert_eq!(state.committed, Some(Bytes::from_static(b"a position")));
    assert_eq!(state.last_purged, Some(at(1, 1)));
    let other = node.group(4, 9, 2).expect("group");
    assert_eq!(other.state().last, Some(at(100, 5)));
    assert_eq!(other.read_record(100).expect("record"), entry(100, 5, 10));
    assert_eq!(node.groups().len(), 2);
}
