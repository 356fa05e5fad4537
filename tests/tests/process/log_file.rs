//! The log of a node that does not run, block by block (docs/formats-log.md), to damage it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const SEGMENT_HEADER: usize = 512;
const BLOCK_HEADER: usize = 136;
const MAGIC: &[u8] = b"DTMB";
const ENTRY: u8 = 1;

/// Where a block lies.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    file: PathBuf,
    offset: usize,
    bytes: usize,
    kind: u8,
    payload_bytes: usize,
    /// Of which group.
    pub(crate) group: u32,
}

impl Block {
    /// Turns one bit in the middle of its payload.
    pub(crate) fn flip(&self) -> Result<()> {
        flip(&self.file, (self.offset + BLOCK_HEADER + self.payload_bytes / 2) as u64)
    }
}

/// Turns one bit of a file and syncs it.
pub(crate) fn flip(path: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at)?;
    Ok(file.sync_all()?)
}

/// The blocks of a node's log, oldest first.
pub(crate) fn blocks(node: &Path) -> Result<Vec<Block>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(node.join("data/log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "log") {
            files.push(path);
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file)?;
        let mut offset = SEGMENT_HEADER;
        while let Some(header) = bytes.get(offset..offset + BLOCK_HEADER)
            && header.starts_with(MAGIC)
        {
            let number =
                |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
            let payload_bytes = number(68) as usize;
            let whole = BLOCK_HEADER + payload_bytes + number(120) as usize;
            found.push(Block {
                file: file.clone(),
                offset,
                bytes: whole,
                kind: header[5],
                payload_bytes,
                group: number(64),
            });
            offset += whole;
        }
    }
    ensure!(!found.is_empty(), "no blocks in {}", node.display());
    Ok(found)
}

/// Entries of one group that are not near the end of its log, oldest first.
pub(crate) fn middle(node: &Path, group: u32) -> Result<Vec<Block>> {
    let mut found = blocks(node)?;
    found.retain(|block| block.kind == ENTRY && block.group == group && block.payload_bytes > 0);
    ensure!(found.len() > 20, "group {group} has {} entries", found.len());
    found.truncate(found.len() - 10);
    Ok(found)
}

/// Writes the first half of a block behind the last one, as a power cut in the middle of a write
/// leaves it.
pub(crate) fn tear(node: &Path) -> Result<()> {
    let found = blocks(node)?;
    let last = found.last().context("a block")?;
    let whole = std::fs::read(&last.file)?;
    let half = &whole[last.offset..last.offset + BLOCK_HEADER + last.payload_bytes / 2];
    let file = File::options().write(true).open(&last.file)?;
    file.write_all_at(half, (last.offset + last.bytes) as u64)?;
    Ok(file.sync_all()?)
}
