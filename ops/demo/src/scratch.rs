//! The scratch folder: locked by one demo, emptied only when a demo made it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::say::Say;

/// Marks a folder that a demo may empty; also the lock.
const MARKER: &str = ".dtm-demo";
/// Ids of the processes that run in it, one a line.
const PIDS: &str = "pids";

/// The folder, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    lock: File,
}

impl Scratch {
    /// Takes the folder and empties it.
    ///
    /// # Errors
    /// A folder with other things in it, another demo in it, or processes that an earlier demo
    /// left (those are named, never ended).
    pub(crate) fn take(folder: &Path, say: Say) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let shown = folder.display().to_string();
        let marker = folder.join(MARKER);
        let is_ours = marker.exists();
        if !is_ours && fs::read_dir(&folder)?.next().is_some() {
            bail!(say.text("folder_of_others", &[("folder", &shown)]));
        }
        let lock = File::options().create(true).append(true).open(&marker).context(MARKER)?;
        if lock.try_lock().is_err() {
            bail!(say.text("folder_in_use", &[("folder", &shown)]));
        }
        if let Some(pid) = left_behind(&folder) {
            bail!(say.text("node_left", &[("pid", &pid.to_string()), ("folder", &shown)]));
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name() == MARKER {
                continue;
            }
            let path = entry.path();
            let gone = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            gone.with_context(|| path.display().to_string())?;
        }
        Ok(Self { folder, lock })
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Notes a process, so that a later demo sees it if this one is killed.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn note_pid(&self, pid: u32) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.path(PIDS))?;
        Ok(writeln!(file, "{pid}")?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // By name: a process that is being started just now may still hold a copy of the handle.
        let _ = self.lock.unlock();
    }
}

/// A node of this folder that still runs.
fn left_behind(folder: &Path) -> Option<u32> {
    let noted = fs::read_to_string(folder.join(PIDS)).ok()?;
    let shown = folder.display().to_string();
    noted.lines().take(1_000).filter_map(|line| line.trim().parse().ok()).find(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&shown)
    })
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    #[test]
    fn only_a_folder_of_a_demo_is_emptied() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("demo");
        let say = Say(Lang::En);
        let scratch = Scratch::take(&folder, say).expect("a new folder");
        fs::write(scratch.path("old"), "x").expect("written");
        fs::create_dir(scratch.path("n1")).expect("made");
        assert!(Scratch::take(&folder, say).is_err(), "it is in use");
        drop(scratch);
        let scratch = Scratch::take(&folder, say).expect("of an earlier demo");
        assert!(!scratch.path("old").exists() && !scratch.path("n1").exists());

        fs::write(home.path().join("mine"), "x").expect("written");
        assert!(Scratch::take(home.path(), say).is_err(), "not made by a demo");
        assert!(home.path().join("mine").exists());
    }

    #[test]
    fn a_process_that_was_left_is_named_and_not_ended() {
        let home = tempfile::tempdir().expect("a folder");
        let say = Say(Lang::En);
        let scratch = Scratch::take(home.path(), say).expect("empty");
        // A process whose command line names the folder.
        let named = scratch.path("x");
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", "sh"])
            .arg(&named)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        scratch.note_pid(child.id()).expect("noted");
        // Just after its start a process has no command line yet.
        let named = (0..1_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| !line.is_empty())
        });
        assert!(named);
        drop(scratch);
        let refused = Scratch::take(home.path(), say).expect_err("a node is left").to_string();
        assert!(refused.contains(&child.id().to_string()), "{refused}");
        assert!(child.try_wait().expect("asked").is_none(), "it lives");
        child.kill().expect("ended");
        child.wait().expect("reaped");
    }
}
