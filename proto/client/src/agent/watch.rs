//! Watches a folder by looking at it now and then. One file at a time is taken, in the order of
//! their names.

use super::{BLOCK_BYTES, BLOCK_RECORDS, Error, FileMark, Intake, Report, blocking};
use crate::publish::{self, Item, RecordReader, files_of};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a file that is done is looked at: its writer may still hold it open.
const LATE_WATCH: Duration = Duration::from_secs(600);
/// Files that are done and looked at, at most; beyond it the oldest are left.
const LATE_MAX: usize = 256;
/// How far back the start of a line is looked for.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What was seen of a file at the last look.
#[derive(Clone, PartialEq, Eq)]
struct Look {
    identity: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

/// Files of the folder as they were at the last looks.
#[derive(Default)]
struct Seen {
    since: HashMap<PathBuf, (Look, Instant)>,
    skipped: HashMap<PathBuf, Look>,
    /// Files that are done, under their new names.
    done: Vec<(PathBuf, FileMark, Instant)>,
}

pub(super) async fn watch(mut intake: Intake, folder: PathBuf) -> Result<(), Error> {
    let mut seen = Seen::default();
    loop {
        finish(&mut intake, &folder, &mut seen).await?;
        take_back(&mut intake, &folder, &mut seen).await?;
        if intake.mark.files.len() < intake.config.files_open_max {
            for (path, look) in settled(&intake, &folder, &mut seen)? {
                if intake.stop.is_cancelled() {
                    return Ok(());
                }
                take_file(&mut intake, &path, &look, &mut seen).await?;
                finish(&mut intake, &folder, &mut seen).await?;
                if intake.mark.files.len() >= intake.config.files_open_max {
                    break;
                }
            }
        }
        tokio::select! {
            () = intake.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(intake.config.poll) => {}
        }
    }
}

/// Renames what is acked whole.
async fn finish(intake: &mut Intake, folder: &Path, seen: &mut Seen) -> Result<(), Error> {
    let acked = intake.publisher.acked().borrow().acked_through;
    let mut kept = Vec::new();
    let before = intake.mark.files.len();
    for mut file in std::mem::take(&mut intake.mark.files) {
        let path = folder.join(&file.name);
        let now = look(&path).filter(|now| now.identity == file.identity);
        match now {
            // It was renamed before the mark could say so, or somebody took it away.
            None => continue,
            Some(now) if now.bytes > file.bytes => {
                // It grew after it had settled: the rest is taken too.
                grown(&mut file, &path);
                kept.push(file);
            }
            Some(_) if file.whole && file.last_sequence <= acked => {
                let done = PathBuf::from(format!("{}.done", path.display()));
                fs::rename(&path, &done).map_err(|e| failed(folder, &e))?;
                intake.tell(Report::Done { file: file.name.clone() });
                seen.done.push((done, file, Instant::now() + LATE_WATCH));
            }
            Some(_) => kept.push(file),
        }
    }
    intake.mark.files = kept;
    if intake.mark.files.is_empty() && before > 0 {
        intake.take("", &[]).await?;
    }
    Ok(())
}

/// Takes up again what was written to after it was done: its writer held it open.
async fn take_back(intake: &mut Intake, folder: &Path, seen: &mut Seen) -> Result<(), Error> {
    let surplus = seen.done.len().saturating_sub(LATE_MAX);
    seen.done.drain(..surplus);
    let now = Instant::now();
    let mut quiet = Vec::new();
    for (done, mut file, until) in std::mem::take(&mut seen.done) {
        let Some(look) = look(&done).filter(|look| look.identity == file.identity) else {
            continue;
        };
        if look.bytes <= file.bytes {
            if now < until {
                quiet.push((done, file, until));
            }
            continue;
        }
        let path = folder.join(&file.name);
        let (name, bytes) = (file.name.clone(), look.bytes - file.bytes);
        let is_taken = !path.exists();
        intake.tell(Report::Late { file: name, bytes, is_taken });
        if is_taken {
            grown(&mut file, &done);
            // The mark first: without it the whole file would be taken again.
            intake.mark.files.push(file);
            intake.take("", &[]).await?;
            fs::rename(&done, &path).map_err(|e| failed(folder, &e))?;
        }
    }
    seen.done = quiet;
    Ok(())
}

/// A file has more to take. Where it ended within a line, that line is taken once more, whole: its
/// half was taken for a record.
fn grown(file: &mut FileMark, path: &Path) {
    if file.whole && ends_within_line(path, file.bytes).unwrap_or(false) {
        file.items = file.items.saturating_sub(1);
    }
    file.whole = false;
}

/// Whether the first `bytes` of a file end within a line that goes on behind them.
fn ends_within_line(path: &Path, bytes: u64) -> io::Result<bool> {
    let from = bytes.saturating_sub(LINE_BYTES_MAX);
    let mut around = Vec::new();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    file.take(bytes + 1 - from).read_to_end(&mut around)?;
    let next = around.pop();
    let line = around.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(!line.trim_ascii().is_empty() && !matches!(next, None | Some(b'\n' | b'\r')))
}

/// Files that did not change for a while and are not taken whole, by name.
fn settled(intake: &Intake, folder: &Path, seen: &mut Seen) -> Result<Vec<(PathBuf, Look)>, Error> {
    let files = files_of(folder)?;
    let now = Instant::now();
    seen.since.retain(|path, _| files.contains(path));
    seen.skipped.retain(|path, _| files.contains(path));
    let mut ready = Vec::new();
    for path in files {
        let Some(look) = look(&path) else { continue };
        let whole =
            intake.mark.files.iter().any(|file| {
                file.identity == look.identity && file.whole && path.ends_with(&file.name)
            });
        if whole || seen.skipped.get(&path) == Some(&look) {
            continue;
        }
        let entry = seen.since.entry(path.clone()).or_insert_with(|| (look.clone(), now));
        if entry.0 != look {
            *entry = (look, now);
        } else if now.duration_since(entry.1) >= intake.config.settle {
            ready.push((path, look));
        }
    }
    Ok(ready)
}

/// Takes a file from where the mark says to its end.
async fn take_file(
    intake: &mut Intake,
    path: &Path,
    look: &Look,
    seen: &mut Seen,
) -> Result<(), Error> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let done = intake.mark.find(&name, look.identity).map_or(0, |file| file.items);
    let mut reader = match open(intake, path, &name, look.bytes).await? {
        Ok(reader) => reader,
        Err(reason) => {
            skip(intake, path, look, name, reason, seen);
            return Ok(());
        }
    };
    if intake.mark.find(&name, look.identity).is_none() {
        intake.mark.files.push(FileMark {
            name: name.clone(),
            identity: look.identity,
            bytes: look.bytes,
            items: 0,
            whole: false,
            last_sequence: 0,
        });
    }
    let mut passed = 0u64;
    loop {
        let file = name.clone();
        let (back, batch) = blocking(move || {
            let batch = next_block(&mut reader, &file);
            (reader, batch)
        })
        .await?;
        reader = back;
        let mut items = match batch {
            Ok(items) => items,
            // What was taken of it stays taken; it is not tried again until it changes.
            Err(error) => {
                skip(intake, path, look, name, error.to_string(), seen);
                return Ok(());
            }
        };
        let whole = items.is_empty();
        let old = done.saturating_sub(passed).min(items.len() as u64);
        passed += items.len() as u64;
        items.drain(..old as usize);
        if items.is_empty() && !whole {
            continue;
        }
        let payloads = intake.payloads(&name, items);
        let last = intake.next_sequence() + payloads.len() as u64 - 1;
        let mark = intake.mark.find(&name, look.identity).ok_or(Error::Reader)?;
        mark.items = passed.max(done);
        mark.whole = whole;
        mark.bytes = look.bytes;
        if !payloads.is_empty() {
            mark.last_sequence = last;
        }
        if !intake.take(&name, &payloads).await? || whole {
            return Ok(());
        }
    }
}

async fn open(
    intake: &Intake,
    path: &Path,
    name: &str,
    bytes: u64,
) -> Result<Result<RecordReader, String>, Error> {
    let (path, name) = (path.to_owned(), name.to_owned());
    let (layout, definition) = (intake.config.layout(), intake.config.definition.clone());
    blocking(move || {
        // What has settled and no more: the end of it may be within a line.
        let file = File::open(&path).map_err(|e| e.to_string())?.take(bytes);
        RecordReader::new(&name, Box::new(file), layout, definition.as_deref())
            .map_err(|e| e.to_string())
    })
    .await
}

fn skip(intake: &Intake, path: &Path, look: &Look, file: String, reason: String, seen: &mut Seen) {
    seen.skipped.insert(path.to_owned(), look.clone());
    intake.tell(Report::Skipped { file, reason });
}

/// The next items of a file; none at its end.
fn next_block(reader: &mut RecordReader, name: &str) -> Result<Vec<Item>, publish::Error> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while items.len() < BLOCK_RECORDS && bytes < BLOCK_BYTES {
        let Some(item) = reader.next_item(name)? else {
            break;
        };
        if let Item::Record { payload, .. } = &item {
            bytes += payload.len();
        }
        items.push(item);
    }
    Ok(items)
}

fn look(path: &Path) -> Option<Look> {
    let data = fs::metadata(path).ok()?;
    Some(Look {
        identity: (data.dev(), data.ino()),
        bytes: data.len(),
        changed: (data.mtime(), data.mtime_nsec()),
    })
}

fn failed(folder: &Path, error: &std::io::Error) -> Error {
    Error::Folder { folder: folder.display().to_string(), reason: error.to_string() }
}
