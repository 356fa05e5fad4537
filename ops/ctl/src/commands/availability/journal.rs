//! What a probe saw, on disk: a file a month, only appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dtm_availability::Line;
use jiff::Timestamp;

use super::LOCAL;
use crate::Failure;

const PREFIX: &str = "availability-";
const ENDING: &str = ".jsonl";

/// The folder of one probe.
pub(super) struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Makes the folder where it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Held by the one probe that writes here, until it ends.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let path = self.folder.join("probe.lock");
        let file = File::create(&path).map_err(Failure::file(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let folder = self.folder.display().to_string();
                Err(Failure::usage("cli.availability.in_use", &[("folder", &folder)]))
            }
            Err(fs::TryLockError::Error(error)) => Err(Failure::file(&path)(error)),
        }
    }

    /// On disk when it returns. A line that an earlier life left torn is ended first.
    pub(super) fn append(&self, line: &Line, minute: i64) -> Result<(), Failure> {
        let path = self.folder.join(format!("{PREFIX}{}{ENDING}", month(minute)));
        let write = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            if is_torn(&mut file)? {
                file.set_len(whole(&fs::read(&path)?))?;
            }
            file.write_all(line.show().as_bytes())?;
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(Failure::file(&path))
    }
}

fn is_torn(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// How much of a file is whole lines.
fn whole(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1)
}

fn month(minute: i64) -> String {
    let at = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or_default();
    LOCAL.to_datetime(at).strftime("%Y-%m").to_string()
}

/// Everything a probe has noted, in its order.
pub(super) fn read(folder: &Path) -> Result<Vec<Line>, Failure> {
    let entries = fs::read_dir(folder).map_err(Failure::file(folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && name.ends_with(ENDING)).collect();
    names.sort_unstable();
    let mut all = Vec::new();
    for name in names {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(Failure::file(&path))?;
        let wrong = |error: dtm_availability::Error| {
            Failure::file(&path)(std::io::Error::new(ErrorKind::InvalidData, error.to_string()))
        };
        all.extend(Line::all(&text).map_err(wrong)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use dtm_availability::{Minute, Period};

    use super::*;

    #[test]
    fn what_was_noted_is_read_back_over_months_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(&folder.path().join("probe")).expect("a journal");
        let minute = |at| Line::Seen(Minute { minute: at, ..Minute::default() });
        let december = Period::parse("2026-12").expect("a month").from;
        let months = [december - 1, december, december + 1];
        journal.append(&minute(months[0]), months[0]).expect("noted");
        journal.append(&minute(months[1]), months[1]).expect("noted");
        let path = journal.folder.join("availability-2026-12.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(b"{\"minu").expect("torn");
        let all = || read(&journal.folder).expect("lines");
        assert_eq!(all(), [minute(months[0]), minute(months[1])]);
        journal.append(&minute(months[2]), months[2]).expect("noted");
        assert_eq!(all(), months.map(minute));
    }

    #[test]
    fn one_probe_writes_to_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let held = journal.lock().expect("free");
        assert!(matches!(journal.lock(), Err(Failure::Usage { .. })));
        drop(held);
        journal.lock().expect("free again");
    }
}
