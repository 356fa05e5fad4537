//! What of one file is not on the disk yet, so that a power cut can take it away.
//!
//! The live file is always what programs see. Beside it stands what the disk held at the last
//! sync: its length, and the pages that were overwritten or cut off since. A failed sync dooms its
//! pages as a kernel does: they count as clean, later syncs do not write them, and a power cut
//! shows that they never arrived.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::rng::SplitMix;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4_096;
/// Bytes that a disk writes whole.
pub(crate) const SECTOR: usize = 512;

/// What becomes of unsynced data at a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutStyle {
    /// None of it arrived.
    DropAll,
    /// Each sector of 512 bytes arrived or not, and the file has some length between the old and
    /// the new, as the seed decides.
    Torn {
        /// Decides.
        seed: u64,
    },
}

/// What a cut did to one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Unsynced bytes that are gone, by pages and length.
    pub(crate) bytes: u64,
    /// Sectors of a torn file that arrived though nobody had synced them.
    pub(crate) sectors_arrived: u64,
}

type Page = Box<[u8]>;

/// The difference between a file and what the disk has of it.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    durable_len: u64,
    /// Durable content of pages that a sync would write.
    dirty: BTreeMap<u64, Page>,
    /// Durable content of pages that no sync writes any more.
    doomed: BTreeMap<u64, Page>,
}

impl Unsynced {
    /// Of a file that is wholly on the disk, just before it changes.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self { durable_len: file.metadata()?.len(), ..Self::default() })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let pages = self.dirty.len() + self.doomed.len();
        u64::try_from(pages).unwrap_or(u64::MAX).saturating_mul(PAGE)
    }

    /// Keeps what the disk has of these bytes, which are about to change. Pages behind the durable
    /// length need nothing: a cut takes them by the length.
    // Hot path: an append costs no read, an overwrite one page at its edges.
    pub(crate) fn keep(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = offset.saturating_add(len);
        let pages = offset / PAGE..end.div_ceil(PAGE);
        if !self.doomed.is_empty() {
            let again: Vec<u64> = self.doomed.range(pages.clone()).map(|(at, _)| *at).collect();
            for at in again {
                if let Some(page) = self.doomed.remove(&at) {
                    self.dirty.insert(at, page);
                }
            }
        }
        for at in pages.start..pages.end.min(self.durable_len.div_ceil(PAGE)) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.dirty.entry(at) {
                vacant.insert(read_page(file, at)?);
            }
        }
        Ok(())
    }

    /// A sync reached the disk. Returns whether nothing is left to be told apart.
    pub(crate) fn synced(&mut self, len: u64) -> bool {
        self.dirty.clear();
        self.durable_len = len;
        self.doomed.is_empty()
    }

    /// A sync failed: what it should have written is lost, without anybody being told again.
    pub(crate) fn sync_failed(&mut self, len: u64) {
        for at in self.durable_len.div_ceil(PAGE)..len.div_ceil(PAGE) {
            self.doomed.entry(at).or_insert_with(empty_page);
        }
        // What is doomed already keeps its older content.
        for (at, page) in std::mem::take(&mut self.dirty) {
            self.doomed.entry(at).or_insert(page);
        }
    }

    /// Makes the file what the disk has of it.
    pub(crate) fn cut(&self, file: &File, style: CutStyle, file_seed: u64) -> io::Result<Dropped> {
        let live_len = file.metadata()?.len();
        let mut luck = match style {
            CutStyle::DropAll => None,
            CutStyle::Torn { seed } => Some(SplitMix::for_part(seed, file_seed)),
        };
        let mut dropped = Dropped::default();
        for (at, page) in self.dirty.iter().chain(&self.doomed) {
            // What a failed sync lost never arrives.
            let torn = if self.doomed.contains_key(at) { None } else { luck.as_mut() };
            restore(file, at * PAGE, page, torn, &mut dropped)?;
        }
        let len = match luck.as_mut() {
            Some(luck) if live_len > self.durable_len => {
                self.durable_len + luck.below(live_len - self.durable_len + 1)
            }
            _ => self.durable_len,
        };
        if let Some(luck) = luck.as_mut() {
            let mut at = self.durable_len.div_ceil(PAGE) * PAGE;
            while at < len {
                if !self.doomed.contains_key(&(at / PAGE)) {
                    restore(file, at, &empty_page(), Some(&mut *luck), &mut dropped)?;
                }
                at += PAGE;
            }
        }
        dropped.bytes += live_len.saturating_sub(len);
        file.set_len(len)?;
        Ok(dropped)
    }
}

/// Writes the durable content back; with luck some sectors keep what is there.
fn restore(
    file: &File,
    offset: u64,
    page: &[u8],
    mut luck: Option<&mut SplitMix>,
    dropped: &mut Dropped,
) -> io::Result<()> {
    for (at, sector) in (0..).zip(page.chunks(SECTOR)) {
        if let Some(luck) = luck.as_deref_mut()
            && luck.below(2) == 0
        {
            dropped.sectors_arrived += 1;
            continue;
        }
        let place = offset + at * 512;
        let mut live = [0; SECTOR];
        let read = read_up_to(file, &mut live, place)?;
        // Behind a short end there is durable content too, though what is left of it is alike.
        if read < SECTOR || live[..] != sector[..] {
            file.write_all_at(sector, place)?;
            dropped.bytes += 512;
        }
    }
    Ok(())
}

fn read_page(file: &File, at: u64) -> io::Result<Page> {
    let mut page = empty_page();
    read_up_to(file, &mut page, at * PAGE)?;
    Ok(page)
}

fn empty_page() -> Page {
    vec![0; usize::try_from(PAGE).expect("4,096 fits a usize")].into_boxed_slice()
}

/// Fills `buffer` as far as the file goes.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let place = offset + u64::try_from(filled).expect("a usize fits a u64");
        match file.read_at(&mut buffer[filled..], place) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "unsynced_test.rs"]
mod tests;
