use std::collections::{BTreeMap, BTreeSet};

use super::*;

const KEY: [u8; 32] = [7; 32];

fn table() -> Definition {
    let text = r#"
        id = "people"
        version = 1
        owner = "o"
        category = "B3"
        title = { vi = "v", en = "e" }
        key = ["id_number"]
        [[field]]
        name = "id_number"
        type = "Code"
        label = { vi = "v", en = "e" }
        personal = true
        mask = "pseudonym"
        [[field]]
        name = "name"
        type = "Text"
        label = { vi = "v", en = "e" }
        personal = true
        mask = { partial = { first = 1, last = 1 } }
        [[field]]
        name = "born"
        type = "Date"
        label = { vi = "v", en = "e" }
        personal = true
        mask = { generalise = "year" }
        [[field]]
        name = "income"
        type = "MoneyVnd"
        label = { vi = "v", en = "e" }
        sensitive = true
        mask = { generalise = "million" }
        [[field]]
        name = "secret"
        type = "Object"
        label = { vi = "v", en = "e" }
        sensitive = true
        [[field]]
        name = "aliases"
        type = "[Text]"
        optional = true
        label = { vi = "v", en = "e" }
        personal = true
        mask = "hide"
        [[field]]
        name = "province"
        type = "Code"
        label = { vi = "v", en = "e" }
    "#;
    Definition::parse(text, "people.toml").expect("valid")
}

fn record(id: &str) -> String {
    format!(
        r#"{{"aliases":["Tý"],"born":"1990-05-17","id_number":"{id}","income":12345678,"name":"Nguyễn Văn An","province":"HN","secret":{{"a":1}}}}"#
    )
}

fn compiled() -> CompiledMask {
    let table = table();
    CompiledMask::compile(&table, &MaskProfile::of_marks(&table)).expect("fits")
}

#[test]
fn each_rule_keeps_what_it_says() {
    let masked = compiled().mask(record("079090001234").as_bytes(), &MaskKey::new(KEY));
    let masked = String::from_utf8(masked.expect("an object")).expect("text");
    let pseudonym = pseudonym("079090001234", &MaskKey::new(KEY));
    let want = format!(
        r#"{{"born":"1990","id_number":"{pseudonym}","income":12000000,"name":"N***n","province":"HN","secret":null}}"#
    );
    assert_eq!(masked, want);
}

#[test]
fn pseudonyms_have_a_fixed_value() {
    // HMAC-SHA256(07 × 32, "dtm pseudonym v1\0079090001234"), first 16 bytes, base32.
    let p = pseudonym("079090001234", &MaskKey::new(KEY));
    assert_eq!(p, "PSN-6DQ6MPQVXPF4RKQMQQBD57BGBA");
    assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
}

// covers: G-3.9
#[test]
fn ten_thousand_identity_numbers_keep_counts_and_joins_and_nothing_in_clear() {
    let mask = compiled();
    let key = MaskKey::new(KEY);
    let id = |n: usize| format!("0790{:08}", n * 7919);
    let masked_id = |raw: &str, key: &MaskKey| {
        let masked = mask.mask(record(raw).as_bytes(), key).expect("an object");
        let value: serde_json::Value = serde_json::from_slice(&masked).expect("JSON");
        let text = String::from_utf8(masked).expect("text");
        (value["id_number"].as_str().expect("text").to_owned(), text)
    };
    // Table A holds 10,000 numbers, 4,000 of them twice; table B every third of them.
    let a: Vec<String> = (0..14_000).map(|n| id(n % 10_000)).collect();
    let b: Vec<String> = (0..10_000).step_by(3).map(id).collect();
    let mut masked_a = Vec::new();
    for raw in &a {
        let (masked, whole) = masked_id(raw, &key);
        assert!(!whole.contains(raw.as_str()) && !whole.contains("Nguyễn"), "{whole}");
        masked_a.push(masked);
    }
    let masked_b: Vec<String> = b.iter().map(|raw| masked_id(raw, &key).0).collect();
    let distinct = |v: &[String]| v.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(&masked_a), distinct(&a));
    let groups = |v: &[String]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        v.iter().for_each(|x| *counts.entry(x.clone()).or_default() += 1);
        let mut sizes: Vec<_> = counts.into_values().collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(groups(&masked_a), groups(&a));
    let join = |a: &[String], b: &[String]| {
        let b: BTreeSet<_> = b.iter().collect();
        a.iter().filter(|x| b.contains(x)).count()
    };
    assert_eq!(join(&masked_a, &masked_b), join(&a, &b));
    let other = MaskKey::new([8; 32]);
    let clash =
        a.iter().take(100).zip(&masked_a).filter(|(raw, m)| masked_id(raw, &other).0 == **m);
    assert_eq!(clash.count(), 0);
}

#[test]
fn masked_records_are_canonical_valid_and_stay_as_they_are() {
    let mask = compiled();
    let mut scratch = Scratch::default();
    let raw = record("079090001234");
    let masked = mask.mask(raw.as_bytes(), &MaskKey::new(KEY)).expect("an object");
    let outcome = mask.schema().check(&masked, &mut scratch);
    let accepted = matches!(outcome, Outcome::Accepted { form: crate::Accepted::Same, .. });
    assert!(accepted, "{outcome:?}");
    assert!(mask.raw_fields(&masked, &mut scratch).is_empty());
    assert_eq!(mask.mask(&masked, &MaskKey::new([9; 32])), Some(masked));
}

#[test]
fn raw_values_in_masked_fields_are_refused_and_named() {
    let mask = compiled();
    let mut scratch = Scratch::default();
    let raw = record("079090001234");
    let found = mask.raw_fields(raw.as_bytes(), &mut scratch);
    let pointers: Vec<_> = found.iter().map(|v| v.pointer.as_str()).collect();
    assert_eq!(pointers, ["/aliases", "/born", "/id_number", "/income", "/name", "/secret"]);
    assert!(found.iter().all(|v| v.found.is_empty() && v.found_bytes > 0));
    let Outcome::Refused(refusal) = mask.schema().check(raw.as_bytes(), &mut scratch) else {
        panic!("a raw record under a masked agreement must be refused");
    };
    assert!(refusal.violations.iter().all(|v| v.rule == Rule::NotMasked));
}

#[test]
fn built_in_marks_hide_every_person() {
    for id in crate::BUILT_IN_IDS {
        let definition = Definition::built_in(id).expect("built in");
        let profile = MaskProfile::of_marks(&definition);
        assert!(!profile.rules().is_empty(), "{id}");
        assert!(CompiledMask::compile(&definition, &profile).is_ok(), "{id}");
    }
}

#[test]
fn a_profile_that_does_not_fit_is_refused() {
    let table = table();
    let refused = |path: &str, rule| {
        let mut profile = MaskProfile::new();
        profile.set(path, rule);
        CompiledMask::compile(&table, &profile).expect_err("does not fit").to_string()
    };
    assert!(refused("nothing", MaskRule::Hide).contains("no field nothing"));
    assert!(refused("income", MaskRule::Pseudonym).contains("does not apply"));
}
