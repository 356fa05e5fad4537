//! The start counter of a node and when it was last seen alive: one small file, `boot`.
//!
//! ```text
//!  boot   "COUNTER STAMP": the number of the last start, rising; Unix microseconds at which the node
//!         last said that it runs (each minute). A copy of the disk carries both as of its making.
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use dtm_storage::vfs::{RealVfs, replace_file};

const FILE: &str = "boot";
const FOUNDED: &str = "founded";
/// How often a running node writes its stamp.
pub(super) const STAMP_INTERVAL: Duration = Duration::from_secs(60);

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boot {
    /// Starts so far.
    pub(crate) counter: u64,
    /// When the node last said that it runs; 0 = nobody knows.
    pub(crate) stamp_us: i64,
}

impl Boot {
    /// Reads the file of a data folder; a folder without one belongs to a new node.
    pub(super) fn read(data: &Path) -> io::Result<Self> {
        let path = data.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        Self::parse(&text).ok_or_else(|| {
            let cause = format!("{} holds no start counter", path.display());
            io::Error::new(io::ErrorKind::InvalidData, cause)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let counter = words.next()?.parse().ok()?;
        let stamp_us = words.next().map_or(Some(0), |word| word.parse().ok())?;
        words.next().is_none().then_some(Self { counter, stamp_us })
    }

    /// Writes the file. Durable when it returns.
    pub(crate) fn write(self, data: &Path) -> io::Result<()> {
        let text = format!("{} {}\n", self.counter, self.stamp_us);
        replace_file(&RealVfs, &data.join(FILE), text.as_bytes())
    }

    /// How long ago the node last said that it runs; `None` where nobody knows. A new node was
    /// never away; one that `holds_replicas` is not new, whatever became of its file.
    pub(super) fn away(self, now_us: i64, holds_replicas: bool) -> Option<Duration> {
        match self {
            Self { counter: 0, .. } => (!holds_replicas).then_some(Duration::ZERO),
            Self { stamp_us: 0, .. } => None,
            // A clock that went back says nothing.
            Self { stamp_us, .. } => {
                u64::try_from(now_us - stamp_us).ok().map(Duration::from_micros)
            }
        }
    }
}

/// Whether founding the cluster was completed on this node.
pub(super) fn is_founded(data: &Path) -> bool {
    data.join(FOUNDED).exists()
}

/// Founding is complete. Durable when it returns.
pub(super) fn mark_founded(data: &Path) -> io::Result<()> {
    replace_file(&RealVfs, &data.join(FOUNDED), b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_not_a_new_node() {
        let folder = std::env::temp_dir().join(format!("dtm-boot-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(Boot::read(&folder).expect("none"), Boot::default());
        let boot = Boot { counter: 7, stamp_us: 1_000_000 };
        boot.write(&folder).expect("writes");
        assert_eq!(Boot::read(&folder).expect("reads"), boot);
        for damaged in ["", "x", "7 x", "7 8 9"] {
            fs::write(folder.join(FILE), damaged).expect("writes");
            assert!(Boot::read(&folder).is_err(), "{damaged:?} is not taken for a new node");
        }
        fs::remove_dir_all(&folder).expect("removes");
    }

    #[test]
    fn away_is_known_only_by_a_stamp_in_the_past() {
        let boot = |counter, stamp_us| Boot { counter, stamp_us };
        assert_eq!(boot(0, 0).away(5, false), Some(Duration::ZERO));
        assert_eq!(boot(0, 0).away(5, true), None, "a log without its file");
        assert_eq!(boot(3, 0).away(5, true), None, "a file without a stamp");
        assert_eq!(boot(3, 2).away(5, true), Some(Duration::from_micros(3)));
        assert_eq!(boot(3, 9).away(5, true), None, "a stamp of the future");
    }
}
