//! What RocksDB's WAL does when a bit of it flips, or its tail is torn: the reason why entries and
//! votes of all groups are in a log of our own (docs/adr/0001).
//!
//! `wal_damage DIR`. Writes synced batches of twelve groups in turn, damages the WAL, opens it in
//! each recovery mode and says what is left.

use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRecoveryMode, IteratorMode, Options, WriteOptions};

const GROUPS: u32 = 12;
const ENTRIES: u32 = 100;
const VALUE_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The last write is there in part, as after a power cut.
    TornTail,
    /// One bit in the middle, which was synced and acknowledged long ago.
    BitInTheMiddle,
}

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "wal-damage".to_owned()));
    println!("{} entries of {GROUPS} groups written and synced", GROUPS * ENTRIES);
    for damage in [Damage::TornTail, Damage::BitInTheMiddle] {
        for mode in [
            DBRecoveryMode::PointInTime,
            DBRecoveryMode::TolerateCorruptedTailRecords,
            DBRecoveryMode::AbsoluteConsistency,
            DBRecoveryMode::SkipAnyCorruptedRecord,
        ] {
            // Left-overs of a run before.
            std::fs::remove_dir_all(&dir).ok();
            write(&dir);
            spoil(&dir, damage);
            println!("{damage:?}, {}: {}", name(mode), left(&dir, mode));
        }
    }
    std::fs::remove_dir_all(&dir).expect("the folder is ours");
}

fn name(mode: DBRecoveryMode) -> &'static str {
    match mode {
        DBRecoveryMode::PointInTime => "point in time (the default)",
        DBRecoveryMode::TolerateCorruptedTailRecords => "tolerate corrupted tail",
        DBRecoveryMode::AbsoluteConsistency => "absolute consistency",
        DBRecoveryMode::SkipAnyCorruptedRecord => "skip corrupted records",
    }
}

fn write(dir: &Path) {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir).expect("the folder is ours");
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    for index in 0..ENTRIES {
        for group in 0..GROUPS {
            let key = [group.to_be_bytes(), index.to_be_bytes()].concat();
            db.put_opt(key, [0x5a; VALUE_BYTES], &synced).expect("written");
        }
    }
}

fn spoil(dir: &Path, damage: Damage) {
    let files = std::fs::read_dir(dir).expect("it is there").filter_map(Result::ok);
    let mut logs: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    let wal = logs.pop().expect("a WAL");
    let mut bytes = std::fs::read(&wal).expect("it reads");
    match damage {
        Damage::TornTail => bytes.truncate(bytes.len() - 100),
        Damage::BitInTheMiddle => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
    }
    std::fs::write(&wal, bytes).expect("it writes");
}

/// What a database opened in this mode still holds.
fn left(dir: &Path, mode: DBRecoveryMode) -> String {
    let mut options = Options::default();
    options.set_wal_recovery_mode(mode);
    let db = match DB::open(&options, dir) {
        Ok(db) => db,
        Err(error) => return format!("does not open: {error}"),
    };
    let mut entries = [0_u32; GROUPS as usize];
    let mut last = [None; GROUPS as usize];
    for row in db.iterator(IteratorMode::Start) {
        let (key, _) = row.expect("it reads");
        let number =
            |from: usize| u32::from_be_bytes(key[from..from + 4].try_into().expect("four"));
        entries[number(0) as usize] += 1;
        last[number(0) as usize] = Some(number(4));
    }
    let total: u32 = entries.iter().sum();
    let whole = entries.iter().filter(|count| **count == ENTRIES).count();
    let holes =
        entries.iter().zip(&last).filter(|(n, last)| last.map_or(0, |l| l + 1) > **n).count();
    format!("opens without a word, {total} left; {whole} groups whole, {holes} with a hole")
}
