//! Small files that are replaced as a whole, and names that change for good.

use std::io::{self, IoSlice};
use std::path::Path;

use super::Vfs;

/// Replaces a small file whole or not at all, whatever it held, by way of `NAME.new` beside it.
/// Durable when it returns; after an error the file holds what it held, or the new content.
pub fn replace_file(vfs: &dyn Vfs, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match vfs.remove(&new) {
        // What a start before this one left.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = vfs.create(&new)?;
    file.write_at(0, &[IoSlice::new(content)])?;
    file.sync_data()?;
    rename_for_good(vfs, &new, path)
}

/// Gives a file or folder another name in the same folder. Durable when it returns.
pub fn rename_for_good(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    vfs.rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    vfs.sync_dir(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Faults, MemVfs, RealVfs};

    const FILE: &str = "/d/note";

    fn held(vfs: &MemVfs) -> Option<Vec<u8>> {
        vfs.bytes(Path::new(FILE))
    }

    // fault: F4
    #[test]
    fn what_was_replaced_outlives_a_power_cut() {
        let (vfs, path) = (MemVfs::new(1), Path::new(FILE));
        for content in [&b"first"[..], b"", b"the third is longer"] {
            replace_file(&vfs, path, content).expect("written");
            vfs.crash(0);
            assert_eq!(held(&vfs).as_deref(), Some(content));
        }
    }

    // fault: F4
    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let faults = [
            Faults { write_error_after: Some(0), ..Faults::default() },
            Faults { sync_error_after: Some(0), ..Faults::default() },
        ];
        for (seed, faults) in faults.into_iter().enumerate() {
            let (vfs, path) = (MemVfs::new(seed as u64), Path::new(FILE));
            replace_file(&vfs, path, b"old").expect("written");
            vfs.set_faults(faults);
            replace_file(&vfs, path, b"new").expect_err("the disk says no");
            assert_eq!(held(&vfs).as_deref(), Some(&b"old"[..]));
            // What was left beside it is not in the way.
            replace_file(&vfs, path, b"next").expect("written");
            vfs.crash(0);
            assert_eq!(held(&vfs).as_deref(), Some(&b"next"[..]));
            assert_eq!(vfs.list(Path::new("/d")).expect("listed"), ["note"]);
        }
    }

    // fault: F4
    #[test]
    fn a_name_that_was_changed_stays_changed() {
        let (vfs, aside) = (MemVfs::new(1), Path::new("/d/note.damaged"));
        replace_file(&vfs, Path::new(FILE), b"kept").expect("written");
        rename_for_good(&vfs, Path::new(FILE), aside).expect("renamed");
        vfs.crash(0);
        assert_eq!((held(&vfs), vfs.bytes(aside)), (None, Some(b"kept".to_vec())));
    }

    #[test]
    fn on_a_disk_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, folder) = (dir.path().join("note"), dir.path().join("rows"));
        for content in [&b"a longer one"[..], b"short"] {
            replace_file(&RealVfs, &path, content).expect("written");
            assert_eq!(std::fs::read(&path).expect("there"), content);
        }
        std::fs::create_dir(&folder).expect("made");
        rename_for_good(&RealVfs, &folder, &dir.path().join("rows.damaged")).expect("renamed");
        assert!(!folder.exists() && dir.path().join("rows.damaged").is_dir());
    }
}
