//! Watches a folder by looking at it now and then. One file at a time is taken, in the order of
//! their names.

use super::{
    BLOCK_BYTES, BLOCK_RECORDS, Error, FileMark, FilePrint, Intake, Report, SkipReason, blocking,
};
use crate::publish::{self, Item, RecordReader, files_of, is_known, open_quote};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a file that is done is looked at: its writer may still hold it open.
const LATE_WATCH: Duration = Duration::from_secs(600);
/// Files that are done and looked at, at most; beyond it the oldest are left.
const LATE_MAX: usize = 256;
/// Marks of files that were taken away before they were done, at most; beyond it the oldest are
/// left.
const GONE_MAX: usize = 256;
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
    /// Tables that wait for the definition of their data set.
    waiting: HashMap<PathBuf, Look>,
    /// Files that are done, under their new names.
    done: Vec<(PathBuf, FileMark, Instant)>,
}

pub(super) async fn watch(mut intake: Intake, folder: PathBuf) -> Result<(), Error> {
    let mut seen = Seen::default();
    loop {
        finish(&mut intake, &folder, &mut seen).await?;
        take_back(&mut intake, &folder, &mut seen).await?;
        if intake.mark.present() < intake.config.files_open_max {
            for (path, look) in settled(&intake, &folder, &mut seen)? {
                if intake.stop.is_cancelled() {
                    return Ok(());
                }
                take_file(&mut intake, &path, &look, &mut seen).await?;
                finish(&mut intake, &folder, &mut seen).await?;
                if intake.mark.present() >= intake.config.files_open_max {
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
    let before = intake.mark.present();
    for mut file in std::mem::take(&mut intake.mark.files) {
        let path = folder.join(&file.name);
        let Some(now) = look(&path).filter(|now| is_found(&mut file, &path, now)) else {
            kept.extend(taken_away(file, &path));
            continue;
        };
        match is_same(&mut file, &path, &now) {
            // Another one under its name, or written over: it is taken from its start.
            Ok(false) => continue,
            Ok(true) if now.bytes > file.bytes => {
                // It grew after it had settled: the rest is taken too.
                grown(&mut file, &path);
                kept.push(file);
            }
            Ok(true) if file.whole && file.last_sequence <= acked => {
                let done = PathBuf::from(format!("{}.done", path.display()));
                if renamed(folder, &path, &done)? {
                    intake.tell(Report::Done { file: file.name.clone() });
                    seen.done.retain(|(earlier, ..)| *earlier != done);
                    seen.done.push((done, file, Instant::now() + LATE_WATCH));
                }
            }
            // Not acked, or not readable now: it is looked at again.
            Ok(true) | Err(_) => kept.push(file),
        }
    }
    let surplus = kept.iter().filter(|file| file.is_gone).count().saturating_sub(GONE_MAX);
    let mut left = 0;
    kept.retain(|file| {
        left += usize::from(file.is_gone);
        !file.is_gone || left > surplus
    });
    intake.mark.files = kept;
    if intake.mark.present() == 0 && before > 0 {
        intake.take("", &[]).await?;
    }
    Ok(())
}

/// Whether this is the file of the mark. One that was away and comes back from another disk has
/// another inode: it is known by its time and content.
fn is_found(file: &mut FileMark, path: &Path, now: &Look) -> bool {
    let is_back = |file: &FileMark| {
        file.bytes == now.bytes
            && file.print.as_ref().is_some_and(|print| print.modified == now.changed)
            && File::open(path).and_then(|found| file.begins(&found)).unwrap_or(false)
    };
    if file.identity != now.identity && !is_back(file) {
        return false;
    }
    (file.identity, file.is_gone) = (now.identity, false);
    true
}

/// The mark of a file that is not there: kept for the day that it comes back, unless it is done and
/// was renamed before the mark could say so, or there is another one under its name. A mark of an
/// earlier version knows a file by its inode only, which another file may get.
fn taken_away(mut file: FileMark, path: &Path) -> Option<FileMark> {
    let done = PathBuf::from(format!("{}.done", path.display()));
    let is_done = look(&done).is_some_and(|done| done.identity == file.identity);
    if is_done || path.exists() || file.print.is_none() {
        return None;
    }
    file.is_gone = true;
    Some(file)
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
        let is_same = is_same(&mut file, &done, &look);
        if look.bytes <= file.bytes || is_same.is_err() {
            if now < until {
                quiet.push((done, file, until));
            }
            continue;
        }
        if is_same.is_ok_and(|is_same| !is_same) {
            let file = format!("{}.done", file.name);
            intake.tell(Report::Skipped { file, reason: SkipReason::WrittenOver });
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
            // Where it is gone, the next look forgets its mark.
            renamed(folder, &done, &path)?;
        }
    }
    seen.done = quiet;
    Ok(())
}

/// Renames a file; false where somebody took it away.
fn renamed(folder: &Path, from: &Path, to: &Path) -> Result<bool, Error> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(folder, &error)),
    }
}

/// Whether a file of this name and inode begins with what was taken of it. Where only its time of
/// change is another, that is noted. An error says nothing about the content.
fn is_same(file: &mut FileMark, path: &Path, now: &Look) -> io::Result<bool> {
    let changed = file.print.as_ref().is_some_and(|print| print.modified != now.changed);
    if now.bytes < file.bytes {
        return Ok(false);
    }
    if now.bytes == file.bytes && !changed {
        return Ok(true);
    }
    let is_same = file.begins(&File::open(path)?)?;
    if let Some(print) = &mut file.print
        && is_same
        && now.bytes == file.bytes
    {
        print.modified = now.changed;
    }
    Ok(is_same)
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
    seen.waiting.retain(|path, _| files.contains(path));
    let mut ready = Vec::new();
    for path in files {
        let Some(look) = look(&path) else { continue };
        let whole =
            intake.mark.files.iter().any(|file| {
                file.identity == look.identity && file.whole && path.ends_with(&file.name)
            });
        if !is_known(&path) {
            if seen.skipped.insert(path.clone(), look).is_none() {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
                let (file, reason) = (name.unwrap_or_default(), SkipReason::Ending);
                intake.tell(Report::Skipped { file, reason });
            }
            continue;
        }
        let waits = seen.waiting.get(&path) == Some(&look) && intake.config.awaits_definition();
        if whole || waits || seen.skipped.get(&path) == Some(&look) {
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
    let (mut reader, print, is_known) = match open(intake, path, &name, look).await? {
        Opened::Ready { reader, print, is_known } => (*reader, print, is_known),
        Opened::Changed => return Ok(()),
        Opened::Waits => {
            seen.waiting.insert(path.to_owned(), look.clone());
            intake.tell(Report::Waiting { file: name });
            return Ok(());
        }
        Opened::Refused(reason) => {
            skip(intake, path, look, name, reason, seen);
            return Ok(());
        }
    };
    if !is_known {
        intake.mark.files.retain(|file| file.name != name || file.identity != look.identity);
        let fresh = FileMark::new(&name, look.identity, look.bytes, print.clone());
        intake.mark.files.push(fresh);
    }
    let done = intake.mark.find(&name, look.identity).map_or(0, |file| file.items);
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
                skip(intake, path, look, name, error.into(), seen);
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
        mark.print = Some(print.clone());
        if !payloads.is_empty() {
            mark.last_sequence = last;
        }
        if !intake.take(&name, &payloads).await? || whole {
            return Ok(());
        }
    }
}

/// A file that is about to be taken.
enum Opened {
    Ready {
        reader: Box<RecordReader>,
        print: FilePrint,
        /// It begins with what its mark says was taken.
        is_known: bool,
    },
    /// It is gone, or is not any more what was looked at: it is looked at again.
    Changed,
    /// It is a table whose definition may still come.
    Waits,
    Refused(SkipReason),
}

async fn open(intake: &mut Intake, path: &Path, name: &str, look: &Look) -> Result<Opened, Error> {
    let (path, name, look) = (path.to_owned(), name.to_owned(), look.clone());
    let mark = intake.mark.find(&name, look.identity).cloned();
    let config = intake.config.clone();
    blocking(move || {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Opened::Changed,
            Err(error) => return Opened::Refused(unreadable(&error)),
        };
        // Between the look and the opening another one may have taken the name.
        if file.metadata().is_ok_and(|data| Look::of(&data) != look) {
            return Opened::Changed;
        }
        let mut check = || -> io::Result<_> {
            let is_known = mark.as_ref().map_or(Ok(false), |mark| mark.begins(&file))?;
            let print = FilePrint::of(&file, look.bytes, look.changed)?;
            let open = open_quote(&name, config.layout(), &mut (&mut file).take(look.bytes))?;
            file.rewind()?;
            Ok((is_known, print, open))
        };
        let (is_known, print) = match check() {
            Ok((is_known, print, None)) => (is_known, print),
            Ok((.., Some(line))) => {
                return Opened::Refused(publish::Error::open_quote(&name, line).into());
            }
            // It became shorter.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Opened::Changed;
            }
            Err(error) => return Opened::Refused(unreadable(&error)),
        };
        // What has settled and no more: the end of it may be within a line.
        let input = Box::new(file.take(look.bytes));
        let waits = config.awaits_definition();
        let definition = || config.definition.borrow().clone();
        match RecordReader::with(&name, input, config.layout(), definition) {
            Ok(reader) => Opened::Ready { reader: Box::new(reader), print, is_known },
            Err(publish::Error::Definition { .. }) if waits => Opened::Waits,
            Err(error) => Opened::Refused(error.into()),
        }
    })
    .await
}

fn skip(
    intake: &Intake,
    path: &Path,
    look: &Look,
    file: String,
    reason: SkipReason,
    seen: &mut Seen,
) {
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

impl Look {
    fn of(data: &fs::Metadata) -> Self {
        Self {
            identity: (data.dev(), data.ino()),
            bytes: data.len(),
            changed: (data.mtime(), data.mtime_nsec()),
        }
    }
}

fn look(path: &Path) -> Option<Look> {
    fs::metadata(path).ok().as_ref().map(Look::of)
}

fn unreadable(error: &io::Error) -> SkipReason {
    SkipReason::Unreadable(error.to_string())
}

fn failed(folder: &Path, error: &std::io::Error) -> Error {
    Error::Folder { folder: folder.display().to_string(), reason: error.to_string() }
}
