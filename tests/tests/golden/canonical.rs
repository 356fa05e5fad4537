//! Canonical JSON: what was sent, and the bytes that are hashed, sealed and kept.

use dtm_catalog::{Accepted, CompiledSchema, Definition, Outcome, Scratch};

use crate::file::Golden;

/// A field of every type.
const DEFINITION: &str = r#"
id = "golden"
version = 1
owner = "test"
category = "B3"
title = { vi = "Mẫu", en = "Golden" }
key = ["code"]
"#;

const FIELDS: [(&str, &str, &str); 14] = [
    ("code", "Code", ""),
    ("text", "Text", "optional = true"),
    ("yes", "Bool", "optional = true"),
    ("date", "Date", "optional = true"),
    ("time", "DateTime", "optional = true"),
    ("uri", "Uri", "optional = true"),
    ("money", "MoneyVnd", "optional = true"),
    ("integer", "Integer", "optional = true"),
    ("decimal", "Decimal", "optional = true"),
    ("base64", "Base64", "optional = true"),
    ("sha256", "Sha256", "optional = true"),
    ("object", "Object", "optional = true"),
    ("list", "[Text]", "optional = true"),
    ("end", "Date", "nullable = true"),
];

/// A value in every field, none in its place.
const ALL: &str = concat!(
    r#"{"yes":true,"uri":"https://example.vn/a?b=1","#,
    r#""sha256":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","#,
    r#""list":["b","a"],"base64":"AQI=","object":{"b":{"d":1,"c":[]},"a":"1.50"},"#,
    r#""end":"2026-12-31","code":"A"}"#,
);

/// What was sent, by what it shows. `end` is compulsory and nullable.
const CASES: [(&str, &str); 12] = [
    ("order_and_blanks", " { \"text\" : \"b\" ,\n\"end\":null, \"code\":\"A\" } "),
    ("optional_and_empty", r#"{"code":"A","date":null,"end":"","object":{},"text":""}"#),
    ("compulsory_and_null", r#"{"code":"A","end":null}"#),
    ("blanks_around_a_code", r#"{"code":"  A.1 ","end":"2026"}"#),
    ("text_nfc_and_line_ends", "{\"code\":\"A\",\"end\":null,\"text\":\"e\\u0301\\r\\nx\\ry\\t\"}"),
    ("escapes", r#"{"code":"A","end":null,"text":"\u0041\/\"\\\ud83d\ude00\u2028"}"#),
    (
        "members_by_utf16",
        "{\"code\":\"A\",\"end\":null,\"object\":{\"\u{1f600}\":1,\"\u{fb01}\":2,\"z\":3}}",
    ),
    ("times", r#"{"code":"A","end":"2026-01","time":"2026-01-25T01:30:05.120Z"}"#),
    (
        "time_without_fraction",
        r#"{"code":"A","end":"2026-01-25","time":"2026-01-25T08:30:05.000000+07:00"}"#,
    ),
    (
        "numbers",
        r#"{"code":"A","decimal":"-12.500","end":null,"integer":-0,"money":9007199254740991}"#,
    ),
    ("zero", r#"{"code":"A","decimal":"-0.0","end":null,"integer":-9007199254740991}"#),
    ("all", ALL),
];

fn schema() -> CompiledSchema {
    let field = |&(name, kind, marks): &(&str, &str, &str)| {
        let label = "label = { vi = \"x\", en = \"x\" }";
        format!("\n[[field]]\nname = \"{name}\"\ntype = \"{kind}\"\n{label}\n{marks}\n")
    };
    let fields: String = FIELDS.iter().map(field).collect();
    let definition = Definition::parse(&format!("{DEFINITION}{fields}"), "golden").unwrap();
    CompiledSchema::compile(&definition).unwrap()
}

fn canonical(schema: &CompiledSchema, payload: &[u8]) -> Vec<u8> {
    match schema.check(payload, &mut Scratch::default()) {
        Outcome::Accepted { form, .. } => form.bytes(payload).to_vec(),
        refused => panic!("{refused:?}"),
    }
}

#[test]
fn canonical_forms() {
    let (mut golden, schema) = (Golden::open("canonical-json", "bytes"), schema());
    for (name, sent) in CASES {
        let made = canonical(&schema, sent.as_bytes());
        let kept = golden.bytes(name, made);
        let again = schema.check(&kept, &mut Scratch::default());
        let same = matches!(again, Outcome::Accepted { form: Accepted::Same, .. });
        assert!(same, "{name}: what is canonical stays as it is");
    }
    golden.close();
}

/// The example of docs/formats.md, section 8.
#[test]
fn the_example_of_the_documents() {
    let page = include_str!("../../../docs/formats.md");
    let (_, section) = page.split_once("## 8. Canonical JSON").unwrap();
    let (_, example) = section.split_once("```\n").unwrap();
    let (sent, rest) = example.split_once("─▶\n").unwrap();
    let canonical_there = rest.lines().next().unwrap().trim();
    let definition = Definition::built_in("payment").unwrap();
    let schema = CompiledSchema::compile(&definition).unwrap();
    let made = canonical(&schema, sent.trim().as_bytes());
    assert_eq!(String::from_utf8(made).unwrap(), canonical_there);
}
