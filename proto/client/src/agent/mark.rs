//! How far which file was taken. Written with each block of the spool, read at the next start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A file that is taken in part, or whole and not yet acked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Its name in the folder.
    pub name: String,
    /// Device and inode: a new file of the same name is another one.
    pub identity: (u64, u64),
    /// Size at which it was settled.
    pub bytes: u64,
    /// Items (records and lines that cannot be one) taken so far.
    pub items: u64,
    /// Whether it was taken to its end.
    pub whole: bool,
    /// Last sequence of its records; 0 = it has none.
    pub last_sequence: u64,
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

    pub(crate) fn find(&mut self, name: &str, identity: (u64, u64)) -> Option<&mut FileMark> {
        self.files.iter_mut().find(|file| file.name == name && file.identity == identity)
    }
}
