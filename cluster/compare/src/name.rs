//! What a key of a row says in words, for logs and alarms. English, as all log lines.

use dtm_machine::keys::table;
use dtm_types::format::Place;
use prost::Message;

/// The table that a key belongs to, as metrics name it.
pub fn table_name(key: &[u8]) -> &'static str {
    match key.first() {
        Some(&table::PLACE) => "place",
        Some(&table::STREAM_PLACE) => "stream_place",
        Some(&table::CURSOR) => "cursor",
        Some(&table::TAGS) => "tags",
        Some(&table::FINGERPRINT) => "fingerprint",
        Some(&table::TILE) => "tile",
        Some(&table::LEAF) => "leaf",
        Some(&table::HEAD) => "head",
        Some(&table::QUARANTINE) => "quarantine",
        Some(&table::QUOTA) => "quota",
        Some(&table::KEY_OF) => "key_of",
        Some(&table::KEY) => "key",
        Some(&table::NAMES) => "names",
        _ => "meta",
    }
}

/// What the row is about: the batch, the stream, the leaf. `value` is what it holds where it is right
/// or wrong, if that is at hand: of a place it says which records. What is not known is hexadecimal.
pub fn name(key: &[u8], value: Option<&[u8]>) -> String {
    let known = key.split_first().and_then(|(table, rest)| words(*table, Rest(rest), value));
    known.unwrap_or_else(|| format!("row {}", hex(key)))
}

fn words(table: u8, mut rest: Rest<'_>, value: Option<&[u8]>) -> Option<String> {
    Some(match table {
        table::PLACE => {
            let (index, ordinal) = (rest.u64()?, rest.u32()?);
            let batch = format!("batch at index {index}, command {ordinal}");
            match value.and_then(|value| Place::decode(value).ok()) {
                Some(place) => format!(
                    "{batch}: records {} to {} of {}/{}",
                    place.first_sequence, place.last_sequence, place.source, place.stream
                ),
                None => batch,
            }
        }
        table::STREAM_PLACE => {
            let (stream, last) = (rest.stream()?, rest.u64()?);
            format!("place of the batch of {stream} that ends with record {last}")
        }
        table::CURSOR => format!("cursor of {}", rest.stream()?),
        table::TAGS => format!("resend tags of {}, slot {}", rest.stream()?, rest.u8()?),
        table::FINGERPRINT => {
            let (month, id) = (rest.u32()?, hex(rest.0));
            format!("fingerprint {id} of month {:04}-{:02}", month / 12, month % 12 + 1)
        }
        table::TILE => format!("hash {1} of tile level {0} of the ledger", rest.u8()?, rest.u64()?),
        table::LEAF => format!("leaf {} of the ledger", rest.u64()?),
        table::HEAD => "head of the group".to_owned(),
        table::QUARANTINE => {
            let source = rest.name()?;
            format!("quarantined batch of {source} at index {}", rest.u64()?)
        }
        table::QUOTA => format!("quarantine quota of {}", rest.name()?),
        table::KEY_OF => {
            let (purpose, source, month) = (rest.u8()?, rest.name()?, rest.u32()?);
            format!("id of the key of purpose {purpose} of {source:?}, month number {month}")
        }
        table::KEY => format!("wrapped key {}", hex(rest.0)),
        table::NAMES => format!("number of stream names of {}", rest.name()?),
        table::SOURCE => format!("source {}", rest.name()?),
        table::DATASET => format!("data set {}, version {}", rest.name()?, rest.u32()?),
        table::OPERATOR => format!("operator {}", rest.name()?),
        table::GROUP => format!("group {} in meta", rest.u32()?),
        _ => return None,
    })
}

/// What of a key was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(name).ok()
    }

    fn stream(&mut self) -> Option<String> {
        Some(format!("{}/{}", self.name()?, self.name()?))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use dtm_machine::keys;
    use dtm_types::{Month, StreamKey};

    use super::*;

    #[test]
    fn a_key_names_the_record() {
        let stream = StreamKey::parse("tinh-01", "main").expect("valid");
        let place = Place {
            source: "tinh-01".to_owned(),
            stream: "main".to_owned(),
            first_sequence: 5,
            last_sequence: 9,
            ..Place::default()
        };
        let value = place.encode_to_vec();
        let named = [
            (keys::place(258, 3), "batch at index 258, command 3: records 5 to 9 of tinh-01/main"),
            (
                keys::stream_place(&stream, 9),
                "place of the batch of tinh-01/main that ends with record 9",
            ),
            (keys::cursor(&stream), "cursor of tinh-01/main"),
            (keys::tags(&stream, 32), "resend tags of tinh-01/main, slot 1"),
            (keys::fingerprint(Month(24_312), &[0xab; 2]), "fingerprint abab of month 2026-01"),
            (keys::tile(1, 7), "hash 7 of tile level 1 of the ledger"),
            (keys::leaf(7), "leaf 7 of the ledger"),
            (keys::head(), "head of the group"),
            (keys::quarantine("tinh-01", 4, 0), "quarantined batch of tinh-01 at index 4"),
            (keys::names("tinh-01"), "number of stream names of tinh-01"),
            (vec![0x10, 1], "row 1001"),
            (vec![0x77, 1], "row 7701"),
            (vec![], "row "),
        ];
        for (key, words) in named {
            assert_eq!(name(&key, Some(&value)), words);
        }
        assert_eq!(name(&keys::place(1, 0), None), "batch at index 1, command 0");
        assert_eq!(table_name(&keys::place(1, 0)), "place");
        assert_eq!(table_name(&[table::SOURCE, 1]), "meta");
    }
}
