use super::*;
use proptest::prelude::*;

#[test]
fn times_are_brought_to_vietnam_time() {
    let cases = [
        ("2026-01-25T08:30:05+07:00", Some("2026-01-25T08:30:05+07:00")),
        ("2026-01-25T01:30:05Z", Some("2026-01-25T08:30:05+07:00")),
        ("2026-12-31T23:30:00Z", Some("2027-01-01T06:30:00+07:00")),
        ("2024-02-28T20:00:00-05:00", Some("2024-02-29T08:00:00+07:00")),
        ("2026-03-01T01:00:00+09:30", Some("2026-02-28T22:30:00+07:00")),
        ("2026-01-25T08:30:05.120000+07:00", Some("2026-01-25T08:30:05.12+07:00")),
        ("2026-01-25t08:30:05.000z", Some("2026-01-25T15:30:05+07:00")),
        ("2026-01-25T08:30+07:00", None),
        ("2026-01-25T08:30:05", None),
        ("2026-02-29T08:30:05Z", None),
        ("2026-01-25T24:00:00Z", None),
        ("2026-01-25T08:30:05.1234567Z", None),
        ("2026-01-25T08:30:05.Z", None),
        ("9999-12-31T23:00:00Z", None),
        ("2026-01-25 08:30:05Z", None),
    ];
    for (input, want) in cases {
        assert_eq!(to_date_time(input).as_deref(), want, "{input}");
    }
}

#[test]
fn dates_have_three_precisions() {
    for good in ["2026", "2026-01", "2026-01-25", "2024-02-29", "2026-01-25T08:30:05+07:00"] {
        assert!(is_date(good.as_bytes()), "{good}");
    }
    for bad in ["", "0000", "26", "2026-13", "2026-1", "2026-02-29", "2026-01-25T08:30:05Z"] {
        assert!(!is_date(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn dates_of_different_precision_compare_by_the_common_part() {
    assert_eq!(compare_dates("2026-01", "2026-01-25"), Ordering::Equal);
    assert_eq!(compare_dates("2026-01-25", "2026-01-25T08:30:05+07:00"), Ordering::Equal);
    assert_eq!(compare_dates("2026-01-24", "2026-01-25T08:30:05+07:00"), Ordering::Less);
    let (a, b) = ("2026-01-25T08:30:05+07:00", "2026-01-25T08:30:05.5+07:00");
    assert_eq!(compare_dates(a, b), Ordering::Less);
}

#[test]
fn decimals_lose_nothing_but_zeros() {
    let cases = [
        ("12.50", Some("12.5")),
        ("12.00", Some("12")),
        ("-0.0", Some("0")),
        ("-0.10", Some("-0.1")),
        ("007", None),
        ("1e3", None),
        (".5", None),
        ("", None),
        ("+1", None),
    ];
    for (input, want) in cases {
        assert_eq!(to_decimal(input).as_deref(), want, "{input}");
    }
    assert!(to_decimal(&"9".repeat(64)).is_some());
    assert!(to_decimal(&"9".repeat(65)).is_none());
    assert_eq!(compare_decimals("-10", "-9.5"), Ordering::Less);
    assert_eq!(compare_decimals("10", "9.99"), Ordering::Greater);
    assert_eq!(compare_decimals("0.1", "0.09"), Ordering::Greater);
}

#[test]
fn integers_stop_at_two_to_the_53() {
    assert_eq!(canonical_integer(b"9007199254740992"), Some(INTEGER_MAX));
    assert_eq!(canonical_integer(b"-9007199254740992"), Some(-INTEGER_MAX));
    for bad in ["9007199254740993", "-0", "01", "1.0", "", "-", "99999999999999999"] {
        assert_eq!(canonical_integer(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn codes_addresses_digests_and_base64() {
    assert!(is_code(b"1.000894") && is_code(b"H57.101.02-260125-220001"));
    assert!(!is_code("Đ1".as_bytes()) && !is_code(b"a1") && !is_code(b"") && !is_code(b"A B"));
    assert!(is_uri(b"https://dichvucong.gov.vn/tra-cuu?x=1"));
    assert!(!is_uri(b"http://x.vn") && !is_uri(b"https://") && !is_uri(b"https://a b"));
    assert!(is_base64(b"QQ==") && is_base64(b"QUI=") && is_base64(b"QUJD"));
    assert!(!is_base64(b"QR==") && !is_base64(b"QUI") && !is_base64(b"====") && !is_base64(b""));
    assert!(is_sha256(&[b'a'; 64]) && !is_sha256(&[b'A'; 64]) && !is_sha256(&[b'a'; 63]));
}

proptest! {
    #[test]
    fn any_moment_in_any_offset_becomes_canonical_once(
        y in 2u32..9998, mo in 1u32..=12, d in 1u32..=28, h in 0u32..24, mi in 0u32..60,
        s in 0u32..60, oh in 0u32..24, om in 0u32..60, plus: bool,
    ) {
        let sign = if plus { '+' } else { '-' };
        let text = format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}{sign}{oh:02}:{om:02}");
        let canonical = to_date_time(&text).expect("a real moment");
        prop_assert!(is_date_time(canonical.as_bytes()), "{}", canonical);
        prop_assert_eq!(to_date_time(&canonical), Some(canonical.clone()));
    }

    #[test]
    fn days_round_trip(days in -700_000i64..2_900_000) {
        let (y, m, d) = civil(days);
        if y >= 1 {
            prop_assert_eq!(days_from_civil(y as u32, m as u32, d as u32), days);
        }
    }

    #[test]
    fn decimals_are_idempotent(s in "-?[0-9]{1,20}(\\.[0-9]{0,10})?") {
        if let Some(c) = to_decimal(&s) {
            prop_assert!(is_decimal(c.as_bytes()), "{}", c);
            prop_assert_eq!(to_decimal(&c), Some(c.clone()));
        }
    }
}
