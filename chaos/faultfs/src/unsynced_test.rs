//! One file between its syncs.

use std::io::Write;

use super::*;

struct Case {
    file: File,
    unsynced: Unsynced,
}

impl Case {
    fn new(content: &[u8]) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Self { unsynced: Unsynced::of(&file).unwrap(), file }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.unsynced.keep(&self.file, offset, bytes.len() as u64).unwrap();
        self.file.write_all_at(bytes, offset).unwrap();
    }

    fn truncate(&mut self, len: u64) {
        self.unsynced.keep(&self.file, len, u64::MAX - len).unwrap();
        self.file.set_len(len).unwrap();
    }

    fn sync(&mut self) {
        self.unsynced.synced(self.file.metadata().unwrap().len());
    }

    fn fail_sync(&mut self) {
        self.unsynced.sync_failed(self.file.metadata().unwrap().len());
    }

    fn cut(&self, style: CutStyle) -> (Vec<u8>, Dropped) {
        let dropped = self.unsynced.cut(&self.file, style, 1).unwrap();
        let mut all = vec![0; self.file.metadata().unwrap().len() as usize];
        self.file.read_exact_at(&mut all, 0).unwrap();
        (all, dropped)
    }
}

#[test]
fn appended_and_overwritten_bytes_go_and_synced_ones_stay() {
    let mut case = Case::new(b"");
    case.write(0, b"first");
    case.sync();
    case.write(0, b"FIRST and second");
    assert_eq!(case.cut(CutStyle::DropAll).0, b"first");
}

#[test]
fn pages_in_the_middle_come_back_and_only_they_are_kept() {
    let content: Vec<u8> = (0..5 * PAGE).map(|at| (at % 249) as u8).collect();
    let mut case = Case::new(&content);
    case.write(PAGE + 10, &[0xFF; 4_096]);
    case.write(PAGE + 20, b"again");
    assert_eq!(case.unsynced.bytes(), 2 * PAGE);
    let (after, dropped) = case.cut(CutStyle::DropAll);
    assert!(after == content);
    assert!(dropped.bytes >= 4_096, "{dropped:?}");
}

#[test]
fn a_truncation_is_undone() {
    let content: Vec<u8> = (0..3 * PAGE + 100).map(|at| (at % 247) as u8).collect();
    let mut case = Case::new(&content);
    case.truncate(PAGE / 2);
    case.write(0, b"new beginning");
    assert!(case.cut(CutStyle::DropAll).0 == content);
}

#[test]
fn what_a_failed_sync_should_have_written_is_not_written_by_the_next() {
    let mut case = Case::new(&[1; 4_096]);
    case.write(0, &[2; 100]);
    case.write(4_096, &[3; 4_096]);
    case.fail_sync();
    // The program tries again, is told that all is well, and goes on.
    case.write(8_192, &[4; 10]);
    case.sync();
    let (after, _) = case.cut(CutStyle::DropAll);
    assert!(after[..4_096] == [1; 4_096] && after[4_096..8_192] == [0; 4_096]);
    assert!(after[8_192..] == [4; 10]);
}

#[test]
fn what_is_written_anew_after_a_failed_sync_is_written_by_the_next() {
    let mut case = Case::new(&[1; 4_096]);
    case.write(0, &[2; 100]);
    case.fail_sync();
    case.write(0, &[2; 100]);
    case.sync();
    assert!(case.cut(CutStyle::DropAll).0[..100] == [2; 100]);
}

#[test]
fn a_torn_cut_mixes_whole_sectors_as_its_seed_says() {
    let torn = |seed| {
        let mut case = Case::new(&[1; 8_192]);
        case.write(0, &[2; 16_384]);
        case.cut(CutStyle::Torn { seed })
    };
    let (after, dropped) = torn(9);
    assert!((8_192..=16_384).contains(&after.len()));
    let sectors: Vec<&[u8]> = after[..8_192].chunks(SECTOR).collect();
    assert!(sectors.iter().all(|sector| *sector == [1; SECTOR] || *sector == [2; SECTOR]));
    assert!(sectors.contains(&&[1; SECTOR][..]) && sectors.contains(&&[2; SECTOR][..]));
    assert!(dropped.sectors_arrived > 0 && dropped.bytes > 0);
    assert_eq!(torn(9), torn(9));
    assert_ne!(torn(9).0, torn(10).0);
}
