//! What a replica held above where its group went on without it: entries of a life that is over, kept
//! in a file until an operator has decided about them.
//!
//! ```text
//!  left/<life>-<group>-<replica>
//!    frame: dtm-left 1 <group> <life> <replica> <agreed> <applied>
//!    frame: index, term, leader (8 bytes each, little endian), payload       an entry; ascending
//!    frame: end <entries> <unread>
//!  frame = length (4 bytes, little endian), CRC32C of the body (4 bytes), body
//! ```
//! `agreed` is the last entry that went over, 0 for none; through `applied` the entries were committed
//! and so may have been acknowledged, and those above may have been, too, by another node. Payloads are
//! as the log holds them: records are sealed. `unread`: entries that the log could not give any more.

mod summary;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dtm_storage::vfs::{RealVfs, rename_for_good};
use dtm_types::{GroupId, Incarnation, ReplicaId};

use crate::LogEntry;

pub use summary::{LeftCommand, LeftStream, LeftSummary};

const VERSION: &str = "dtm-left 1";
const NUMBERS_BYTES: usize = 24;
/// No entry is as large: a length above it is damage.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Of whom a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftHead {
    /// The group.
    pub group: GroupId,
    /// The life that is over.
    pub incarnation: Incarnation,
    /// The replica that held it.
    pub replica: ReplicaId,
    /// Last index that the next life has as well; 0 = none.
    pub agreed: u64,
    /// Through which index entries were committed, as far as this replica knew.
    pub applied: u64,
}

impl LeftHead {
    /// Where it lies in a folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}-{}", self.incarnation.0, self.group.0, self.replica.0))
    }

    fn encode(&self) -> String {
        let Self { group, incarnation, replica, agreed, applied } = self;
        format!("{VERSION} {} {} {} {agreed} {applied}", group.0, incarnation.0, replica.0)
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let numbers = std::str::from_utf8(body).ok()?.strip_prefix(VERSION)?.strip_prefix(' ')?;
        let numbers = numbers.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        let [group, incarnation, replica, agreed, applied] = numbers[..] else { return None };
        Some(Self {
            group: GroupId(u32::try_from(group).ok()?),
            incarnation: Incarnation(incarnation),
            replica: ReplicaId(replica),
            agreed,
            applied,
        })
    }
}

/// A file that is being written; nothing of it is there before [`LeftWriter::finish`].
pub struct LeftWriter {
    out: BufWriter<File>,
    new: PathBuf,
    path: PathBuf,
    entries: u64,
    unread: u64,
}

impl LeftWriter {
    /// Begins a file in a folder, which is made; `None` where it was finished before.
    ///
    /// # Errors
    /// Of the disk.
    pub fn create(folder: &Path, head: &LeftHead) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let path = head.path(folder);
        if path.try_exists()? {
            return Ok(None);
        }
        let new = path.with_extension("new");
        let out = BufWriter::new(File::create(&new)?);
        let mut writer = Self { out, new, path, entries: 0, unread: 0 };
        writer.frame(&[head.encode().as_bytes()])?;
        Ok(Some(writer))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Of the disk.
    pub fn push(&mut self, entry: &LogEntry) -> io::Result<()> {
        let mut numbers = [0; NUMBERS_BYTES];
        for (place, number) in
            numbers.chunks_exact_mut(8).zip([entry.index, entry.term, entry.leader])
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.entries += 1;
        self.frame(&[&numbers, &entry.payload])
    }

    /// An entry that the log does not give any more.
    pub fn skip(&mut self) {
        self.unread += 1;
    }

    /// Ends the file. On stable storage when it returns, under its name. A file without entries is
    /// not kept: nothing was left behind.
    ///
    /// # Errors
    /// Of the disk.
    pub fn finish(mut self) -> io::Result<()> {
        if self.entries + self.unread == 0 {
            drop(self.out);
            return std::fs::remove_file(&self.new);
        }
        let end = format!("end {} {}", self.entries, self.unread);
        self.frame(&[end.as_bytes()])?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        rename_for_good(&RealVfs, &self.new, &self.path)?;
        // The folder itself may be new.
        let above = self.path.parent().and_then(Path::parent);
        above.map_or(Ok(()), |above| File::open(above)?.sync_all())
    }

    fn frame(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let sum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&sum.to_le_bytes())?;
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }
}

/// A file that is read, entry by entry.
pub struct LeftFile {
    /// Of whom it tells.
    pub head: LeftHead,
    input: BufReader<File>,
    path: PathBuf,
    entries: u64,
    unread: Option<u64>,
}

impl LeftFile {
    /// Opens a file.
    ///
    /// # Errors
    /// Of the disk; `InvalidData` where it is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut input = BufReader::new(File::open(path)?);
        let head = read_frame(&mut input)?.as_deref().and_then(LeftHead::parse);
        let head = head.ok_or_else(|| damaged(path))?;
        Ok(Self { head, input, path: path.to_owned(), entries: 0, unread: None })
    }

    /// All files of a folder, by group; nothing where there is no folder.
    ///
    /// # Errors
    /// Of the disk; `InvalidData` where one is damaged.
    pub fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let listed = match std::fs::read_dir(folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in listed {
            let path = entry?.path();
            // What was not finished begins anew at the next start.
            if path.is_file() && path.extension().is_none() {
                files.push(Self::open(&path)?);
            }
        }
        files.sort_by_key(|file| file.head);
        Ok(files)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Entries that the log could not give when the file was written; known at its end.
    pub fn unread(&self) -> u64 {
        self.unread.unwrap_or_default()
    }

    fn next_entry(&mut self) -> io::Result<Option<LogEntry>> {
        if self.unread.is_some() {
            return Ok(None);
        }
        let whole = read_frame(&mut self.input)?;
        let body = whole.ok_or_else(|| damaged(&self.path))?;
        if let Some(end) = body.strip_prefix(b"end ") {
            let numbers = std::str::from_utf8(end).ok().and_then(|end| end.split_once(' '));
            let numbers = numbers.and_then(|(all, unread)| {
                Some((all.parse::<u64>().ok()?, unread.parse::<u64>().ok()?))
            });
            let (all, unread) = numbers.ok_or_else(|| damaged(&self.path))?;
            if all != self.entries {
                return Err(damaged(&self.path));
            }
            self.unread = Some(unread);
            return Ok(None);
        }
        if body.len() < NUMBERS_BYTES {
            return Err(damaged(&self.path));
        }
        self.entries += 1;
        let number = |at: usize| {
            let bytes = body[at * 8..(at + 1) * 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        let (index, term, leader) = (number(0), number(1), number(2));
        let payload = Bytes::from(body).slice(NUMBERS_BYTES..);
        Ok(Some(LogEntry { index, term, leader, payload }))
    }
}

impl Iterator for LeftFile {
    type Item = io::Result<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

fn damaged(path: &Path) -> io::Error {
    let cause = format!("{} is damaged: take it from another node of the site", path.display());
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

/// A frame that is whole; `None` where it is cut or damaged.
fn read_frame(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 8];
    if !filled(input, &mut prefix)? {
        return Ok(None);
    }
    let (length, sum) = prefix.split_at(4);
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    let sum = u32::from_le_bytes(sum.try_into().expect("four bytes"));
    if length > FRAME_BYTES_MAX {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    let is_whole = filled(input, &mut body)? && crc32c::crc32c(&body) == sum;
    Ok(is_whole.then_some(body))
}

fn filled(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(group: u32) -> LeftHead {
        let (group, incarnation, replica) = (GroupId(group), Incarnation(1), ReplicaId(4));
        LeftHead { group, incarnation, replica, agreed: 7, applied: 9 }
    }

    fn entry(index: u64) -> LogEntry {
        let payload = Bytes::from(vec![index as u8; 3 * index as usize]);
        LogEntry { index, term: 2, leader: 1, payload }
    }

    #[test]
    fn it_is_read_as_it_was_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("left");
        assert_eq!(LeftFile::all(&folder).expect("none").len(), 0);
        for group in [3, 1] {
            let mut writer =
                LeftWriter::create(&folder, &head(group)).expect("begins").expect("new");
            for index in 8..=11 {
                writer.push(&entry(index)).expect("writes");
            }
            writer.skip();
            assert_eq!(LeftFile::all(&folder).expect("reads").len(), usize::from(group == 1));
            writer.finish().expect("ends");
        }
        assert!(LeftWriter::create(&folder, &head(3)).expect("looks").is_none(), "it is kept");
        let empty = LeftWriter::create(&folder, &head(2)).expect("begins").expect("new");
        empty.finish().expect("ends");
        let mut files = LeftFile::all(&folder).expect("reads");
        assert_eq!(files.iter().map(|file| file.head).collect::<Vec<_>>(), [head(1), head(3)]);
        let entries: Vec<_> = files[0].by_ref().map(|entry| entry.expect("whole")).collect();
        assert_eq!(entries, (8..=11).map(entry).collect::<Vec<_>>());
        assert_eq!(files[0].unread(), 1);
    }

    #[test]
    fn damage_and_a_cut_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LeftWriter::create(folder.path(), &head(1)).expect("begins").expect("new");
        (8..=9).for_each(|index| writer.push(&entry(index)).expect("writes"));
        writer.finish().expect("ends");
        let path = head(1).path(folder.path());
        let whole = std::fs::read(&path).expect("reads");
        let is_refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("writes");
            LeftFile::open(&path).and_then(|file| file.collect::<io::Result<Vec<_>>>()).is_err()
        };
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(is_refused(&damaged), "byte {at}");
            assert!(is_refused(&whole[..at]), "cut at {at}");
        }
        assert!(!is_refused(&whole));
    }
}
