//! What can be set about the state store.

/// Settings of the state store. Every one has a default that suits a node of 4 to 16 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// Rows in memory before they are written to disk, bytes. Default 64 MiB, from 1 MiB.
    pub write_buffer_bytes: usize,
    /// How many such buffers may exist, the one being filled included, before writers wait.
    /// Default 4, from 2.
    pub write_buffers_max: u32,
    /// Cache of uncompressed blocks, indexes and filters, bytes. Default 128 MiB.
    pub block_cache_bytes: usize,
    /// Size of a block before compression, bytes. Default 8 KiB: rows are small and looked up by key.
    pub block_bytes: usize,
    /// Bits a key in the bloom filters; 0 turns them off. Default 10 (1 % false positives).
    pub bloom_bits_per_key: u32,
    /// Files held open at once. Default 1024.
    pub open_files_max: u32,
    /// Threads that write buffers out and merge files. Default 2.
    pub background_jobs: u32,
    /// LZ4 on disk. Default on: tiles do not compress, names and positions do.
    pub compress: bool,
    /// Checksum of every block that a read touches is verified. Default on. Off only to measure.
    pub verify_checksums: bool,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 64 << 20,
            write_buffers_max: 4,
            block_cache_bytes: 128 << 20,
            block_bytes: 8 << 10,
            bloom_bits_per_key: 10,
            open_files_max: 1024,
            background_jobs: 2,
            compress: true,
            verify_checksums: true,
        }
    }
}
