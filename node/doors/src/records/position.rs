//! Where a reader stands: opaque to clients, exact to the record.

use bytes::Bytes;
use dtm_proto::records::{GroupPosition, Position};
use dtm_types::format::Place;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, Incarnation, StreamKey};
use prost::Message;
use tonic::Status;

use crate::status::told;

/// Reads what a client sent.
///
/// # Errors
/// Not one of ours, or of a later life of the cluster.
pub(crate) fn decode(bytes: Bytes, incarnation: Incarnation) -> Result<Position, Status> {
    let unknown = || told(ErrorCode::InvalidArgument, &Told::new("refused.position"));
    let mut position = Position::decode(bytes).map_err(|_| unknown())?;
    if position.sequence > StreamKey::SEQUENCE_MAX {
        return Err(unknown());
    }
    if position.incarnation > incarnation.0 {
        return Err(told(ErrorCode::WrongIncarnation, &Told::new("refused.position_later")));
    }
    position.incarnation = incarnation.0;
    Ok(position)
}

/// The last batch seen of a group, and how many of its records were passed (0 = all).
pub(crate) fn of_group(position: &Position, group: GroupId) -> Option<(u64, u32, u32)> {
    let found = position.groups.iter().find(|at| at.group == group.0);
    found.map(|at| (at.index, at.ordinal, at.records))
}

/// The reader has seen this many records of a batch; `None` = the whole of it.
pub(crate) fn advance(position: &mut Position, group: GroupId, place: &Place, passed: Option<u32>) {
    assert!(passed != Some(0), "a batch is entered only where a record of it was given");
    let at = GroupPosition {
        group: group.0,
        index: place.index,
        ordinal: place.ordinal,
        records: passed.unwrap_or(0),
    };
    match position.groups.iter_mut().find(|known| known.group == group.0) {
        Some(known) => *known = at,
        None => position.groups.push(at),
    }
}
