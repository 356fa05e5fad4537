//! The boot counter of a node: rises with each start, durable before the node speaks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "boot";
const FOUNDED: &str = "founded";

/// Raises the counter and returns it. Durable when it returns.
pub(super) fn raise(data: &Path) -> io::Result<u64> {
    let path = data.join(FILE);
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} holds no number", path.display()),
            )
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let next = last + 1;
    let fresh = data.join("boot.new");
    let mut file = File::create(&fresh)?;
    file.write_all(next.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(data)?.sync_all()?;
    Ok(next)
}

/// Whether founding the cluster was completed on this node.
pub(super) fn is_founded(data: &Path) -> bool {
    data.join(FOUNDED).exists()
}

/// Founding is complete. Durable when it returns.
pub(super) fn mark_founded(data: &Path) -> io::Result<()> {
    File::create(data.join(FOUNDED))?.sync_all()?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_only_rises() {
        let folder = std::env::temp_dir().join(format!("dtm-boot-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!((raise(&folder).expect("one"), raise(&folder).expect("two")), (1, 2));
        fs::write(folder.join(FILE), "x").expect("writes");
        assert!(raise(&folder).is_err(), "a damaged counter is not taken for a new node");
        fs::remove_dir_all(&folder).expect("removes");
    }
}
