//! Checking records of the built-in data sets: what is accepted, what is refused and how.

use crate::definition::{CodeEntry, Label};
use crate::*;

const PROGRESS: &str = r#"{"dossier_code":"H57.101.02-260125-220001","dossier_state":"in_processing","processed_at":"2026-01-25T08:30:05+07:00","processing_content":"Thẩm định \"lần 1\"\n","processing_end_date":null,"processing_start_date":"2026-01-25","processor":{"full_name":"Đặng Thị Hường"},"processor_agency":{"agency_code":"H57.101.02","agency_name":"Sở Khoa học và Công nghệ"}}"#;

const SYNC: &str = r#"{"dossier_code":"H57.101.02-260125-220001","dossier_info":{"số tờ":3},"dossier_owner":{"address":{"commune_code":"00001","line":"Số 1"},"full_name":"Nguyễn Văn An","id_number":"079090001234","party_kind":"citizen"},"due_date":"2026-02-10","fee_info":[{"amount":50000,"fee_code":"LP.01","paid":true}],"payment_channel":null,"procedure_code":"1.000894","procedure_name":"Đăng ký kết hôn","processing_unit":{"agency_code":"H57.101.02","agency_name":"Sở"},"received_date":"2026-01-25","receiving_unit":{"agency_code":"H57.101.02","agency_name":"Sở"},"result_returned_date":null,"submission_method":"online","submitter":{"full_name":"Nguyễn Văn An","is_authorised_person":false,"party_kind":"citizen"},"supplement_info":[],"valid_result":null}"#;

const PETITION: &str = r#"{"answer_content":null,"answer_date":null,"answering_officer":null,"details":{},"petition_code":"PAKN-1","procedure_code":null,"receiving_agency":{"agency_code":"H57","agency_name":"Ủy ban"},"subject":"Chậm trả kết quả"}"#;

const PAYMENT: &str = r#"{"dossier_code":"H57.101.02-260125-220001","procedure_code":"1.000894","revenue_item_identification":{"code":"2801"},"transaction_code":"GD.0001"}"#;

fn schema(id: &str) -> CompiledSchema {
    CompiledSchema::compile(&Definition::built_in(id).expect("built in")).expect("compiles")
}

fn check(id: &str, payload: &str) -> Outcome {
    schema(id).check(payload.as_bytes(), &mut Scratch::default())
}

fn refusal(id: &str, payload: &str) -> Refusal {
    match check(id, payload) {
        Outcome::Refused(refusal) => refusal,
        accepted => panic!("must be refused: {payload} {accepted:?}"),
    }
}

/// Pointer and rule of the only violation.
fn only(id: &str, payload: &str) -> (String, Rule) {
    let refusal = refusal(id, payload);
    assert_eq!(refusal.violations.len(), 1, "{:?}", refusal.violations);
    (refusal.violations[0].pointer.clone(), refusal.violations[0].rule)
}

fn warnings(id: &str, payload: &str) -> Vec<(String, Rule)> {
    match check(id, payload) {
        Outcome::Accepted { warnings, .. } => {
            warnings.into_iter().map(|w| (w.pointer, w.rule)).collect()
        }
        refused => panic!("{refused:?}"),
    }
}

fn samples() -> [(&'static str, &'static str); 4] {
    [
        ("dossier_progress", PROGRESS),
        ("dossier_sync", SYNC),
        ("petition_sync", PETITION),
        ("payment", PAYMENT),
    ]
}

#[test]
fn canonical_samples_are_accepted_as_they_are() {
    for (id, sample) in samples() {
        let want = Outcome::Accepted { form: Accepted::Same, warnings: Vec::new() };
        assert_eq!(check(id, sample), want, "{id}");
        let mut slots = Vec::new();
        assert!(crate::fast::is_canonical_and_valid(&schema(id), sample, &mut slots), "{id}");
    }
}

#[test]
fn every_compulsory_field_left_out_is_refused_and_named() {
    for (id, sample) in samples() {
        let definition = Definition::built_in(id).expect("built in");
        for field in &definition.fields {
            let mut value: serde_json::Value = serde_json::from_str(sample).expect("JSON");
            value.as_object_mut().expect("object").remove(&field.name);
            let pointer = format!("/{}", field.name);
            assert_eq!(only(id, &value.to_string()), (pointer, Rule::Missing), "{id}");
        }
    }
}

// covers: A1-3.4.2
#[test]
fn every_field_of_the_wrong_type_is_refused_with_field_and_expected_type() {
    for (id, sample) in samples() {
        let definition = Definition::built_in(id).expect("built in");
        for field in &definition.fields {
            for wrong in [serde_json::json!(true), serde_json::json!(["x"]), serde_json::json!(1.5)]
            {
                let mut value: serde_json::Value = serde_json::from_str(sample).expect("JSON");
                value[&field.name] = wrong;
                let refusal = refusal(id, &value.to_string());
                let first = &refusal.violations[0];
                assert!(first.pointer.starts_with(&format!("/{}", field.name)), "{first:?}");
                assert_eq!(first.rule, Rule::WrongType, "{first:?}");
                assert!(!first.expected.is_empty() && first.byte_offset.is_some(), "{first:?}");
            }
        }
    }
}

// covers: A1-3.4.1
#[test]
fn what_has_not_the_right_format_is_refused_with_the_place() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!(r#"{{"a":{}}}"#, "1".repeat(10_000));
    let cases = [
        ("", Rule::NotJson, 0),
        ("{\"a\":1", Rule::NotJson, 6),
        ("{\"a\" 1}", Rule::NotJson, 5),
        ("dossier;code", Rule::NotJson, 0),
        (r#"{"a":1,"a":2}"#, Rule::DuplicateKey, 11),
        (&deep, Rule::TooDeep, 64),
        (&long, Rule::NumberTooLong, 5),
    ];
    for (payload, rule, offset) in cases {
        let refusal = refusal("payment", payload);
        assert_eq!(refusal.reason, Reason::Malformed);
        let found = (refusal.violations[0].rule, refusal.violations[0].byte_offset);
        assert_eq!(found, (rule, Some(offset)));
        assert!(refusal.violations[0].found.chars().count() <= FOUND_CHARS_MAX);
    }
    let latin1 = schema("payment").check(b"{\"a\":\"\xd0\"}", &mut Scratch::default());
    let Outcome::Refused(refusal) = latin1 else { panic!("not UTF-8") };
    assert_eq!(refusal.violations[0].rule, Rule::NotUtf8);
    assert_eq!(refusal.violations[0].byte_offset, Some(6));
    assert_eq!(only("payment", "[]"), (String::new(), Rule::WrongType));
    let time = PROGRESS.replace("08:30:05+07:00", "08:30+07:00");
    assert_eq!(only("dossier_progress", &time), ("/processed_at".into(), Rule::DateTime));
}

// covers: A1-3.4.3
#[test]
fn all_violations_are_listed_not_only_the_first() {
    let broken = r#"{"dossier_code":"H57.101.02-260230-220001","extra":1,"procedure_code":"a b","revenue_item_identification":{"amount":1.5,"n":9007199254740993,"t":"\u0000"}}"#;
    let refusal = refusal("payment", broken);
    let found: Vec<_> = refusal.violations.iter().map(|v| (v.pointer.as_str(), v.rule)).collect();
    let want = [
        ("/dossier_code", Rule::DossierDay),
        ("/extra", Rule::UnknownMember),
        ("/procedure_code", Rule::Code),
        ("/revenue_item_identification/amount", Rule::NotAnInteger),
        ("/revenue_item_identification/n", Rule::IntegerTooLarge),
        ("/revenue_item_identification/t", Rule::ForbiddenCharacter),
        ("/transaction_code", Rule::Missing),
    ];
    assert_eq!(found, want);
    assert_eq!(refusal.reason, Reason::Invalid);
    let members: Vec<String> = (0..100).map(|n| format!("\"x{n}\":1")).collect();
    let many = self::refusal("payment", &format!("{{{}}}", members.join(",")));
    assert_eq!((many.violations.len(), many.more), (VIOLATIONS_MAX, 40));
}

#[test]
fn each_kind_of_business_rule_has_a_passing_and_a_failing_sample() {
    let sync = |from: &str, to: &str| SYNC.replace(from, to);
    // Range.
    assert_eq!(warnings("dossier_sync", &sync("50000", "0")), []);
    assert_eq!(
        only("dossier_sync", &sync("50000", "-1")),
        ("/fee_info/0/amount".into(), Rule::Range)
    );
    // Cross-field and dates.
    assert_eq!(warnings("dossier_sync", &sync("2026-02-10", "2026-01-25")), []);
    assert_eq!(
        only("dossier_sync", &sync("2026-02-10", "2026-01-24")),
        ("/due_date".into(), Rule::NotBefore)
    );
    assert_eq!(
        only("dossier_sync", &sync("2026-02-10", "2026-02-30")),
        ("/due_date".into(), Rule::Date)
    );
    let answered = PETITION.replace(r#""answer_content":null"#, r#""answer_content":"Đã xử lý""#);
    let refusal = refusal("petition_sync", &answered);
    let rules: Vec<_> = refusal.violations.iter().map(|v| (v.pointer.as_str(), v.rule)).collect();
    let together = Rule::RequiredTogether;
    assert_eq!(rules, [("/answer_date", together), ("/answering_officer", together)]);
    let whole = answered
        .replace(r#""answer_date":null"#, r#""answer_date":"2026-03-01""#)
        .replace(r#""answering_officer":null"#, r#""answering_officer":{"full_name":"A"}"#);
    assert_eq!(warnings("petition_sync", &whole), []);
    // The district level exists until 30/06/2025 only.
    let district =
        sync(r#""commune_code":"00001""#, r#""commune_code":"00001","district_code":"001""#);
    let abolished = ("/dossier_owner/address/district_code".into(), Rule::Abolished);
    assert_eq!(only("dossier_sync", &district), abolished);
    let before = district
        .replace("H57.101.02-260125-220001", "000.00.00.H29-250630-0001")
        .replace(r#""received_date":"2026-01-25""#, r#""received_date":"2025-06-30""#);
    assert_eq!(warnings("dossier_sync", &before), []);
    // Code list.
    assert_eq!(warnings("dossier_sync", &sync(r#""online""#, r#""direct""#)), []);
    assert_eq!(
        only("dossier_sync", &sync(r#""online""#, r#""fax""#)),
        ("/submission_method".into(), Rule::CodeList)
    );
    // Length.
    let long = sync("Đăng ký kết hôn", &"ạ".repeat(2001));
    assert_eq!(only("dossier_sync", &long), ("/procedure_name".into(), Rule::Length));
    assert_eq!(warnings("dossier_sync", &sync("Đăng ký kết hôn", &"ạ".repeat(2000))), []);
}

#[test]
fn all_ten_states_are_accepted_and_an_eleventh_waits_until_the_list_holds_it() {
    let definition = Definition::built_in("dossier_progress").expect("built in");
    let states = definition.code_lists["dossier_state"].clone();
    assert_eq!(states.codes.len(), 10);
    for state in &states.codes {
        let record = PROGRESS.replace("in_processing", &state.code);
        assert_eq!(warnings("dossier_progress", &record), []);
    }
    let eleventh = PROGRESS.replace("in_processing", "transferred");
    let refusal = refusal("dossier_progress", &eleventh);
    assert_eq!(refusal.reason, Reason::UnknownState);
    assert_eq!(refusal.violations[0].rule, Rule::UnknownState);
    let mut extended = states;
    extended.codes.push(CodeEntry {
        code: "transferred".into(),
        label: Label { vi: "Đã chuyển".into(), en: "Transferred".into() },
        wire: Some("11".into()),
        next: Vec::new(),
    });
    let extended = CompiledSchema::compile(&definition.with_code_list(extended)).expect("compiles");
    let mut scratch = Scratch::default();
    let outcome = extended.check(eleventh.as_bytes(), &mut scratch);
    assert!(matches!(outcome, Outcome::Accepted { form: Accepted::Same, .. }));
    // The number code of the wire is stored as the state's identifier.
    for wire in ["\"11\"", "11"] {
        let numbered = PROGRESS.replace("\"in_processing\"", wire);
        let Outcome::Accepted { form, .. } = extended.check(numbered.as_bytes(), &mut scratch)
        else {
            panic!("a wire code is accepted");
        };
        assert_eq!(form.bytes(b""), eleventh.as_bytes());
    }
    // With something else wrong it is an ordinary refusal.
    let worse = eleventh.replace("\"2026-01-25\"", "\"soon\"");
    assert_eq!(self::refusal("dossier_progress", &worse).reason, Reason::Invalid);
}

#[test]
fn the_day_in_the_code_is_real_and_its_difference_is_reported_not_refused() {
    let with = |day: &str| SYNC.replace("H57.101.02-260125", &format!("H57.101.02-{day}"));
    let pointer = || "/dossier_code".to_owned();
    assert_eq!(only("dossier_sync", &with("260229")), (pointer(), Rule::DossierDay));
    let mismatch = vec![("/received_date".to_owned(), Rule::DossierDateMismatch)];
    assert_eq!(warnings("dossier_sync", &with("280229")), mismatch);
    assert_eq!(warnings("dossier_sync", &with("260126")), mismatch);
    assert_eq!(warnings("dossier_sync", &with("260125")), []);
    let zeros = SYNC.replace("220001", "2200001");
    assert_eq!(warnings("dossier_sync", &zeros), [(pointer(), Rule::DossierNumber)]);
}

#[test]
fn a_centralised_procedure_takes_only_its_form() {
    let mut definition = Definition::built_in("payment").expect("built in");
    definition.dossier_codes.centralised_procedures.push("1.000894".into());
    let schema = CompiledSchema::compile(&definition).expect("compiles");
    let accepts = |code: &str| {
        let record = PAYMENT.replace("H57.101.02-260125-220001", code);
        matches!(schema.check(record.as_bytes(), &mut Scratch::default()), Outcome::Accepted { .. })
    };
    assert!(accepts("H57.101.02-260125-220001"));
    assert!(accepts("000.00.00.H29-260120-0001"));
    assert!(!accepts("000.00.00.H29-260310-0001"));
}

#[test]
fn what_a_sender_writes_is_brought_to_the_canonical_form() {
    let sent = r#" { "transaction_code" : " GD.0001 ", "procedure_code":"1.000894",
        "revenue_item_identification":{"b":-0,"a":"e\u0301\r\nx","\ufb33":1,"\ud83d\ude00":2},
        "dossier_code":"H57.101.02-260125-2\u0032\u0030001" } "#;
    let want = "{\"dossier_code\":\"H57.101.02-260125-220001\",\"procedure_code\":\"1.000894\",\"revenue_item_identification\":{\"a\":\"é\\nx\",\"b\":0,\"\u{1f600}\":2,\"\u{5d3}\u{5bc}\":1},\"transaction_code\":\"GD.0001\"}";
    let Outcome::Accepted { form, .. } = check("payment", sent) else { panic!("accepted") };
    // U+FB33 is not NFC: it becomes two characters, which then sort before the pair.
    let got = String::from_utf8(form.bytes(b"").to_vec()).expect("text");
    let sorted = want
        .replace("\"\u{1f600}\":2,\"\u{5d3}\u{5bc}\":1", "\"\u{5d3}\u{5bc}\":1,\"\u{1f600}\":2");
    assert!(got == want || got == sorted, "{got}");
    assert_eq!(
        check("payment", &got),
        Outcome::Accepted { form: Accepted::Same, warnings: vec![] }
    );
}

#[test]
fn null_and_empty_follow_optional_and_nullable() {
    let with = |from: &str, to: &str| {
        let Outcome::Accepted { form, .. } = check("dossier_progress", &PROGRESS.replace(from, to))
        else {
            panic!("{to}")
        };
        String::from_utf8(form.bytes(PROGRESS.as_bytes()).to_vec()).expect("text")
    };
    let name = r#"{"full_name":"Đặng Thị Hường"}"#;
    for more in [r#""position":null"#, r#""position":"""#, r#""officer_code":null"#] {
        let sent = format!(r#"{{"full_name":"Đặng Thị Hường",{more}}}"#);
        assert_eq!(with(name, &sent), PROGRESS);
    }
    assert_eq!(with(r#""processing_end_date":null"#, r#""processing_end_date":"""#), PROGRESS);
    let empty = PROGRESS.replace(r#""2026-01-25""#, r#""""#);
    assert_eq!(
        only("dossier_progress", &empty),
        ("/processing_start_date".into(), Rule::NullNotAllowed)
    );
    // Optional objects that hold nothing disappear, inside out.
    let sent = SYNC.replace(r#""id_number""#, r#""contact":{"email":null,"phone":""},"id_number""#);
    let Outcome::Accepted { form, .. } = check("dossier_sync", &sent) else { panic!("accepted") };
    assert_eq!(form.bytes(b""), SYNC.as_bytes());
}

#[test]
fn attachments_need_a_place_or_a_content() {
    let text = r#"
        id = "files"
        version = 1
        owner = "o"
        category = "A1"
        title = { vi = "v", en = "e" }
        [[field]]
        name = "file"
        type = "Attachment"
        label = { vi = "v", en = "e" }
    "#;
    let schema =
        CompiledSchema::compile(&Definition::parse(text, "f").expect("valid")).expect("fits");
    let file = |more: &str| {
        let sha = "a".repeat(64);
        let head = r#""file_name":"a.pdf","media_type":"application/pdf""#;
        let json = format!(r#"{{"file":{{{more}{head},"sha256":"{sha}","size_bytes":1}}}}"#);
        schema.check(json.as_bytes(), &mut Scratch::default())
    };
    let same = Outcome::Accepted { form: Accepted::Same, warnings: vec![] };
    assert_eq!(file(r#""content_base64":"QQ==","#), same);
    let Outcome::Refused(refusal) = file("") else { panic!("refused") };
    assert_eq!(refusal.violations[0].rule, Rule::AnyOf);
    assert_eq!(refusal.violations[0].pointer, "/file");
    let Outcome::Refused(refusal) = file(r#""content_base64":"QQ","#) else { panic!("refused") };
    assert_eq!(refusal.violations[0].rule, Rule::Base64);
}

#[test]
fn record_keys_tell_records_apart() {
    let schema = schema("dossier_progress");
    let mut scratch = Scratch::default();
    let mut key = |record: &str| schema.record_key(record.as_bytes(), &mut scratch);
    let first = key(PROGRESS).expect("a key");
    assert_eq!(Some(&first), key(&PROGRESS.replace("lần 1", "lần 2")).as_ref());
    assert_ne!(Some(first), key(&PROGRESS.replace(":05+07", ":06+07")));
    assert_eq!(key("{}"), None);
}
