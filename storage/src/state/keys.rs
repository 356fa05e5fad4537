//! Layout of the engine's keys and of the store's own rows.
//!
//! ```text
//!  rows of a group     group u32 BE ‖ generation u32 BE ‖ key
//!  the store's own     ff ff ff ff  ‖ 00 00 00 00       ‖ "owner"            -> format u32 BE ‖ cluster 16 ‖ node 16
//!                      ff ff ff ff  ‖ 00 00 00 00       ‖ "gen" ‖ group u32  -> generation u32 BE
//! ```

use dtm_types::{ClusterId, GroupId, NodeId};

use super::db::Owner;
use super::error::Error;

/// Group number that holds the store's own rows.
pub(super) const OWN: GroupId = GroupId(u32::MAX);
/// Bytes before a group's own key.
pub(super) const PREFIX_BYTES: usize = 8;
/// Version of this layout.
pub(super) const FORMAT: u32 = 1;

/// `group ‖ generation ‖ key`.
pub(super) fn row(group: GroupId, generation: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_BYTES + key.len());
    out.extend_from_slice(&group.0.to_be_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// First key that lies behind all rows of a generation. The store's own group never asks.
pub(super) fn behind(group: GroupId, generation: u32) -> Vec<u8> {
    match generation.checked_add(1) {
        Some(next) => row(group, next, &[]),
        None => row(GroupId(group.0 + 1), 0, &[]),
    }
}

/// Group and generation of an engine key; `None` when it is too short to be ours.
pub(super) fn split(key: &[u8]) -> Option<(GroupId, u32)> {
    let group = key.get(..4)?.try_into().ok()?;
    let generation = key.get(4..PREFIX_BYTES)?.try_into().ok()?;
    Some((GroupId(u32::from_be_bytes(group)), u32::from_be_bytes(generation)))
}

/// Key of the row that says whose folder this is.
pub(super) fn owner() -> Vec<u8> {
    row(OWN, 0, b"owner")
}

/// Key of the row that holds a group's current generation.
pub(super) fn generation(group: GroupId) -> Vec<u8> {
    let mut key = row(OWN, 0, b"gen");
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

/// Value of the owner row.
pub(super) fn encode_owner(owner: &Owner) -> Vec<u8> {
    [&FORMAT.to_be_bytes()[..], &owner.cluster.0, &owner.node.0].concat()
}

/// Format and owner from the owner row. A format that is not ours is told without its owner.
pub(super) fn decode_owner(value: &[u8]) -> Result<(u32, Option<Owner>), Error> {
    let format =
        value.get(..4).and_then(|v| v.try_into().ok()).ok_or_else(|| Error::row("owner"))?;
    let format = u32::from_be_bytes(format);
    if format != FORMAT {
        return Ok((format, None));
    }
    let cluster = value.get(4..20).and_then(ClusterId::from_slice);
    let node = value.get(20..).and_then(NodeId::from_slice);
    let owner = cluster.zip(node).map(|(cluster, node)| Owner { cluster, node });
    Ok((format, Some(owner.ok_or_else(|| Error::row("owner"))?)))
}

/// A generation from its row.
pub(super) fn decode_generation(value: &[u8]) -> Result<u32, Error> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| Error::row("gen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_fixed() {
        assert_eq!(row(GroupId(7), 2, b"k"), [0, 0, 0, 7, 0, 0, 0, 2, b'k']);
        assert_eq!(behind(GroupId(7), 2), [0, 0, 0, 7, 0, 0, 0, 3]);
        assert_eq!(behind(GroupId(7), u32::MAX), [0, 0, 0, 8, 0, 0, 0, 0]);
        assert_eq!(split(&row(GroupId(9), 1, b"")), Some((GroupId(9), 1)));
        assert_eq!(split(b"short"), None);
        assert_eq!(generation(GroupId(1)), *b"\xff\xff\xff\xff\0\0\0\0gen\0\0\0\x01");
        assert_eq!(decode_generation(&[0, 0, 1, 2]), Ok(258));
    }

    #[test]
    fn owner_row_is_fixed() {
        let owner = Owner { cluster: ClusterId([1; 16]), node: NodeId([2; 16]) };
        let value = encode_owner(&owner);
        assert_eq!(value[..4], [0, 0, 0, 1]);
        assert_eq!(value[4..], [[1; 16], [2; 16]].concat());
        assert_eq!(super::owner(), *b"\xff\xff\xff\xff\0\0\0\0owner");
        assert_eq!(decode_owner(&value), Ok((1, Some(owner))));
        assert_eq!(decode_owner(&[0, 0, 0, 9]), Ok((9, None)));
        assert!(decode_owner(&value[..35]).is_err());
        assert!(decode_owner(&[]).is_err());
    }
}
