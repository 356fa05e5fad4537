//! Reads of apply go through what the same write batch already changed.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_types::GroupId;
use prost::Message;

use crate::keys::Key;
use crate::machine::ApplyError;
use crate::seams::{StateBatch, StateRead};

/// Rows read in one step.
const SCAN_ROWS: usize = 256;

/// Rows before the batch, under the changes of the batch.
pub(crate) struct Overlay<'a> {
    group: GroupId,
    below: &'a dyn StateRead,
    changed: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(group: GroupId, below: &'a dyn StateRead) -> Self {
        Self { group, below, changed: BTreeMap::new() }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ApplyError> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.below.get(key)?),
        }
    }

    /// A row that holds a message.
    pub(crate) fn row<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, ApplyError> {
        self.get(key)?.map(|bytes| decode_row(self.group, key, bytes)).transpose()
    }

    /// All rows below a prefix, in the order of their keys.
    pub(crate) fn rows<M: Message + Default>(&self, prefix: Key) -> Result<Vec<M>, ApplyError> {
        let (mut from, to) = prefix.range();
        let changed = self.changed.range(from.clone()..to.clone());
        let mut found = BTreeMap::new();
        loop {
            let step = self.below.scan(&from, &to, SCAN_ROWS)?;
            let is_last = step.len() < SCAN_ROWS;
            if let Some((last, _)) = step.last() {
                from = [&last[..], &[0]].concat();
            }
            found.extend(step.into_iter().map(|(key, value)| (key.to_vec(), Some(value))));
            if is_last {
                break;
            }
        }
        found.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
        let held = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
        held.map(|(key, value)| decode_row(self.group, &key, value)).collect()
    }

    /// A row that holds a big-endian number; 0 where there is none.
    pub(crate) fn number(&self, key: &[u8]) -> Result<u64, ApplyError> {
        let Some(bytes) = self.get(key)? else {
            return Ok(0);
        };
        let bytes: [u8; 8] = bytes
            .as_ref()
            .try_into()
            .map_err(|_| malformed(self.group, key, "8 bytes expected"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.changed.insert(key, Some(value.into()));
    }

    pub(crate) fn put_row(&mut self, key: Vec<u8>, row: &impl Message) {
        self.put(key, row.encode_to_vec());
    }

    pub(crate) fn put_number(&mut self, key: Vec<u8>, number: u64) {
        self.put(key, number.to_be_bytes().to_vec());
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.changed.insert(key, None);
    }

    pub(crate) fn finish(self, batch: &mut StateBatch) {
        for (key, value) in self.changed {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
    }
}

pub(crate) fn decode_row<M: Message + Default>(
    group: GroupId,
    key: &[u8],
    bytes: Bytes,
) -> Result<M, ApplyError> {
    M::decode(bytes).map_err(|e| malformed(group, key, &e.to_string()))
}

pub(crate) fn malformed(group: GroupId, key: &[u8], cause: &str) -> ApplyError {
    ApplyError::Row { group, key: hex(key), cause: cause.to_owned() }
}

/// Bytes as they stand in texts.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
