//! How far which file was taken. Written with each block of the spool, read at the next start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes at either end of what was taken that are kept as a digest: what is written over or comes
/// to lie in a freed inode shows in its first or last lines.
const EDGE_BYTES: u64 = 64 << 10;

/// A file that is taken in part, or whole and not yet acked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Its name in the folder.
    pub name: String,
    /// Device and inode: a new file of the same name is another one, mostly. The inode of a file
    /// that is gone may come back, so its content is held against `print`.
    pub identity: (u64, u64),
    /// Size at which it was settled.
    pub bytes: u64,
    /// Items (records and lines that cannot be one) taken so far.
    pub items: u64,
    /// Whether it was taken to its end.
    pub whole: bool,
    /// Last sequence of its records; 0 = it has none.
    pub last_sequence: u64,
    /// What it was; `None` in a mark that an earlier version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub print: Option<FilePrint>,
    /// Somebody took it away before it was done. Found out at each look, not stored.
    #[serde(skip)]
    pub(crate) is_gone: bool,
}

impl FileMark {
    /// Of a file of which nothing is taken yet.
    pub(crate) fn new(name: &str, identity: (u64, u64), bytes: u64, print: FilePrint) -> Self {
        let (name, print) = (name.to_owned(), Some(print));
        Self {
            name,
            identity,
            bytes,
            items: 0,
            whole: false,
            last_sequence: 0,
            print,
            is_gone: false,
        }
    }

    /// Whether `file` begins with what was taken under this mark.
    pub(crate) fn begins(&self, file: &File) -> io::Result<bool> {
        let Some(print) = &self.print else { return Ok(true) };
        match digest(file, self.bytes) {
            Ok(found) => Ok(found == print.digest),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// By what the content of a file is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePrint {
    /// When it was changed last: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// SHA-256 of its first and last 64 KiB, in hex.
    pub digest: String,
}

impl FilePrint {
    /// Of the first `bytes` of a file.
    pub(crate) fn of(file: &File, bytes: u64, modified: (i64, i64)) -> io::Result<Self> {
        Ok(Self { modified, digest: digest(file, bytes)? })
    }
}

/// Digest of both ends of the first `bytes` of a file.
fn digest(file: &File, bytes: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let edge = bytes.min(EDGE_BYTES);
    let mut buffer = vec![0u8; edge as usize];
    for from in [0, bytes - edge] {
        file.read_exact_at(&mut buffer, from)?;
        hash.update(&buffer);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Every file that is not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) files: Vec<FileMark>,
}

impl Mark {
    /// A mark that does not read is that of another version: the sequence in the spool still
    /// stands, and files would be taken twice, so it is an assertion and not a default.
    pub(crate) fn read(bytes: &Bytes) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        serde_json::from_slice(bytes).expect("the spool opened this block: its mark is as written")
    }

    pub(crate) fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("names and numbers always have a JSON form").into()
    }

    /// Files that are there.
    pub(crate) fn present(&self) -> usize {
        self.files.iter().filter(|file| !file.is_gone).count()
    }

    pub(crate) fn find(&mut self, name: &str, identity: (u64, u64)) -> Option<&mut FileMark> {
        self.files.iter_mut().find(|file| file.name == name && file.identity == identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_mark_of_an_earlier_version_reads_and_knows_files_by_inode() {
        let old = br#"{"files":[{"name":"a","identity":[1,2],"bytes":9,"items":1,"whole":true,"last_sequence":1}]}"#;
        let mut mark = Mark::read(&Bytes::from_static(old));
        let empty = tempfile::tempfile().expect("a file");
        let file = mark.find("a", (1, 2)).expect("there");
        assert!(file.print.is_none() && file.begins(&empty).expect("reads"));
    }

    #[test]
    fn a_file_is_known_by_both_ends_of_what_was_taken() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut content = vec![b'x'; 200_000];
        file.write_all(&content).expect("written");
        let bytes = content.len() as u64;
        let print = FilePrint::of(&file, bytes, (0, 0)).expect("reads");
        let mark = FileMark::new("a", (1, 2), bytes, print);
        file.write_all(b"more").expect("written");
        let begins = |file: &File| mark.begins(file).expect("reads");
        assert!(begins(&file), "it has grown");
        for at in [0, content.len() - 1] {
            content[at] = b'y';
            file.write_all_at(&content, 0).expect("written");
            assert!(!begins(&file), "byte {at} is another");
            content[at] = b'x';
        }
        file.set_len(bytes - 1).expect("cut");
        assert!(!begins(&file), "it is shorter");
    }
}
