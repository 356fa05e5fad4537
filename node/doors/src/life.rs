//! Which life of the cluster a data folder belongs to: one small file, `incarnation`, of a number and a
//! line end. Without it the life is the first; a restore begins the next, and who joins is told it.

use std::fs;
use std::io;
use std::path::Path;

use dtm_storage::vfs::{RealVfs, replace_file};
use dtm_types::Incarnation;

/// Its name in the data folder.
pub const FILE: &str = "incarnation";
/// The first life of a cluster.
pub const FIRST: Incarnation = Incarnation(1);

/// The life that a data folder belongs to.
pub fn read(data: &Path) -> io::Result<Incarnation> {
    let path = data.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FIRST),
        Err(error) => return Err(error),
    };
    let life = text.strip_suffix('\n').and_then(|line| line.parse().ok()).map(Incarnation);
    life.filter(|life| *life >= FIRST).ok_or_else(|| {
        let cause =
            format!("{} holds no incarnation: a number from 1 on and a line end", path.display());
        io::Error::new(io::ErrorKind::InvalidData, cause)
    })
}

/// Writes it; the first life needs none. Durable when it returns.
pub fn write(data: &Path, life: Incarnation) -> io::Result<()> {
    if life == FIRST {
        return Ok(());
    }
    replace_file(&RealVfs, &data.join(FILE), format!("{life}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_read_as_it_was_written_and_damage_is_not_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        assert_eq!(read(data).expect("none"), FIRST);
        write(data, FIRST).expect("nothing to write");
        assert!(!data.join(FILE).exists());
        write(data, Incarnation(7)).expect("writes");
        assert_eq!(read(data).expect("reads"), Incarnation(7));
        for damaged in ["", "7", "0\n", "x\n", "-1\n", "7\n\n"] {
            fs::write(data.join(FILE), damaged).expect("writes");
            assert!(read(data).is_err(), "{damaged:?}");
        }
    }
}
