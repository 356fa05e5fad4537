//! Tiles as C2SP tlog-tiles cuts them: 256 hashes wide, eight levels high.
//!
//! ```text
//!  tile level 1:   [ ............ root of each full tile below ............ ]   256 ** 2 leaves
//!  tile level 0:   [ 256 leaf hashes ][ 256 leaf hashes ] ... [ partial, 1..255 ]
//! ```
//! What a group stores is the row of hashes of each tile level; levels between them are
//! recomputed when a proof asks for them.

use crate::Error;
use crate::hash::{Hash, node_hash};
use crate::node::Node;
use crate::prove::HashReader;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Levels of the tree in one tile.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes in a full tile.
pub const TILE_WIDTH: u16 = 256;

/// One hash in a row of tiles, to be stored when a leaf is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileNode {
    /// Level of tiles: 0 for leaf hashes, 1 for roots of full tiles of level 0, …
    pub tile_level: u8,
    /// Place in the row; tile number is `index / 256`.
    pub index: u64,
    /// The hash.
    pub hash: Hash,
}

/// The name of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Level of tiles, from 0.
    pub level: u8,
    /// Number of the tile in its level.
    pub index: u64,
    /// Hashes in it: 256, or 1 to 255 for a partial tile.
    pub width: u16,
}

impl Tile {
    /// The tile of a tree of `size` leaves that holds the hash at `hash_index` of `level`, as
    /// wide as that tree makes it; none where the tree does not reach that far.
    #[must_use]
    pub fn holding(level: u8, hash_index: u64, size: u64) -> Option<Self> {
        let row = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
        if hash_index >= row {
            return None;
        }
        let index = hash_index / u64::from(TILE_WIDTH);
        let width = (row - index * u64::from(TILE_WIDTH)).min(u64::from(TILE_WIDTH)) as u16;
        Some(Self { level, index, width })
    }

    /// The path below a log's prefix: `tile/<L>/<N>[.p/<W>]`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut number = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        if self.width == TILE_WIDTH {
            format!("tile/{}/{number}", self.level)
        } else {
            format!("tile/{}/{number}.p/{}", self.level, self.width)
        }
    }

    /// Reads such a path. Only the one spelling that [`Tile::path`] gives is accepted.
    ///
    /// # Errors
    /// [`Error::TilePath`].
    pub fn parse(path: &str) -> Result<Self, Error> {
        Self::parse_loosely(path).filter(|tile| tile.path() == path).ok_or(Error::TilePath)
    }

    fn parse_loosely(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level: u8 = level.parse().ok().filter(|level| *level < 64)?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok().filter(|w| (1..256).contains(w))?),
            None => (rest, TILE_WIDTH),
        };
        let mut index = 0u64;
        for part in number.split('/') {
            let digits: u64 = part.trim_start_matches('x').parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(digits)?;
        }
        Some(Self { level, index, width })
    }
}

/// Reads tiles: from the state of a group, a folder of exported tiles or a server.
pub trait TileReader {
    /// Why a tile cannot be had.
    type Error;

    /// The hashes of `tile`, exactly `tile.width` of them.
    ///
    /// # Errors
    /// The store's own, also when it does not hold the tile.
    fn read_tile(&self, tile: Tile) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a hash could not be had from tiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// The tile could not be read.
    #[error("tile {path} could not be read", path = .0.path())]
    Read(Tile, #[source] E),
    /// The reader gave another number of hashes than the tile is wide.
    #[error("tile {path} came with {found} hashes", path = tile.path())]
    Width {
        /// The tile asked for.
        tile: Tile,
        /// Hashes that came.
        found: usize,
    },
    /// The tree of this size has no such node.
    #[error("no node {index} of level {level} in a tree of {size} leaves")]
    OutsideTree {
        /// Level asked for.
        level: u8,
        /// Index asked for.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
}

/// Hashes of a tree of a fixed size, out of its tiles. Reads each tile once: a proof touches at
/// most two tiles a level, so what it remembers is bounded by 16 tiles a proof.
#[derive(Debug)]
pub struct TiledHashes<R> {
    reader: R,
    size: u64,
    tiles: RefCell<BTreeMap<Tile, Vec<Hash>>>,
}

impl<R: TileReader> TiledHashes<R> {
    /// The tree of the first `size` leaves in the tiles of `reader`.
    pub fn new(reader: R, size: u64) -> Self {
        Self { reader, size, tiles: RefCell::default() }
    }
}

impl<R: TileReader> HashReader for TiledHashes<R> {
    type Error = TileError<R::Error>;

    fn read_hash(&self, node: Node) -> Result<Hash, Self::Error> {
        let outside =
            TileError::OutsideTree { level: node.level, index: node.index, size: self.size };
        let within = node.level % TILE_HEIGHT;
        let Some(first) = node.index.checked_mul(1 << within) else {
            return Err(outside);
        };
        let last = first + (1 << within) - 1;
        let Some(tile) = Tile::holding(node.level / TILE_HEIGHT, last, self.size) else {
            return Err(outside);
        };
        let mut tiles = self.tiles.borrow_mut();
        let hashes = match tiles.entry(tile) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let hashes =
                    self.reader.read_tile(tile).map_err(|error| TileError::Read(tile, error))?;
                if hashes.len() != usize::from(tile.width) {
                    return Err(TileError::Width { tile, found: hashes.len() });
                }
                unread.insert(hashes)
            }
        };
        let start = (first % u64::from(TILE_WIDTH)) as usize;
        Ok(complete_root(&hashes[start..start + (1 << within)]))
    }
}

/// The root over a power of two of hashes.
fn complete_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&complete_root(left), &complete_root(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        let tile = |level, index, width| Tile { level, index, width };
        for (tile, path) in [
            (tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (tile(0, 273, 112), "tile/0/273.p/112"),
            (tile(1, 0, 256), "tile/1/000"),
            (tile(2, 0, 1), "tile/2/000.p/1"),
            (tile(0, 1000, 256), "tile/0/x001/000"),
        ] {
            assert_eq!(tile.path(), path);
            assert_eq!(Tile::parse(path), Ok(tile));
        }
        for wrong in [
            "tile/64/000",
            "tile/0/0",
            "tile/0/x1/000",
            "tile/0/001/000",
            "tile/00/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/07",
            "tile/0/x000/001",
            "tile/0/",
            "tile/0/xx001/000",
            "tile/0/+01",
            "checkpoint",
            "tile/0/99999999999999999999999",
        ] {
            assert_eq!(Tile::parse(wrong), Err(Error::TilePath), "{wrong}");
        }
    }

    /// The example in the specification: a tree of 70,000 leaves.
    #[test]
    fn widths_are_those_of_tlog_tiles() {
        let width =
            |level, index: u64| Tile::holding(level, index * 256, 70_000).map(|tile| tile.width);
        assert_eq!(width(0, 272), Some(256));
        assert_eq!(width(0, 273), Some(112));
        assert_eq!(width(0, 274), None);
        assert_eq!((width(1, 0), width(1, 1)), (Some(256), Some(17)));
        assert_eq!((width(2, 0), width(3, 0)), (Some(1), None));
        assert_eq!(Tile::holding(1, 0, 256).map(|tile| tile.width), Some(1));
    }
}
