//! Typed reads over a group's rows, for everyone above apply.

use bytes::Bytes;
use dtm_types::command::{
    ApprovalRow, ClusterRow, DatasetRow, GroupRow, LayoutRow, NodeRow, OperatorRow, SettingsRow,
    SourceCertificateRow, SourceKeyRow, SourceRow,
};
use dtm_types::format::{
    Cursor, GroupHead, KeyPurpose, Leaf, Place, QuarantineQuota, QuarantineRow, WrappedKey,
};
use dtm_types::{ApprovalId, GroupId, KeyId, NodeId, StreamKey};
use prost::Message;

use crate::keys::{self, Key, table};
use crate::leaves;
use crate::overlay::hex;
use crate::seams::{StateError, StateRead};

/// Rows of one scan step; an answer that is meant to be whole takes as many steps as it needs.
const SCAN_ROWS: usize = 1_024;

fn row<M: Message + Default>(state: &dyn StateRead, key: &[u8]) -> Result<Option<M>, StateError> {
    state.get(key)?.map(|bytes| decode(state.group(), key, bytes)).transpose()
}

fn decode<M: Message + Default>(group: GroupId, key: &[u8], bytes: Bytes) -> Result<M, StateError> {
    let undecoded = |error| format!("row {} does not decode: {error}", hex(key));
    M::decode(bytes).map_err(|error| StateError::new(group, undecoded(error)))
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
    let group = state.group();
    let decoded = |(key, value): (Bytes, Bytes)| decode(group, &key, value).map(|row| (key, row));
    found.into_iter().map(decoded).collect()
}

/// Rows with the prefix after a key, in order, at most `limit`.
fn values<M: Message + Default>(
    state: &dyn StateRead,
    prefix: Key,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Vec<M>, StateError> {
    Ok(rows(state, prefix, after, limit)?.into_iter().map(|(_, row)| row).collect())
}

/// Every row with the prefix whose key is as wanted, in order.
fn all<M: Message + Default>(
    state: &dyn StateRead,
    prefix: Key,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<M>, StateError> {
    let (mut from, to) = prefix.range();
    let mut found = Vec::new();
    loop {
        let step = state.scan(&from, &to, SCAN_ROWS)?;
        let is_last = step.len() < SCAN_ROWS;
        if let Some((last, _)) = step.last() {
            from = [&last[..], &[0]].concat();
        }
        for (key, value) in step.into_iter().filter(|(key, _)| is_wanted(key)) {
            found.push(decode(state.group(), &key, value)?);
        }
        if is_last {
            return Ok(found);
        }
    }
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
    values(state, Key::of(table::SOURCE), after, limit)
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
    let of_source = Key::of(table::SOURCE_KEY).name(source);
    // The counter of keys stands among them under a one-byte id.
    let key_length = of_source.clone().done().len() + 8;
    all(state, of_source, |key| key.len() == key_length)
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
    all(state, of_source, |_| true)
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
    state.last(&from, &to)?.map(|(key, value)| decode(state.group(), &key, value)).transpose()
}

/// Every version of a data set, ascending.
pub fn dataset_versions(state: &dyn StateRead, id: &str) -> Result<Vec<DatasetRow>, StateError> {
    all(state, Key::of(table::DATASET).name(id), |_| true)
}

/// Versions of one data set, or with an empty name of every one, after the row with a key: at most
/// `bytes_max` of them, but one where there is one. Beside them the key to go on after; empty at the
/// end.
pub fn datasets_after(
    state: &dyn StateRead,
    id: &str,
    after: &[u8],
    bytes_max: usize,
) -> Result<(Vec<DatasetRow>, Bytes), StateError> {
    let every = Key::of(table::DATASET);
    let (mut from, to) = if id.is_empty() { every.range() } else { every.name(id).range() };
    if !after.is_empty() {
        from = from.max([after, &[0]].concat());
    }
    let found = state.scan_within(&from, &to, SCAN_ROWS, bytes_max)?;
    let next = match found.last() {
        Some((last, _)) if !state.scan(&[last, &[0][..]].concat(), &to, 1)?.is_empty() => {
            last.clone()
        }
        _ => Bytes::new(),
    };
    let group = state.group();
    let rows = found.into_iter().map(|(key, value)| decode(group, &key, value));
    Ok((rows.collect::<Result<_, _>>()?, next))
}

/// An operator by name.
pub fn operator(state: &dyn StateRead, name: &str) -> Result<Option<OperatorRow>, StateError> {
    row(state, &keys::named(table::OPERATOR, name))
}

/// All operators.
pub fn operators(state: &dyn StateRead) -> Result<Vec<OperatorRow>, StateError> {
    all(state, Key::of(table::OPERATOR), |_| true)
}

/// A node.
pub fn node(state: &dyn StateRead, id: NodeId) -> Result<Option<NodeRow>, StateError> {
    row(state, &keys::by_id(table::NODE, &id.0))
}

/// All nodes, removed ones included.
pub fn nodes(state: &dyn StateRead) -> Result<Vec<NodeRow>, StateError> {
    all(state, Key::of(table::NODE), |_| true)
}

/// A group and its replicas.
pub fn group(state: &dyn StateRead, group: u32) -> Result<Option<GroupRow>, StateError> {
    row(state, &keys::by_group(table::GROUP, group))
}

/// All groups.
pub fn groups(state: &dyn StateRead) -> Result<Vec<GroupRow>, StateError> {
    all(state, Key::of(table::GROUP), |_| true)
}

/// The cluster's row.
pub fn cluster(state: &dyn StateRead) -> Result<Option<ClusterRow>, StateError> {
    row(state, &[table::CLUSTER])
}

/// How replicas lie over sites; version 0 where nobody decided it.
pub fn layout(state: &dyn StateRead) -> Result<LayoutRow, StateError> {
    Ok(row(state, &[table::LAYOUT])?.unwrap_or_default())
}

/// The cluster's settings; version 0 where none were ever set.
pub fn settings(state: &dyn StateRead) -> Result<SettingsRow, StateError> {
    Ok(row(state, &[table::SETTINGS])?.unwrap_or_default())
}

/// The cluster's settings as of a version, where it is still held.
pub fn settings_version(
    state: &dyn StateRead,
    version: u64,
) -> Result<Option<SettingsRow>, StateError> {
    row(state, &keys::settings_version(version))
}

/// An approval.
pub fn approval(state: &dyn StateRead, id: ApprovalId) -> Result<Option<ApprovalRow>, StateError> {
    row(state, &keys::by_id(table::APPROVAL, &id.0))
}

/// All approvals that are held.
pub fn approvals(state: &dyn StateRead) -> Result<Vec<ApprovalRow>, StateError> {
    all(state, Key::of(table::APPROVAL), |_| true)
}

/// The newest anchors with the indexes of their leaves, newest first, at most `limit`.
pub fn anchors(state: &dyn StateRead, limit: usize) -> Result<Vec<(u64, Leaf)>, StateError> {
    let newest = state.get(&[table::ANCHOR])?;
    let mut next = newest.and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?)));
    let mut found = Vec::new();
    while let Some(index) = next.filter(|_| found.len() < limit) {
        let key = keys::leaf(index);
        let row = state.get(&key)?.unwrap_or_default();
        let leaf: Leaf =
            decode(state.group(), &key, row.slice_ref(leaves::inline(&row).unwrap_or(&[])))?;
        // Each names an earlier one, so that there is an end.
        next =
            leaf.anchor.as_ref().and_then(|anchor| anchor.previous_leaf).filter(|at| *at < index);
        found.push((index, leaf));
    }
    Ok(found)
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
    values(state, Key::of(table::PLACE), after, limit)
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
    values(state, Key::of(table::KEY), after, limit)
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

#[cfg(test)]
mod tests {
    use dtm_types::GroupId;

    use super::*;
    use crate::seams::{MemoryStateStore, StateBatch, StateStore};

    /// A store with this many nodes and keys of a source, and its counter of keys.
    fn store(many: u64) -> MemoryStateStore {
        let store = MemoryStateStore::new(GroupId::META);
        let mut batch = StateBatch::default();
        for number in 0..many {
            let id = [number.to_be_bytes(); 2].concat();
            let node = NodeRow { node: id.clone().into(), ..NodeRow::default() };
            batch.put(keys::by_id(table::NODE, &id), node.encode_to_vec());
            let key = SourceKeyRow { source: "a".to_owned(), ..SourceKeyRow::default() };
            batch.put(keys::source_key("a", &number.to_be_bytes()), key.encode_to_vec());
        }
        batch.put(keys::source_key("a", b"n"), many.to_be_bytes());
        store.write(&batch).expect("written");
        store
    }

    #[test]
    fn an_answer_is_whole_however_many_rows_there_are() {
        let step = SCAN_ROWS as u64;
        for many in [0, step - 1, step, step + 1, 2 * step + 5] {
            let store = store(many);
            assert_eq!(nodes(&store).expect("reads").len() as u64, many);
            assert_eq!(source_keys(&store, "a").expect("reads").len() as u64, many);
        }
    }

    #[test]
    fn a_row_that_does_not_decode_is_named() {
        let store = store(0);
        let mut batch = StateBatch::default();
        batch.put(keys::by_group(table::GROUP, 3), [0xff]);
        store.write(&batch).expect("written");
        let cause = group(&store, 3).expect_err("no row").cause;
        assert!(cause.starts_with("row 4600000003 does not decode"), "{cause}");
    }
}
