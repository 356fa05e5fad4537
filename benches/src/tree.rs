//! The source tree that is measured: where peers are installed and results are kept.

use std::path::{Path, PathBuf};

/// What only the folder `benches` of this project holds.
const MARK: &str = "peers/install.sh";

/// The folder `benches` of the tree that the command is called in. Elsewhere, the one that it was
/// built in: with a build folder of several checkouts that need not be the same.
pub fn benches() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    of(&here).unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

fn of(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|above| above.join("benches")).find(|found| found.join(MARK).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_that_of_the_folder_or_of_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let (benches, deep) = (folder.path().join("benches"), folder.path().join("node/src"));
        std::fs::create_dir_all(benches.join("peers")).expect("folders");
        std::fs::create_dir_all(&deep).expect("folders");
        assert_eq!(of(&deep), None);
        std::fs::write(benches.join(MARK), "").expect("the mark");
        assert_eq!(of(&deep), Some(benches.clone()));
        assert_eq!(of(&benches), Some(benches));
    }
}
