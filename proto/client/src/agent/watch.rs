//! Watches a folder by looking at it now and then. One file at a time is taken, in the order of
//! their names.

use super::{BLOCK_BYTES, BLOCK_RECORDS, Error, FileMark, Intake, Report, blocking};
use crate::publish::{self, Item, RecordReader, files_of};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

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
}

pub(super) async fn watch(mut intake: Intake, folder: PathBuf) -> Result<(), Error> {
    let mut seen = Seen::default();
    loop {
        finish(&mut intake, &folder).await?;
        if intake.mark.files.len() < intake.config.files_open_max {
            for (path, look) in settled(&intake, &folder, &mut seen)? {
                if intake.stop.is_cancelled() {
                    return Ok(());
                }
                take_file(&mut intake, &path, &look, &mut seen).await?;
                finish(&mut intake, &folder).await?;
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
async fn finish(intake: &mut Intake, folder: &Path) -> Result<(), Error> {
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
                file.whole = false;
                kept.push(file);
            }
            Some(_) if file.whole && file.last_sequence <= acked => {
                let done = PathBuf::from(format!("{}.done", path.display()));
                fs::rename(&path, &done).map_err(|e| failed(folder, &e))?;
                intake.tell(Report::Done { file: file.name });
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
    let mut reader = match open(intake, path, &name).await? {
        Ok(reader) => reader,
        Err(reason) => {
            skip(intake, path, look, name, reason, seen);
            return Ok(());
        }
    };
    if done == 0 {
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
) -> Result<Result<RecordReader, String>, Error> {
    let (path, name) = (path.to_owned(), name.to_owned());
    let (format, definition) = (intake.config.format, intake.config.definition.clone());
    blocking(move || {
        let file = File::open(&path).map_err(|e| e.to_string())?;
        RecordReader::new(&name, Box::new(file), format, definition.as_deref())
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
