//! What the machine itself can do, measured in the same run as the arms: fdatasync appends,
//! a loopback round trip, AES-256-GCM, SHA-256, RocksDB's WAL with group commit. The first two are also the probes that tell
//! whether the machine changed between two runs of a round.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use rocksdb::{DB, Options, WriteOptions};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::clock::now;
use crate::error::Error;

/// State of the machine at one moment, in µs (medians).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Probe {
    /// Append of 4 KiB and fdatasync.
    pub fdatasync_us: f64,
    /// One byte there and back over a loopback TCP connection.
    pub rtt_us: f64,
}

/// Ceilings of the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceilings {
    /// Appends with fdatasync a second, by bytes of an append.
    pub fdatasync_per_s: Vec<(usize, f64)>,
    /// AES-256-GCM seal in MB/s a core, by bytes of a message.
    pub aes_gcm_mb_per_s: Vec<(usize, f64)>,
    /// SHA-256 in MB/s a core, by bytes of a message.
    pub sha256_mb_per_s: Vec<(usize, f64)>,
    /// Values synced a second by RocksDB's WAL, [`WAL_WRITERS`] writers whose commits it groups,
    /// by bytes of a value.
    pub rocksdb_wal_per_s: Vec<(usize, f64)>,
    /// Loopback round trip in µs.
    pub rtt_us: f64,
}

/// Writers of [`Ceilings::rocksdb_wal_per_s`], each with one value on its way.
const WAL_WRITERS: u64 = 32;
const WAL_FOR: Duration = Duration::from_secs(1);
/// One memtable takes all that a second can bring: no flush runs beside.
const WAL_MEMTABLE_BYTES: usize = 1 << 30;

/// Measures the probe in about a quarter of a second.
///
/// # Errors
/// When the disk or the loopback fails.
pub fn probe(folder: &Path) -> Result<Probe, Error> {
    let mut syncs = sync_times(folder, 4096, Duration::from_millis(120), 4000)?;
    let mut trips = round_trips(2000)?;
    Ok(Probe { fdatasync_us: middle(&mut syncs), rtt_us: middle(&mut trips) })
}

/// Measures all ceilings in a few seconds.
///
/// # Errors
/// When the disk or the loopback fails.
pub fn measure(folder: &Path) -> Result<Ceilings, Error> {
    let mut fdatasync_per_s = Vec::new();
    for bytes in [4096, 64 << 10, 1 << 20] {
        let times = sync_times(folder, bytes, Duration::from_millis(500), 100_000)?;
        let total_us: f64 = times.iter().sum();
        fdatasync_per_s.push((bytes, times.len() as f64 * 1e6 / total_us));
    }
    let sizes = [1024, 16 << 10, 64 << 10];
    let cipher = Aes256Gcm::new(&[7_u8; 32].into());
    let nonce = [9_u8; 12].into();
    let aes_gcm_mb_per_s = sizes
        .map(|bytes| {
            let mut text = vec![1_u8; bytes];
            (
                bytes,
                mb_per_s(bytes, || {
                    // The same nonce again and again: nothing here is ever sent or kept.
                    let tag =
                        cipher.encrypt_inout_detached(&nonce, b"a", text.as_mut_slice().into());
                    black_box(tag.is_ok());
                }),
            )
        })
        .to_vec();
    let sha256_mb_per_s = sizes
        .map(|bytes| {
            let text = vec![1_u8; bytes];
            (
                bytes,
                mb_per_s(bytes, || {
                    black_box(Sha256::digest(black_box(&text)));
                }),
            )
        })
        .to_vec();
    let mut rocksdb_wal_per_s = Vec::new();
    for bytes in [1024, 64 << 10] {
        rocksdb_wal_per_s.push((bytes, synced_values_per_s(folder, bytes)?));
    }
    let rtt_us = middle(&mut round_trips(5000)?);
    Ok(Ceilings { fdatasync_per_s, aes_gcm_mb_per_s, sha256_mb_per_s, rocksdb_wal_per_s, rtt_us })
}

fn mb_per_s(bytes: usize, mut work: impl FnMut()) -> f64 {
    let start = now();
    let mut rounds = 0_u64;
    while start.elapsed() < Duration::from_millis(300) {
        for _ in 0..64 {
            work();
        }
        rounds += 64;
    }
    rounds as f64 * bytes as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn sync_times(
    folder: &Path,
    bytes: usize,
    at_least: Duration,
    count_max: usize,
) -> Result<Vec<f64>, Error> {
    let path = folder.join("probe");
    let failed = || Error::io(format!("append to {}", path.display()));
    let mut file = std::fs::File::create(&path).map_err(failed())?;
    let block = vec![0x5a_u8; bytes];
    let start = now();
    let mut times = Vec::new();
    while times.len() < count_max && (times.len() < 16 || start.elapsed() < at_least) {
        let one = now();
        file.write_all(&block).map_err(failed())?;
        file.sync_data().map_err(failed())?;
        times.push(one.elapsed().as_secs_f64() * 1e6);
    }
    drop(file);
    std::fs::remove_file(&path).map_err(failed())?;
    Ok(times)
}

/// Writers that each wait for their own value: RocksDB puts those that wait together into one write
/// and one sync.
fn synced_values_per_s(folder: &Path, bytes: usize) -> Result<f64, Error> {
    let path = folder.join("wal");
    let failed = |error: rocksdb::Error| Error::protocol("rocksdb", error.to_string());
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(WAL_MEMTABLE_BYTES);
    let db = DB::open(&options, &path).map_err(failed)?;
    let start = now();
    let write = |writer: u64| {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let value = vec![0x5a_u8; bytes];
        let mut count = 0_u64;
        while start.elapsed() < WAL_FOR {
            let key = [writer.to_be_bytes(), count.to_be_bytes()].concat();
            db.put_opt(key, &value, &synced)?;
            count += 1;
        }
        Ok::<u64, rocksdb::Error>(count)
    };
    let counts: Result<Vec<u64>, rocksdb::Error> = std::thread::scope(|threads| {
        let running: Vec<_> =
            (0..WAL_WRITERS).map(|writer| threads.spawn(move || write(writer))).collect();
        running.into_iter().map(|one| one.join().expect("a writer does not panic")).collect()
    });
    let per_s = counts.map_err(failed)?.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64();
    drop(db);
    DB::destroy(&options, &path).map_err(failed)?;
    Ok(per_s)
}

fn round_trips(count: usize) -> Result<Vec<f64>, Error> {
    let failed = || Error::io("loopback round trip");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
    let mut near = TcpStream::connect(listener.local_addr().map_err(failed())?).map_err(failed())?;
    let (mut far, _) = listener.accept().map_err(failed())?;
    near.set_nodelay(true).map_err(failed())?;
    far.set_nodelay(true).map_err(failed())?;
    let echo = std::thread::spawn(move || {
        let mut byte = [0_u8; 1];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::with_capacity(count);
    let mut byte = [1_u8; 1];
    for _ in 0..count {
        let one = now();
        near.write_all(&byte).map_err(failed())?;
        near.read_exact(&mut byte).map_err(failed())?;
        times.push(one.elapsed().as_secs_f64() * 1e6);
    }
    drop(near);
    let _ = echo.join();
    Ok(times)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
