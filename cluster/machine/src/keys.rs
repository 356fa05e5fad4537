//! Key layout of a group's rows. The store puts (group, generation) before each key.
//!
//! ```text
//!  0x00 ..                                        the cluster crate: applied row (0x01), note of
//!                                                 missing bundles (0x02)
//!  0x10 index u64, ordinal u32                    Place: one row a batch, in commit order
//!  0x11 stream, last sequence u64                 index u64, ordinal u32
//!  0x12 stream                                    Cursor
//!  0x13 stream, slot u8                           base sequence u64, 32 resend tags of 16 bytes
//!  0x14 month u32, fingerprint 16 bytes           index u64, ordinal u32, record u32
//!  0x15 tile level u8, index u64                  hash: leaves and tile roots of the ledger
//!  0x16 leaf index u64                            0 + Leaf, or 1 + index u64, ordinal u32 (a batch)
//!  0x17                                           GroupHead
//!  0x18 source, index u64, ordinal u32            QuarantineRow
//!  0x19 source                                    QuarantineQuota
//!  0x1a purpose u8, source, month u32             key id
//!  0x1b key id 16 bytes                           WrappedKey
//!  0x1c source                                    number of stream names u64
//!  --- group meta only
//!  0x40 source        SourceRow          0x46 group u32     GroupRow
//!  0x41 source, id    SourceKeyRow       0x47               ClusterRow
//!  0x42 dataset, version u32 DatasetRow  0x48 group u32     sources placed there u64
//!  0x43 name          OperatorRow        0x49 leaf u64      sealed detail of an action
//!  0x44 node          NodeRow            0x4a request       Outcome of an action (last 4,096)
//!  0x45 token hash    JoinTokenRow       0x4b slot u16      request; 0x4c next slot
//!  0x4d source, digest SourceCertificateRow
//!  0x4e approval id   ApprovalRow        0x4f               leaf of the newest anchor u64
//!  0x58               SettingsRow        0x59 version u64   SettingsRow (last 1,000)
//!  0x60               LayoutRow
//! ```
//! Numbers are big endian. Names end with a zero byte (no name holds one), so that no name is the
//! prefix of another.

use dtm_types::{KeyId, Month, StreamKey};

/// Sequences in one slot of resend tags.
pub const SLOT_SEQUENCES: u64 = 32;
/// Sequences whose content can be compared on a resend.
pub const RESEND_WINDOW: u64 = 4_096;
/// Slots of a stream: the window, and one more because the newest is only partly filled.
pub const SLOTS: u64 = RESEND_WINDOW / SLOT_SEQUENCES + 1;

/// First byte of a key: the table.
pub mod table {
    /// Rows of the cluster crate.
    pub const RAFT: u8 = 0x00;
    /// Places by commit order.
    pub const PLACE: u8 = 0x10;
    /// Places by stream.
    pub const STREAM_PLACE: u8 = 0x11;
    /// Cursors.
    pub const CURSOR: u8 = 0x12;
    /// Resend tags.
    pub const TAGS: u8 = 0x13;
    /// Fingerprints of message ids.
    pub const FINGERPRINT: u8 = 0x14;
    /// Hashes of the ledger's tiles.
    pub const TILE: u8 = 0x15;
    /// Leaves.
    pub const LEAF: u8 = 0x16;
    /// The head.
    pub const HEAD: u8 = 0x17;
    /// Quarantined batches.
    pub const QUARANTINE: u8 = 0x18;
    /// Quarantine quotas.
    pub const QUOTA: u8 = 0x19;
    /// Key ids by purpose.
    pub const KEY_OF: u8 = 0x1a;
    /// Wrapped keys.
    pub const KEY: u8 = 0x1b;
    /// Stream names of a source.
    pub const NAMES: u8 = 0x1c;
    /// Sources.
    pub const SOURCE: u8 = 0x40;
    /// Source keys.
    pub const SOURCE_KEY: u8 = 0x41;
    /// Data sets.
    pub const DATASET: u8 = 0x42;
    /// Operators.
    pub const OPERATOR: u8 = 0x43;
    /// Nodes.
    pub const NODE: u8 = 0x44;
    /// Join tokens.
    pub const JOIN_TOKEN: u8 = 0x45;
    /// Groups.
    pub const GROUP: u8 = 0x46;
    /// The cluster.
    pub const CLUSTER: u8 = 0x47;
    /// Sources placed in a group.
    pub const LOAD: u8 = 0x48;
    /// Sealed details.
    pub const DETAIL: u8 = 0x49;
    /// Outcomes by request.
    pub const REQUEST: u8 = 0x4a;
    /// Ring of requests.
    pub const REQUEST_SLOT: u8 = 0x4b;
    /// Next slot of the ring.
    pub const REQUEST_NEXT: u8 = 0x4c;
    /// Certificates of sources.
    pub const SOURCE_CERTIFICATE: u8 = 0x4d;
    /// Approvals.
    pub const APPROVAL: u8 = 0x4e;
    /// The newest anchor.
    pub const ANCHOR: u8 = 0x4f;
    /// The cluster's settings.
    pub const SETTINGS: u8 = 0x58;
    /// Their versions.
    pub const SETTINGS_VERSION: u8 = 0x59;
    /// How replicas lie over sites.
    pub const LAYOUT: u8 = 0x60;
}

/// Builds a key part by part.
#[derive(Clone, Debug)]
pub struct Key(Vec<u8>);

impl Key {
    /// Starts with the table byte.
    pub fn of(table: u8) -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.push(table);
        Self(bytes)
    }

    /// Adds a name and its end.
    pub fn name(mut self, name: &str) -> Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    /// Adds both names of a stream.
    pub fn stream(self, key: &StreamKey) -> Self {
        self.name(key.source.as_str()).name(&key.stream)
    }

    /// Adds one byte.
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Adds a number.
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a number.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a number.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds bytes of fixed length.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The finished key.
    pub fn done(self) -> Vec<u8> {
        self.0
    }

    /// The range of all keys that begin like this one.
    pub fn range(self) -> (Vec<u8>, Vec<u8>) {
        let from = self.0;
        let mut to = from.clone();
        while let Some(last) = to.pop() {
            if last < u8::MAX {
                to.push(last + 1);
                break;
            }
        }
        (from, to)
    }
}

/// Row of a batch in commit order.
pub fn place(index: u64, ordinal: u32) -> Vec<u8> {
    Key::of(table::PLACE).u64(index).u32(ordinal).done()
}

/// Row that finds a batch by stream and last sequence.
pub fn stream_place(stream: &StreamKey, last_sequence: u64) -> Vec<u8> {
    Key::of(table::STREAM_PLACE).stream(stream).u64(last_sequence).done()
}

/// A stream's cursor.
pub fn cursor(stream: &StreamKey) -> Vec<u8> {
    Key::of(table::CURSOR).stream(stream).done()
}

/// The slot that holds a sequence's resend tag.
pub fn tags(stream: &StreamKey, sequence: u64) -> Vec<u8> {
    let slot = (sequence / SLOT_SEQUENCES) % SLOTS;
    Key::of(table::TAGS).stream(stream).u8(u8::try_from(slot).expect("129 slots fit a byte")).done()
}

/// A fingerprint.
pub fn fingerprint(month: Month, fingerprint: &[u8]) -> Vec<u8> {
    Key::of(table::FINGERPRINT).u32(month.0).raw(fingerprint).done()
}

/// A hash of the ledger's tree.
pub fn tile(level: u8, index: u64) -> Vec<u8> {
    Key::of(table::TILE).u8(level).u64(index).done()
}

/// A leaf.
pub fn leaf(index: u64) -> Vec<u8> {
    Key::of(table::LEAF).u64(index).done()
}

/// The head.
pub fn head() -> Vec<u8> {
    vec![table::HEAD]
}

/// A batch with refused records.
pub fn quarantine(source: &str, index: u64, ordinal: u32) -> Vec<u8> {
    Key::of(table::QUARANTINE).name(source).u64(index).u32(ordinal).done()
}

/// A source's quarantine quota.
pub fn quota(source: &str) -> Vec<u8> {
    Key::of(table::QUOTA).name(source).done()
}

/// Which key holds for (purpose, source, month).
pub fn key_of(purpose: i32, source: &str, month: u32) -> Vec<u8> {
    let purpose = u8::try_from(purpose).unwrap_or(0);
    Key::of(table::KEY_OF).u8(purpose).name(source).u32(month).done()
}

/// A wrapped key.
pub fn key(id: KeyId) -> Vec<u8> {
    Key::of(table::KEY).raw(&id.0).done()
}

/// Number of stream names of a source.
pub fn names(source: &str) -> Vec<u8> {
    Key::of(table::NAMES).name(source).done()
}

/// A row of meta that is found by a name.
pub fn named(table: u8, name: &str) -> Vec<u8> {
    Key::of(table).name(name).done()
}

/// One certificate of a source.
pub fn source_certificate(source: &str, digest: &[u8]) -> Vec<u8> {
    Key::of(table::SOURCE_CERTIFICATE).name(source).raw(digest).done()
}

/// A source key.
pub fn source_key(source: &str, key_id: &[u8]) -> Vec<u8> {
    Key::of(table::SOURCE_KEY).name(source).raw(key_id).done()
}

/// A version of a data set.
pub fn dataset(id: &str, version: u32) -> Vec<u8> {
    Key::of(table::DATASET).name(id).u32(version).done()
}

/// A row of meta that is found by bytes of fixed length.
pub fn by_id(table: u8, id: &[u8]) -> Vec<u8> {
    Key::of(table).raw(id).done()
}

/// A row of meta that is found by a group.
pub fn by_group(table: u8, group: u32) -> Vec<u8> {
    Key::of(table).u32(group).done()
}

/// The cluster's settings as of a version.
pub fn settings_version(version: u64) -> Vec<u8> {
    Key::of(table::SETTINGS_VERSION).u64(version).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as they lie on disk; docs/formats.md, section 6.
    #[test]
    fn every_key_is_as_it_always_was() {
        let stream = StreamKey::parse("a-1", "ngày").expect("valid");
        let made: [(Vec<u8>, &[u8]); 37] = [
            (place(0x0102, 3), b"\x10\0\0\0\0\0\0\x01\x02\0\0\0\x03"),
            (stream_place(&stream, 258), b"\x11a-1\0ng\xc3\xa0y\0\0\0\0\0\0\0\x01\x02"),
            (cursor(&stream), b"\x12a-1\0ng\xc3\xa0y\0"),
            (tags(&stream, 31), b"\x13a-1\0ng\xc3\xa0y\0\0"),
            (tags(&stream, 129 * 32 - 1), b"\x13a-1\0ng\xc3\xa0y\0\x80"),
            (tags(&stream, 129 * 32), b"\x13a-1\0ng\xc3\xa0y\0\0"),
            (fingerprint(Month(0x5f02), b"0123456789abcdef"), b"\x14\0\0\x5f\x020123456789abcdef"),
            (tile(2, 258), b"\x15\x02\0\0\0\0\0\0\x01\x02"),
            (leaf(258), b"\x16\0\0\0\0\0\0\x01\x02"),
            (head(), b"\x17"),
            (quarantine("a-1", 258, 3), b"\x18a-1\0\0\0\0\0\0\0\x01\x02\0\0\0\x03"),
            (quota("a-1"), b"\x19a-1\0"),
            (key_of(2, "a-1", 0x5f02), b"\x1a\x02a-1\0\0\0\x5f\x02"),
            (key_of(3, "", 0x5f02), b"\x1a\x03\0\0\0\x5f\x02"),
            (key(KeyId(*b"0123456789abcdef")), b"\x1b0123456789abcdef"),
            (names("a-1"), b"\x1ca-1\0"),
            (named(table::SOURCE, "a-1"), b"\x40a-1\0"),
            (source_key("a-1", b"01234567"), b"\x41a-1\x0001234567"),
            (source_key("a-1", b"n"), b"\x41a-1\0n"),
            (dataset("payment", 258), b"\x42payment\0\0\0\x01\x02"),
            (named(table::OPERATOR, "an"), b"\x43an\0"),
            (by_id(table::NODE, b"0123456789abcdef"), b"\x440123456789abcdef"),
            (by_id(table::JOIN_TOKEN, &[7; 3]), b"\x45\x07\x07\x07"),
            (by_group(table::GROUP, 258), b"\x46\0\0\x01\x02"),
            (vec![table::CLUSTER], b"\x47"),
            (by_group(table::LOAD, 258), b"\x48\0\0\x01\x02"),
            (Key::of(table::DETAIL).u64(258).done(), b"\x49\0\0\0\0\0\0\x01\x02"),
            (by_id(table::REQUEST, b"0123456789abcdef"), b"\x4a0123456789abcdef"),
            (Key::of(table::REQUEST_SLOT).u16(258).done(), b"\x4b\x01\x02"),
            (Key::of(table::REQUEST_NEXT).done(), b"\x4c"),
            (source_certificate("a-1", &[8; 3]), b"\x4da-1\0\x08\x08\x08"),
            (by_id(table::APPROVAL, b"0123456789abcdef"), b"\x4e0123456789abcdef"),
            (vec![table::ANCHOR], b"\x4f"),
            (vec![table::SETTINGS], b"\x58"),
            (settings_version(258), b"\x59\0\0\0\0\0\0\x01\x02"),
            (vec![table::LAYOUT], b"\x60"),
            (vec![table::RAFT], b"\0"),
        ];
        for (made, kept) in made {
            assert_eq!(made, kept);
        }
    }

    #[test]
    fn a_range_holds_all_keys_with_the_prefix() {
        let (from, to) = Key::of(table::CURSOR).name("a").range();
        let stream = StreamKey::parse("a", "x").expect("valid");
        let other = StreamKey::parse("aa", "x").expect("valid");
        assert!(from <= cursor(&stream) && cursor(&stream) < to);
        assert!(cursor(&other) >= to || cursor(&other) < from);
        assert_eq!(Key(vec![1, 255]).range().1, vec![2]);
    }
}
