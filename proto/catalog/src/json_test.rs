use super::*;

fn fault(payload: &[u8]) -> (Rule, usize) {
    let text = std::str::from_utf8(payload).expect("UTF-8");
    let fault = read(text).expect_err("must be refused");
    (fault.rule, fault.offset)
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let cases: &[(&[u8], Rule, usize)] = &[
        (b"", Rule::NotJson, 0),
        (b"{\"a\":1,}", Rule::NotJson, 7),
        (b"{\"a\":01}", Rule::NotJson, 5),
        (b"{\"a\":1} x", Rule::NotJson, 8),
        (b"{\"a\":\"\x01\"}", Rule::NotJson, 6),
        (b"{\"a\":\"\\x\"}", Rule::NotJson, 7),
        (b"{\"a\":\"abc", Rule::NotJson, 9),
        (b"{\"a\":tru}", Rule::NotJson, 5),
        (b"{\"a\":.5}", Rule::NotJson, 5),
        (b"[1,2", Rule::NotJson, 4),
        (b"{\"a\":1,\"b\":2,\"a\":3}", Rule::DuplicateKey, 17),
        (b"{\"a\":1,\"\\u0061\":3}", Rule::DuplicateKey, 16),
    ];
    for (payload, rule, offset) in cases {
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(fault(payload), (*rule, *offset), "{shown}");
    }
}

#[test]
fn nesting_of_ten_thousand_and_numbers_of_ten_thousand_digits() {
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    assert_eq!(fault(&deep), (Rule::TooDeep, 64));
    let at_the_limit = [vec![b'['; 64], vec![b']'; 64]].concat();
    assert!(read(std::str::from_utf8(&at_the_limit).expect("ASCII")).is_ok());
    let long = format!("[{}]", "9".repeat(10_000));
    assert_eq!(fault(long.as_bytes()), (Rule::NumberTooLong, 1));
    assert!(read(&format!("[{}]", "9".repeat(64))).is_ok());
}

#[test]
fn the_number_of_values_is_bounded() {
    let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
    assert_eq!(fault(many.as_bytes()).0, Rule::TooManyValues);
}

#[test]
fn duplicates_are_named_by_pointer() {
    let fault = read(r#"{"a":[{"x/y":1,"x/y":2}]}"#).expect_err("duplicate");
    assert_eq!(fault.pointer, "/a/0/x~1y");
}

#[test]
fn members_sort_by_utf16_code_units() {
    // U+1F600 is D83D DE00 in UTF-16 and comes before U+FB33; in UTF-8 it comes after.
    assert!(canonical_order("\u{1f600}", "\u{fb33}").is_lt());
    assert!("\u{1f600}" > "\u{fb33}");
}

#[test]
fn surrogates_pair_or_are_refused() {
    let text = |text: &str| match read(text).expect("JSON").value {
        Value::Text(text) => Some(text.into_owned()),
        _ => None,
    };
    assert_eq!(text(r#""\ud83d\ude00""#).as_deref(), Some("\u{1f600}"));
    assert_eq!(text(r#""\ud83d""#), None);
    assert_eq!(text(r#""\ud83d\u0041""#), None);
    assert_eq!(text(r#""\ude00""#), None);
    assert_eq!(text(r#""\u0000""#), None);
    assert_eq!(text(r#""\ufffe""#), None);
    assert_eq!(text("\"a\\r\\nb\"").as_deref(), Some("a\nb"));
}
