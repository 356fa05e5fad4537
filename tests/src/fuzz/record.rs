//! What a sender writes: records, dossier codes; what an operator writes: definitions.

use std::sync::OnceLock;

use dtm_catalog::dossier::{DossierCode, Form, Reading};
use dtm_catalog::{
    Accepted, BUILT_IN_IDS, CompiledSchema, Definition, Outcome, Scratch, VIOLATIONS_MAX,
};

fn schemas() -> &'static [CompiledSchema] {
    static SCHEMAS: OnceLock<Vec<CompiledSchema>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let built_in = |id: &&str| {
            let definition = Definition::built_in(id).expect("a built-in one");
            CompiledSchema::compile(&definition).expect("it compiles")
        };
        BUILT_IN_IDS.iter().map(built_in).collect()
    })
}

/// The first byte chooses a data set. An accepted record's canonical form is canonical, accepted
/// again as it is, and has the same key; it is not much longer than the record.
pub(super) fn record(input: &[u8]) {
    let Some((choice, payload)) = input.split_first() else {
        return;
    };
    let schema = &schemas()[usize::from(*choice) % schemas().len()];
    check(schema, payload);
}

fn check(schema: &CompiledSchema, payload: &[u8]) {
    let mut scratch = Scratch::default();
    match schema.check(payload, &mut scratch) {
        Outcome::Accepted { form, .. } => {
            let canonical = form.bytes(payload).to_vec();
            assert!(canonical.len() <= 4 * payload.len() + 64, "canonical form is bounded");
            let again = schema.check(&canonical, &mut scratch);
            let is_same = matches!(again, Outcome::Accepted { form: Accepted::Same, .. });
            assert!(is_same, "the canonical form is not its own: {again:?}");
            let key = schema.record_key(&canonical, &mut scratch);
            assert_eq!(key, schema.record_key(&canonical, &mut Scratch::default()));
        }
        Outcome::Refused(refusal) => {
            assert!((1..=VIOLATIONS_MAX).contains(&refusal.violations.len()));
        }
    }
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let progress = concat!(
        r#"{"dossier_code":"H57.101.02-260125-220001","dossier_state":"in_processing","#,
        r#""processed_at":"2026-01-25T08:30:05+07:00","processing_content":"Thẩm định","#,
        r#""processing_end_date":null,"processing_start_date":"2026-01-25","#,
        r#""processor":{"full_name":"Đặng Thị Hường","officer_code":"CB0012","#,
        r#""position":"Chuyên viên"},"processor_agency":{"agency_code":"H57.101.02","#,
        r#""agency_name":"Sở Khoa học và Công nghệ"}}"#
    );
    let spaced = progress.replace(':', ": ").replace("+07: 00", "+07:00");
    let texts = [progress, &spaced, "{}", "[]", r#"{"a":1e999,"a":{"b":[[[[]]]]}}"#];
    let choices = 0..BUILT_IN_IDS.len() as u8;
    choices.flat_map(|choice| texts.map(|text| [&[choice][..], text.as_bytes()].concat())).collect()
}

/// A code that is read prints as it was read, and its canonical number is canonical.
pub(super) fn dossier_code(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for (strict_digits, short_identifiers) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let reading = Reading { strict_digits, short_identifiers };
        for form in [Form::Central, Form::Reversed] {
            let Ok(code) = DossierCode::parse_form(text, form, reading) else {
                continue;
            };
            assert_eq!(code.to_string(), text);
            let agency_and_date = text.rsplit_once('-').expect("two hyphens").0;
            let owner = code.owner().unwrap_or_default();
            let canonical = format!("{agency_and_date}-{owner}{}", code.canonical_number());
            let again = DossierCode::parse_form(&canonical, form, reading);
            let again = again.expect("a canonical number stays a number");
            assert!(again.has_canonical_number(), "{text}");
            assert_eq!((again.agency(), again.received()), (code.agency(), code.received()));
        }
    }
}

pub(super) fn dossier_seeds() -> Vec<Vec<u8>> {
    let codes = [
        "H57.101.02-260125-220001",
        "000.00.01.H57-260125-0001",
        "H57-240229-2200000000001",
        "H57.101-260230-229999",
    ];
    codes.map(|code| code.as_bytes().to_vec()).to_vec()
}

/// A definition that is read compiles or says why not, and what compiles checks any record.
pub(super) fn definition(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(definition) = Definition::parse(text, "fuzz") else {
        return;
    };
    let Ok(schema) = CompiledSchema::compile(&definition) else {
        return;
    };
    for payload in [&b"{}"[..], b"{\"n\":1}", b"[", b"{\"n\":\"x\",\"m\":null}"] {
        check(&schema, payload);
    }
}

pub(super) fn definition_seeds() -> Vec<Vec<u8>> {
    let small = r#"id = "numbers"
version = 1
owner = "test"
category = "B3"
title = { vi = "Số", en = "Numbers" }
key = ["n"]

[[field]]
name = "n"
type = "Integer"
label = { vi = "Số", en = "Number" }

[[field]]
name = "m"
type = "[Text]"
label = { vi = "Tên", en = "Name" }
optional = true
personal = true
mask = "hide"
"#;
    let built_in = include_bytes!("../../../proto/catalog/definitions/payment.toml");
    vec![small.as_bytes().to_vec(), built_in.to_vec()]
}
