//! No field without a golden: every field that `proto/versions.txt` lists stands in some file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::file;

const LIST: &str = include_str!("../../../proto/versions.txt");

/// Fields of all messages: number, and the type where that is a message.
type Fields = BTreeMap<String, BTreeMap<u32, String>>;

fn listed() -> Fields {
    let mut fields = Fields::new();
    for line in LIST.lines().filter(|line| line.starts_with("dtm.")) {
        let words: Vec<&str> = line.split(' ').collect();
        // A value of an enum has no type.
        if let [message, number, _, .., kind] = words[..] {
            let of_message = fields.entry(message.to_owned()).or_default();
            of_message.insert(number.parse().unwrap(), kind.to_owned());
        }
    }
    fields
}

/// Adds each field that the bytes hold.
fn walk(message: &str, mut rest: &[u8], all: &Fields, seen: &mut BTreeSet<(String, u32)>) {
    let fields = all.get(message).unwrap_or_else(|| panic!("{message} is not listed"));
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).unwrap();
        let kind = fields.get(&number).unwrap_or_else(|| panic!("{message} has no {number}"));
        seen.insert((message.to_owned(), number));
        if wire_type == WireType::LengthDelimited && all.contains_key(kind) {
            let length = usize::try_from(decode_varint(&mut rest).unwrap()).unwrap();
            let (inner, after) = rest.split_at(length);
            walk(kind, inner, all, seen);
            rest = after;
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).unwrap();
        }
    }
}

#[test]
fn every_field_that_is_stored_or_replicated_has_a_golden() {
    let all = listed();
    assert!(all.len() > 50, "the list was read");
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(file::folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let (package, values) = file::read(&path);
        for (name, bytes) in values.iter().filter(|_| package.starts_with("dtm.")) {
            let kind = name.split('/').next().unwrap();
            let message = format!("{package}.{kind}");
            if all.contains_key(&message) {
                walk(&message, bytes, &all, &mut seen);
            }
        }
    }
    let fields = all.iter().flat_map(|(m, f)| f.keys().map(move |number| (m.clone(), *number)));
    let without: Vec<_> = fields.filter(|field| !seen.contains(field)).collect();
    assert!(without.is_empty(), "without a golden: {without:?}");
}
