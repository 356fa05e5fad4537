//! Which backups there are, and which a restore needs.

use dtm_types::{BackupId, GroupId};

use crate::read::read_manifest;
use crate::target::Target;
use crate::{Digest, Error, Manifest};

/// Backups of one chain at most: a full one is due long before.
const CHAIN_MAX: usize = 10_000;

/// A folder that looks like a backup.
#[derive(Debug)]
pub struct Found {
    /// Name of its folder.
    pub name: String,
    /// Its manifest, or why it is none.
    pub manifest: Result<(Manifest, Digest), Error>,
}

/// All backups of a target, oldest first, also those that were never finished or are damaged. Folders
/// of other names are not looked at.
///
/// # Errors
/// [`Error::Io`] where the target cannot be listed.
pub fn list(target: &dyn Target) -> Result<Vec<Found>, Error> {
    let names = target.backups().map_err(|source| Error::Io {
        what: "list",
        backup: String::new(),
        file: String::new(),
        source,
    })?;
    let ours = names.into_iter().filter(|name| name.parse::<BackupId>().is_ok());
    let look = |name: String| Found { manifest: read_manifest(target, &name), name };
    Ok(ours.map(look).collect())
}

/// The backup of this name, or the newest one that was finished; its name.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Empty`], [`Error::Io`].
pub fn find(target: &dyn Target, name: Option<&str>) -> Result<String, Error> {
    let mut all = list(target)?;
    match name {
        Some(name) => {
            let known = all.into_iter().find(|found| found.name == name);
            known.map(|found| found.name).ok_or_else(|| Error::Unknown(name.to_owned()))
        }
        None => {
            all.retain(|found| found.manifest.is_ok());
            all.pop().map(|found| found.name).ok_or(Error::Empty)
        }
    }
}

/// The oldest backup that was finished and gives the state at a moment (Unix microseconds): the first
/// one that is cut there or later; its name.
///
/// # Errors
/// [`Error::TooLate`] where every one was cut before, [`Error::Empty`], [`Error::Io`].
pub fn find_at(target: &dyn Target, until_us: i64) -> Result<String, Error> {
    let all = list(target)?;
    let cuts = all.iter().filter_map(|found| {
        found.manifest.as_ref().ok().map(|(manifest, _)| (manifest.anchor_us(), &found.name))
    });
    let newest_us = cuts.clone().map(|(cut_us, _)| cut_us).max().ok_or(Error::Empty)?;
    let mut behind = cuts.filter(|(cut_us, _)| *cut_us >= until_us);
    let oldest = behind.next().map(|(_, name)| name.clone());
    oldest.ok_or(Error::TooLate { asked_us: until_us, newest_us })
}

/// The backups that one needs, the full one first, itself last. They belong together: each names the
/// manifest of the one before by its digest, and goes on where that one ends.
///
/// # Errors
/// [`Error::Chain`], [`Error::Gap`], and those of [`read_manifest`] for each of them.
pub fn chain(target: &dyn Target, name: &str) -> Result<Vec<Manifest>, Error> {
    let (newest, _) = read_manifest(target, name)?;
    let mut chain = vec![newest];
    while let Some(later) = chain.last()
        && let Some(parent) = later.parent_id()
    {
        let backup = later.id();
        let broken = |what| Error::Chain { backup, parent, what };
        if chain.len() >= CHAIN_MAX {
            return Err(broken("the chain has no end"));
        }
        let (manifest, digest) = match read_manifest(target, &parent.to_string()) {
            Err(Error::Unfinished { .. }) => return Err(broken("which is not here")),
            read => read?,
        };
        if later.parent_digest != digest[..] {
            return Err(broken("what is here under its name is another one"));
        }
        if (&manifest.cluster, manifest.incarnation) != (&later.cluster, later.incarnation) {
            return Err(broken("which is of another cluster, or another life of it"));
        }
        joins(&manifest, later)?;
        chain.push(manifest);
    }
    chain.reverse();
    for part in &chain[0].groups {
        starts(&chain[0], GroupId(part.group), 0)?;
    }
    Ok(chain)
}

/// Each group goes on where it ended.
fn joins(before: &Manifest, later: &Manifest) -> Result<(), Error> {
    for part in &later.groups {
        let group = GroupId(part.group);
        starts(later, group, before.group(group).map_or(0, |part| part.last_index))?;
    }
    Ok(())
}

fn starts(backup: &Manifest, group: GroupId, expected: u64) -> Result<(), Error> {
    let found = backup.group(group).map_or(0, |part| part.entries_from);
    if found.checked_sub(1) != Some(expected) {
        return Err(Error::Gap { backup: backup.id(), group, found, expected });
    }
    Ok(())
}
