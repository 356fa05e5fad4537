//! RocksDB as we use it: options, one way to write, one way to flush, the latch.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, LogLevel, Options,
    ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use super::config::StateConfig;
use super::error::Error;

/// Largest info log and how many are kept: 4 × 4 MiB.
const LOG_BYTES_MAX: usize = 4 << 20;
const LOG_FILES_MAX: usize = 4;
/// Says that the folder's files are damaged, and how it was found.
const DAMAGED: &str = "DAMAGED";
/// The manifest is rewritten past this size.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Files are written back to disk in steps of this size, so that a flush's fsync is short.
const SYNC_STEP_BYTES: u64 = 1 << 20;

/// The open database. Shared by all stores and frozen views; closed with the last of them.
pub(super) struct Engine {
    pub(super) db: DB,
    pub(super) dir: PathBuf,
    pub(super) verify_checksums: bool,
    write_options: WriteOptions,
    read_options: ReadOptions,
    durable_options: ReadOptions,
    /// One flush at a time; those who wait find their writes flushed by the one before.
    flushing: Mutex<()>,
    flushed_sequence: AtomicU64,
    fault: OnceLock<Error>,
}

impl Engine {
    /// Opens or creates. Refuses a folder that holds engine files but not the one that names them.
    pub(super) fn open(dir: &Path, config: &StateConfig) -> Result<Self, Error> {
        if let Ok(cause) = std::fs::read_to_string(dir.join(DAMAGED)) {
            return Err(Error::Damaged { file: Some(DAMAGED.into()), cause });
        }
        let create = is_pristine(dir)?;
        let db = DB::open(&options(config, create), dir).map_err(|e| Error::opening(dir, &e))?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let flushed = db.latest_sequence_number();
        Ok(Self {
            db,
            dir: dir.to_owned(),
            verify_checksums: config.verify_checksums,
            write_options,
            read_options: read_options(config.verify_checksums, ReadTier::All),
            durable_options: read_options(config.verify_checksums, ReadTier::Persisted),
            flushing: Mutex::new(()),
            flushed_sequence: AtomicU64::new(flushed),
            fault: OnceLock::new(),
        })
    }

    /// One atomic batch. Fails for ever after the first failure.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        self.running()?;
        let bytes = batch.size_in_bytes();
        self.db.write_opt(batch, &self.write_options).map_err(|e| self.latch(&e))?;
        metrics::counter!("dtm_state_batches_total").increment(1);
        metrics::counter!("dtm_state_batch_bytes_total").increment(bytes as u64);
        Ok(())
    }

    /// Returns after everything written before the call is on stable storage.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.running()?;
        let wanted = self.db.latest_sequence_number();
        let _one = self.flushing.lock();
        if self.flushed_sequence.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        self.running()?;
        let covered = self.db.latest_sequence_number();
        self.db.flush().map_err(|e| self.latch(&e))?;
        self.flushed_sequence.store(covered, Ordering::Release);
        metrics::counter!("dtm_state_flushes_total").increment(1);
        Ok(())
    }

    /// Everything written up to this sequence is known to be durable.
    pub(super) fn flushed_sequence(&self) -> u64 {
        self.flushed_sequence.load(Ordering::Acquire)
    }

    /// One row.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, Error> {
        pinned(self.db.get_pinned_opt(key, &self.read_options))
    }

    /// One row as a crash at this moment would leave it.
    pub(super) fn get_durable(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, Error> {
        pinned(self.db.get_pinned_opt(key, &self.durable_options))
    }

    /// Options of a bounded scan.
    pub(super) fn scan_options(&self, from: Vec<u8>, to: Vec<u8>) -> ReadOptions {
        let mut options = read_options(self.verify_checksums, ReadTier::All);
        options.set_iterate_range(from..to);
        options
    }

    /// The first failure, if the store is closed for writing.
    pub(super) fn fault(&self) -> Option<&Error> {
        self.fault.get()
    }

    fn running(&self) -> Result<(), Error> {
        match self.fault() {
            None => Ok(()),
            Some(first) => Err(Error::Stopped { reason: first.to_string() }),
        }
    }

    /// Keeps the first failure. A flush is never tried again: what reached the disk is unknown.
    fn latch(&self, error: &rocksdb::Error) -> Error {
        let error = Error::engine(error);
        if matches!(error, Error::DiskFull { .. }) {
            // What was not written is still in memory, and the engine goes on by itself when there
            // is room again: a flush that failed for want of room left no file in force.
            metrics::counter!("dtm_state_disk_full_total").increment(1);
            return error;
        }
        if matches!(error, Error::Damaged { .. }) {
            // Background work met it: it would meet it again. The next start moves the folder aside.
            if let Err(cause) = std::fs::write(self.dir.join(DAMAGED), error.to_string()) {
                tracing::error!(%cause, "damage of the state could not be marked");
            }
        }
        let first = self.fault.get_or_init(|| error.clone());
        metrics::counter!("dtm_state_failures_total").increment(1);
        tracing::error!(dir = %self.dir.display(), %error, %first, "state closed for writing");
        error
    }
}

fn pinned(
    got: Result<Option<rocksdb::DBPinnableSlice<'_>>, rocksdb::Error>,
) -> Result<Option<bytes::Bytes>, Error> {
    let value = got.map_err(|e| Error::engine(&e))?;
    Ok(value.map(|v| bytes::Bytes::copy_from_slice(&v)))
}

fn read_options(verify_checksums: bool, tier: ReadTier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(verify_checksums);
    options.set_read_tier(tier);
    options
}

/// True when the folder holds no database. A database without its `CURRENT` file would be taken for
/// a new one by the engine, and the state of all groups silently be lost.
fn is_pristine(dir: &Path) -> Result<bool, Error> {
    let io = |e: std::io::Error| Error::Io { cause: format!("{}: {e}", dir.display()) };
    std::fs::create_dir_all(dir).map_err(io)?;
    let mut leftover = None;
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if name == "CURRENT" {
            return Ok(false);
        }
        if name.ends_with(".sst") {
            leftover = Some(name);
        }
    }
    match leftover {
        None => Ok(true),
        Some(name) => Err(Error::Damaged {
            file: Some("CURRENT".into()),
            cause: format!("missing in {}, which holds {name}", dir.display()),
        }),
    }
}

fn options(config: &StateConfig, create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(config.write_buffer_bytes);
    options.set_max_write_buffer_number(clamp(config.write_buffers_max));
    options.set_max_open_files(clamp(config.open_files_max));
    options.set_max_background_jobs(clamp(config.background_jobs));
    options.set_bytes_per_sync(SYNC_STEP_BYTES);
    let compression =
        if config.compress { DBCompressionType::Lz4 } else { DBCompressionType::None };
    options.set_compression_type(compression);
    // Most rows are looked up by key soon after they were written: filter the memtable too.
    options.set_memtable_whole_key_filtering(config.bloom_bits_per_key > 0);
    options.set_memtable_prefix_bloom_ratio(if config.bloom_bits_per_key > 0 { 0.02 } else { 0.0 });
    // No prefix extractor: the prefix is the whole group, a filter on it would never say no. Scans
    // carry both bounds instead.
    options.set_block_based_table_factory(&table(config));
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(LOG_BYTES_MAX);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn table(config: &StateConfig) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(config.block_cache_bytes));
    table.set_block_size(config.block_bytes);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);
    if config.bloom_bits_per_key > 0 {
        table.set_bloom_filter(f64::from(config.bloom_bits_per_key), false);
        table.set_whole_key_filtering(true);
    }
    // Counted against the cache, so that the cache bounds what reads can hold.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

fn clamp(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
