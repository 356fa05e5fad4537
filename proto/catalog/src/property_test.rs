//! Properties of the canonical form and of the two paths, over generated records and bytes.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::json::{Item, Value, canonical_order, read};
use crate::{Accepted, CompiledSchema, Definition, Outcome, Scratch, fast, slow};

fn schema() -> &'static CompiledSchema {
    static SCHEMA: LazyLock<CompiledSchema> = LazyLock::new(mixed);
    &SCHEMA
}

fn mixed() -> CompiledSchema {
    let text = r#"
        id = "mixed"
        version = 1
        owner = "o"
        category = "B3"
        title = { vi = "v", en = "e" }
        key = ["code"]
        [[field]]
        name = "code"
        type = "Code"
        label = { vi = "v", en = "e" }
        [[field]]
        name = "body"
        type = "Text"
        nullable = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "when"
        type = "DateTime"
        optional = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "day"
        type = "Date"
        optional = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "number"
        type = "Integer"
        optional = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "price"
        type = "Decimal"
        optional = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "tags"
        type = "[Text]"
        label = { vi = "v", en = "e" }
        [[field]]
        name = "contact"
        type = "Contact"
        optional = true
        label = { vi = "v", en = "e" }
        [[field]]
        name = "free"
        type = "Object"
        optional = true
        label = { vi = "v", en = "e" }
        [[rule]]
        kind = "not_before"
        field = "day"
        earlier = "when"
    "#;
    CompiledSchema::compile(&Definition::parse(text, "mixed.toml").expect("valid")).expect("fits")
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-(1i64 << 54)..1 << 54).prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "[a-z\u{301}\u{e9}ạ\\r\\n\\t\"\\\\]{0,12}".prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-cạ\u{1f600}\u{fb33}]{0,3}", inner, 0..5)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn record()(
        code in "[A-Z0-9.-]{1,20}",
        body in prop_oneof![Just(None), "[ -~ạếờđ\\n\u{301}e]{0,80}".prop_map(Some)],
        when in prop_oneof![Just(None), (0u32..24, 0u32..60, prop_oneof![Just("Z"), Just("+07:00"), Just("-03:30")])
            .prop_map(|(h, s, z)| Some(format!("2026-01-25T{h:02}:30:{s:02}{z}")))],
        day in prop_oneof![Just(None), Just(Some("2026")), Just(Some("2026-02-03"))],
        number in prop::option::of(-(1i64 << 53)..=1 << 53),
        price in prop::option::of("-?[1-9][0-9]{0,5}\\.[0-9]{1,4}"),
        tags in prop::collection::vec("[a-zạ]{1,8}", 0..4),
        phone in prop::option::of("[0-9]{0,10}"),
        free in prop::collection::btree_map("[a-cạ\u{1f600}]{0,3}", json(), 0..4),
    ) -> serde_json::Value {
        let free: serde_json::Map<String, serde_json::Value> = free.into_iter().collect();
        serde_json::json!({
            "code": code, "body": body, "when": when, "day": day, "number": number,
            "price": price, "tags": tags, "contact": { "phone": phone }, "free": free,
        })
    }
}

/// Another JSON text of the same value: members rotated, blanks added, letters escaped.
fn disguise(item: &Item<'_>, seed: usize, out: &mut String) {
    let blank = ["", " ", "\n\t ", "\r\n"][seed % 4];
    out.push_str(blank);
    match &item.value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(n),
        Value::BadText(_) => out.push_str("\"\\u0001\""),
        Value::Text(text) => quote(text, seed, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                disguise(item, seed + n, out);
            }
            out.push_str(blank);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let turn = if members.is_empty() { 0 } else { seed % members.len() };
            let turned = members[turn..].iter().chain(&members[..turn]);
            for (n, (name, item)) in turned.enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                out.push_str(blank);
                quote(name, seed + n, out);
                out.push_str(blank);
                out.push(':');
                disguise(item, seed + n, out);
            }
            out.push('}');
        }
    }
    out.push_str(blank);
}

fn quote(text: &str, seed: usize, out: &mut String) {
    out.push('"');
    for (n, unit) in text.chars().enumerate() {
        if (n + seed).is_multiple_of(3) || unit < ' ' || matches!(unit, '"' | '\\') {
            let mut pair = [0; 2];
            for half in unit.encode_utf16(&mut pair) {
                out.push_str(&format!("\\u{half:04X}"));
            }
        } else {
            out.push(unit);
        }
    }
    out.push('"');
}

fn accepted(schema: &CompiledSchema, payload: &[u8]) -> Option<Vec<u8>> {
    match schema.check(payload, &mut Scratch::default()) {
        Outcome::Accepted { form, .. } => Some(form.bytes(payload).to_vec()),
        Outcome::Refused(refusal) => {
            assert!(!refusal.violations.is_empty());
            None
        }
    }
}

/// The two paths agree: what the fast path takes, the slow path takes with the same bytes.
fn agree(schema: &CompiledSchema, payload: &[u8]) -> Result<(), TestCaseError> {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Ok(());
    };
    let mut slots = Vec::new();
    if fast::is_canonical_and_valid(schema, text, &mut slots) {
        let want = Outcome::Accepted { form: Accepted::Same, warnings: Vec::new() };
        let mut slow_slots = Vec::new();
        prop_assert_eq!(slow::check(schema, payload, Ok(text), &mut slow_slots), want);
        prop_assert_eq!(slots, slow_slots);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_canonical_form_is_idempotent_and_the_same_for_every_spelling(
        value in record(), seed in 0usize..1000,
    ) {
        let schema = schema();
        let sent = value.to_string();
        agree(schema, sent.as_bytes())?;
        let canonical = accepted(schema, sent.as_bytes());
        let mut other = String::new();
        disguise(&read(&sent).expect("JSON"), seed, &mut other);
        prop_assert_eq!(&canonical, &accepted(schema, other.as_bytes()), "{}", other);
        if let Some(canonical) = canonical {
            agree(schema, &canonical)?;
            let again = schema.check(&canonical, &mut Scratch::default());
            let same = matches!(again, Outcome::Accepted { form: Accepted::Same, .. });
            prop_assert!(same, "{}", String::from_utf8_lossy(&canonical));
            let text = std::str::from_utf8(&canonical).expect("UTF-8");
            let mut slots = Vec::new();
            let simple = !canonical.contains(&b'\\');
            prop_assert!(!simple || fast::fill_slots(schema, text, &mut slots));
            sorted(&read(text).expect("JSON"))?;
        }
    }

    #[test]
    fn no_bytes_make_it_panic(payload: Vec<u8>) {
        let _ = accepted(schema(), &payload);
    }

    #[test]
    fn no_json_makes_it_panic(value in json()) {
        let schema = schema();
        let _ = accepted(schema, value.to_string().as_bytes());
    }

    #[test]
    fn no_change_of_a_byte_makes_the_paths_disagree(
        value in record(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        let schema = schema();
        let mut bytes = accepted(schema, value.to_string().as_bytes())
            .unwrap_or_else(|| value.to_string().into_bytes());
        let place = at.index(bytes.len());
        bytes[place] = byte;
        agree(schema, &bytes)?;
        let _ = accepted(schema, &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = accepted(schema, &bytes);
    }
}

fn sorted(item: &Item<'_>) -> Result<(), TestCaseError> {
    match &item.value {
        Value::Array(items) => items.iter().try_for_each(sorted),
        Value::Object(members) => {
            for pair in members.windows(2) {
                prop_assert!(canonical_order(&pair[0].0, &pair[1].0).is_lt());
            }
            members.iter().try_for_each(|(_, item)| sorted(item))
        }
        _ => Ok(()),
    }
}
