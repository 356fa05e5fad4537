//! Typed reads over a group's rows, for everyone above apply.

use bytes::Bytes;
use dtm_types::command::{
    ClusterRow, DatasetRow, GroupRow, NodeRow, OperatorRow, SourceCertificateRow, SourceKeyRow,
    SourceRow,
};
use dtm_types::format::{
    Cursor, GroupHead, KeyPurpose, Place, QuarantineQuota, QuarantineRow, WrappedKey,
};
use dtm_types::{KeyId, NodeId, StreamKey};
use prost::Message;

use crate::keys::{self, Key, table};
use crate::seams::{StateError, StateRead};

/// Rows of one scan step: a bound on memory, not on the answer.
pub const SCAN_ROWS: usize = 1_024;

fn row<M: Message + Default>(state: &dyn StateRead, key: &[u8]) -> Result<Option<M>, StateError> {
    state.get(key)?.map(decode).transpose()
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, StateError> {
    let group = dtm_types::GroupId::default();
    M::decode(bytes).map_err(|e| StateError::new(group, format!("row does not decode: {e}")))
}

fn rows<M: Message + Default>(
    state: &dyn StateRead,
    prefix: Key,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Vec<(Bytes, M)>, StateError> {
    let (mut from, to) = prefix.range();
    if let Some(mut after) = after {
        after.push(0);
        from = from.max(after);
    }
    let found = state.scan(&from, &to, limit)?;
    found.into_iter().map(|(key, value)| Ok((key, decode(value)?))).collect()
}

/// How far the group has applied.
pub fn head(state: &dyn StateRead) -> Result<GroupHead, StateError> {
    Ok(row(state, &keys::head())?.unwrap_or_default())
}

/// A source of meta.
pub fn source(state: &dyn StateRead, source: &str) -> Result<Option<SourceRow>, StateError> {
    row(state, &keys::named(table::SOURCE, source))
}

/// Sources of meta after a code, in order.
pub fn sources(
    state: &dyn StateRead,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<SourceRow>, StateError> {
    let after = after.map(|name| keys::named(table::SOURCE, name));
    Ok(rows(state, Key::of(table::SOURCE), after, limit)?.into_iter().map(|(_, row)| row).collect())
}

/// One key of a source.
pub fn source_key(
    state: &dyn StateRead,
    source: &str,
    key_id: &[u8],
) -> Result<Option<SourceKeyRow>, StateError> {
    row(state, &keys::source_key(source, key_id))
}

/// All keys of a source.
pub fn source_keys(state: &dyn StateRead, source: &str) -> Result<Vec<SourceKeyRow>, StateError> {
    let (from, to) = Key::of(table::SOURCE_KEY).name(source).range();
    let found = state.scan(&from, &to, SCAN_ROWS)?;
    // The counter of keys stands among them under a one-byte id.
    let key_length = from.len() + 8;
    found
        .into_iter()
        .filter(|(key, _)| key.len() == key_length)
        .map(|(_, value)| decode(value))
        .collect()
}

/// One certificate of a source.
pub fn source_certificate(
    state: &dyn StateRead,
    source: &str,
    digest: &[u8],
) -> Result<Option<SourceCertificateRow>, StateError> {
    row(state, &keys::source_certificate(source, digest))
}

/// Certificates of a source.
pub fn source_certificates(
    state: &dyn StateRead,
    source: &str,
) -> Result<Vec<SourceCertificateRow>, StateError> {
    let of_source = Key::of(table::SOURCE_CERTIFICATE).name(source);
    Ok(rows(state, of_source, None, SCAN_ROWS)?.into_iter().map(|(_, row)| row).collect())
}

/// A version of a data set; the newest where no version is named.
pub fn dataset(
    state: &dyn StateRead,
    id: &str,
    version: Option<u32>,
) -> Result<Option<DatasetRow>, StateError> {
    if let Some(version) = version {
        return row(state, &keys::dataset(id, version));
    }
    let (from, to) = Key::of(table::DATASET).name(id).range();
    state.last(&from, &to)?.map(|(_, value)| decode(value)).transpose()
}

/// Every version of every data set.
pub fn datasets(state: &dyn StateRead) -> Result<Vec<DatasetRow>, StateError> {
    Ok(rows(state, Key::of(table::DATASET), None, SCAN_ROWS)?
        .into_iter()
        .map(|(_, row)| row)
        .collect())
}

/// An operator by name.
pub fn operator(state: &dyn StateRead, name: &str) -> Result<Option<OperatorRow>, StateError> {
    row(state, &keys::named(table::OPERATOR, name))
}

/// All operators.
pub fn operators(state: &dyn StateRead) -> Result<Vec<OperatorRow>, StateError> {
    Ok(rows(state, Key::of(table::OPERATOR), None, SCAN_ROWS)?
        .into_iter()
        .map(|(_, row)| row)
        .collect())
}

/// A node.
pub fn node(state: &dyn StateRead, id: NodeId) -> Result<Option<NodeRow>, StateError> {
    row(state, &keys::by_id(table::NODE, &id.0))
}

/// All nodes, removed ones included.
pub fn nodes(state: &dyn StateRead) -> Result<Vec<NodeRow>, StateError> {
    Ok(rows(state, Key::of(table::NODE), None, SCAN_ROWS)?
        .into_iter()
        .map(|(_, row)| row)
        .collect())
}

/// A group and its replicas.
pub fn group(state: &dyn StateRead, group: u32) -> Result<Option<GroupRow>, StateError> {
    row(state, &keys::by_group(table::GROUP, group))
}

/// All groups.
pub fn groups(state: &dyn StateRead) -> Result<Vec<GroupRow>, StateError> {
    Ok(rows(state, Key::of(table::GROUP), None, SCAN_ROWS)?
        .into_iter()
        .map(|(_, row)| row)
        .collect())
}

/// The cluster's row.
pub fn cluster(state: &dyn StateRead) -> Result<Option<ClusterRow>, StateError> {
    row(state, &[table::CLUSTER])
}

/// A stream's cursor.
pub fn cursor(state: &dyn StateRead, stream: &StreamKey) -> Result<Option<Cursor>, StateError> {
    row(state, &keys::cursor(stream))
}

/// Keys of the rows that [`cursor`] and [`streams`] read of a source: from, inclusive, to,
/// exclusive.
pub fn streams_range(source: &str) -> (Vec<u8>, Vec<u8>) {
    Key::of(table::CURSOR).name(source).range()
}

/// Keys of the row that [`cursor`] reads: from, inclusive, to, exclusive.
pub fn cursor_range(stream: &StreamKey) -> (Vec<u8>, Vec<u8>) {
    let from = keys::cursor(stream);
    let to = [from.as_slice(), &[0]].concat();
    (from, to)
}

/// Streams of a source with their cursors, at most `limit`.
pub fn streams(
    state: &dyn StateRead,
    source: &str,
    limit: usize,
) -> Result<Vec<(String, Cursor)>, StateError> {
    let prefix = Key::of(table::CURSOR).name(source);
    let skip = 1 + source.len() + 1;
    let found = rows::<Cursor>(state, prefix, None, limit)?;
    Ok(found
        .into_iter()
        .map(|(key, cursor)| {
            let name = &key[skip..key.len().saturating_sub(1).max(skip)];
            (String::from_utf8_lossy(name).into_owned(), cursor)
        })
        .collect())
}

/// Batches in commit order after (index, ordinal), at most `limit`.
pub fn places_after(
    state: &dyn StateRead,
    after: Option<(u64, u32)>,
    limit: usize,
) -> Result<Vec<Place>, StateError> {
    let after = after.map(|(index, ordinal)| keys::place(index, ordinal));
    Ok(rows(state, Key::of(table::PLACE), after, limit)?.into_iter().map(|(_, row)| row).collect())
}

/// The batch at (index, ordinal).
pub fn place(state: &dyn StateRead, index: u64, ordinal: u32) -> Result<Option<Place>, StateError> {
    row(state, &keys::place(index, ordinal))
}

/// Batches of one stream that end at or above `sequence`, in order, at most `limit`.
pub fn stream_places(
    state: &dyn StateRead,
    stream: &StreamKey,
    sequence: u64,
    limit: usize,
) -> Result<Vec<Place>, StateError> {
    let (_, to) = Key::of(table::STREAM_PLACE).stream(stream).range();
    let from = keys::stream_place(stream, sequence);
    let mut places = Vec::new();
    for (_, pointer) in state.scan(&from, &to, limit)? {
        if let Some((index, ordinal)) = pointer_of(&pointer) {
            places.extend(place(state, index, ordinal)?);
        }
    }
    Ok(places)
}

fn pointer_of(bytes: &[u8]) -> Option<(u64, u32)> {
    let index = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let ordinal = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    Some((index, ordinal))
}

/// Where the record with a fingerprint lies: (index, ordinal, record), looked for in one month.
pub fn by_fingerprint(
    state: &dyn StateRead,
    month: dtm_types::Month,
    fingerprint: &[u8; 16],
) -> Result<Option<(u64, u32, u32)>, StateError> {
    let found = state.get(&keys::fingerprint(month, fingerprint))?;
    Ok(found.and_then(|bytes| {
        let (index, ordinal) = pointer_of(&bytes)?;
        let record = u32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?);
        Some((index, ordinal, record))
    }))
}

/// A wrapped key by id.
pub fn key(state: &dyn StateRead, id: KeyId) -> Result<Option<WrappedKey>, StateError> {
    row(state, &keys::key(id))
}

/// The key that holds for (purpose, source, month).
pub fn key_of(
    state: &dyn StateRead,
    purpose: KeyPurpose,
    source: &str,
    month: u32,
) -> Result<Option<WrappedKey>, StateError> {
    let id = state.get(&keys::key_of(purpose.into(), source, month))?;
    match id.as_deref().and_then(KeyId::from_slice) {
        Some(id) => key(state, id),
        None => Ok(None),
    }
}

/// Every wrapped key of the group after an id, at most `limit`.
pub fn keys_after(
    state: &dyn StateRead,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Vec<WrappedKey>, StateError> {
    let after = after.map(keys::key);
    Ok(rows(state, Key::of(table::KEY), after, limit)?.into_iter().map(|(_, row)| row).collect())
}

/// Keys of the rows that [`keys_after`] reads: from, inclusive, to, exclusive.
pub fn keys_range(after: Option<KeyId>) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = Key::of(table::KEY).range();
    (after.map_or(from, |id| [keys::key(id).as_slice(), &[0]].concat()), to)
}

/// Quarantined batches of a source after (index, ordinal): (index, ordinal, row).
pub fn quarantined(
    state: &dyn StateRead,
    source: &str,
    after: Option<(u64, u32)>,
    limit: usize,
) -> Result<Vec<(u64, u32, QuarantineRow)>, StateError> {
    let after = after.map(|(index, ordinal)| keys::quarantine(source, index, ordinal));
    let found =
        rows::<QuarantineRow>(state, Key::of(table::QUARANTINE).name(source), after, limit)?;
    Ok(found
        .into_iter()
        .filter_map(|(key, row)| {
            let (index, ordinal) = pointer_of(key.get(key.len().checked_sub(12)?..)?)?;
            Some((index, ordinal, row))
        })
        .collect())
}

/// What a source has in quarantine.
pub fn quota(state: &dyn StateRead, source: &str) -> Result<QuarantineQuota, StateError> {
    Ok(row(state, &keys::quota(source))?.unwrap_or_default())
}
