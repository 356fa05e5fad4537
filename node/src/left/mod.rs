//! What this node held of a life that is over, beyond what the life in force began with: told, sent
//! again, or given up.
//!
//! ```text
//!  left/…  ─ summary ──▶ streams and their sequences    ┐ what of it the life in force lacks:
//!          ─ resend  ──▶ the commands as they were       ┘ its cursors say
//!          ─ settle  ──▶ a leaf of meta, then the files are removed
//! ```

mod resend;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_cluster::{LeftFile, LeftHead, LeftStream, LeftSummary};
use dtm_machine::reads;
use dtm_machine::seams::Freshness;
use dtm_types::format::Cursor;
use dtm_types::{GroupId, StreamKey};
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::runtime::lives::Lives;
use crate::services::Shared;

pub(crate) use resend::resend;

/// One replica's, with what of it the life in force lacks.
pub(crate) struct Left {
    pub(crate) head: LeftHead,
    pub(crate) path: PathBuf,
    pub(crate) summary: LeftSummary,
    /// Of each stream, in the order of the summary.
    pub(crate) lacking: Vec<Vec<(u64, u64)>>,
}

impl Left {
    /// Records in it.
    pub(crate) fn records(&self) -> u64 {
        self.summary.streams.values().map(LeftStream::records).sum()
    }

    /// Of these the ones that the life in force lacks.
    pub(crate) fn lacking_records(&self) -> u64 {
        self.lacking.iter().flatten().map(|(from, to)| to - from + 1).sum()
    }
}

fn unread(error: std::io::Error) -> Status {
    Status::data_loss(error.to_string())
}

/// Everything that is kept, compared with the life in force.
///
/// # Errors
/// `DataLoss` where a file is damaged, with its path; what reading a group gives.
pub(crate) async fn all(shared: &Arc<Shared>) -> Result<Vec<Left>, Status> {
    let folder = Lives::of(&shared.config.node.data).left();
    let read = tokio::task::spawn_blocking(move || summaries(&folder)).await;
    let read = read.map_err(|error| Status::internal(error.to_string()))?.map_err(unread)?;
    let mut all = Vec::new();
    for (head, path, summary) in read {
        let mut lacking = Vec::new();
        for ((source, stream), left) in &summary.streams {
            let cursor = cursor(shared, head.group, (source, stream)).await?;
            lacking.push(lacking_of(left, &cursor));
        }
        all.push(Left { head, path, summary, lacking });
    }
    Ok(all)
}

fn summaries(folder: &Path) -> std::io::Result<Vec<(LeftHead, PathBuf, LeftSummary)>> {
    let files = LeftFile::all(folder)?.into_iter();
    let read = files.map(|file| {
        let (head, path) = (file.head, file.path().to_owned());
        Ok((head, path, LeftSummary::read(file)?))
    });
    read.collect()
}

async fn cursor(
    shared: &Shared,
    group: GroupId,
    (source, stream): (&str, &str),
) -> Result<Cursor, Status> {
    let Some(key) = StreamKey::parse(source, stream) else { return Ok(Cursor::default()) };
    let rows = shared.rows(group, Freshness::Current, reads::cursor_range(&key)).await?;
    let cursor = reads::cursor(rows.as_ref(), &key);
    Ok(cursor.map_err(|error| Status::internal(error.to_string()))?.unwrap_or_default())
}

/// Sequences that are above the cursor, or that the source declared lost since.
fn lacking_of(left: &LeftStream, cursor: &Cursor) -> Vec<(u64, u64)> {
    let mut lacking = Vec::new();
    for &(from, to) in &left.ranges {
        for lost in &cursor.lost_ranges {
            let (from, to) = (from.max(lost.from), to.min(lost.to).min(cursor.through));
            if from <= to {
                lacking.push((from, to));
            }
        }
        let above = from.max(cursor.through + 1);
        if above <= to {
            lacking.push((above, to));
        }
    }
    lacking.sort_unstable();
    lacking
}

/// SHA-256 over the files, one after the other.
///
/// # Errors
/// Of the disk.
pub(crate) fn digest(left: &[PathBuf]) -> std::io::Result<[u8; 32]> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    for path in left {
        let mut file = std::fs::File::open(path)?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
        }
    }
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use dtm_types::format::SequenceRange;

    use super::*;

    #[test]
    fn what_lies_above_the_cursor_or_was_declared_lost_is_lacking() {
        let left = LeftStream { ranges: vec![(10, 19), (30, 39)], ..LeftStream::default() };
        let cursor = |through, lost: &[(u64, u64)]| Cursor {
            through,
            lost_ranges: lost.iter().map(|&(from, to)| SequenceRange { from, to }).collect(),
            ..Cursor::default()
        };
        for (cursor, lacking) in [
            (cursor(0, &[]), &[(10, 19), (30, 39)][..]),
            (cursor(9, &[]), &[(10, 19), (30, 39)]),
            (cursor(14, &[]), &[(15, 19), (30, 39)]),
            (cursor(39, &[]), &[]),
            (cursor(100, &[(12, 33)]), &[(12, 19), (30, 33)]),
            (cursor(32, &[(31, 32)]), &[(31, 32), (33, 39)]),
        ] {
            assert_eq!(lacking_of(&left, &cursor), lacking, "{cursor:?}");
        }
    }
}
