use super::*;
use proptest::prelude::*;

const DEFAULT: Reading = Reading { strict_digits: false, short_identifiers: false };
const STRICT: Reading = Reading { strict_digits: true, short_identifiers: false };
const SHORT: Reading = Reading { strict_digits: false, short_identifiers: true };

fn accepts(text: &str, reading: Reading) -> bool {
    DossierCode::parse(text, reading).is_ok()
}

// covers: P-K6
#[test]
fn the_table_of_samples() {
    for good in ["H57.101.02-260125-220001", "H57.101.02-260125-2210000"] {
        assert!(accepts(good, DEFAULT) && accepts(good, STRICT), "{good}");
    }
    for lenient in ["H57.A01.02-260125-220001", "H57.101.B2-260125-220001"] {
        assert!(accepts(lenient, DEFAULT) && !accepts(lenient, STRICT), "{lenient}");
    }
    let refused = [
        "H5A.101.02-260125-220001",
        "H57.1a1.02-260125-220001",
        "H57.1Đ1.02-260125-220001",
        "h57.101.02-260125-220001",
        "H57.101.2-260125-220001",
        "H57.101.02-260132-220001",
        "H57.101.02-260125-22001",
        "H57.101.02-260125-A20001",
        "H57-101-02-260125-220001",
    ];
    for bad in refused {
        assert!(!accepts(bad, DEFAULT) && !accepts(bad, STRICT), "{bad}");
    }
    let no_such_day = DossierCode::parse("H57.101.02-260132-220001", DEFAULT);
    assert_eq!(no_such_day, Err(DossierFault::Day));
}

#[test]
fn short_identifiers_only_when_switched_on() {
    for short in ["H57-260125-220001", "H57.101-260125-220001"] {
        assert!(!accepts(short, DEFAULT) && !accepts(short, STRICT) && accepts(short, SHORT));
    }
}

// covers: P-K4
#[test]
fn the_number_has_at_least_four_digits_and_no_upper_limit() {
    let long = "9".repeat(2000);
    for good in ["0001", "9999", "10000", "1234567", &long] {
        let text = format!("H57.101.02-260125-22{good}");
        let code = DossierCode::parse(&text, DEFAULT).expect("a valid number");
        assert_eq!((code.number(), code.to_string()), (good, text.clone()));
    }
    assert!(!accepts("H57.101.02-260125-22001", DEFAULT));
    let day = Day { year: 2026, month: 1, day: 25 };
    let sequence = DossierSequence::new("H57.101.02", day, "22", 9_998).expect("fits");
    let codes: Vec<_> = sequence.take(3).collect();
    let want = ["9999", "10000", "10001"].map(|n| format!("H57.101.02-260125-22{n}"));
    assert_eq!(codes, want);
    assert!(codes.iter().all(|code| accepts(code, STRICT)));
    let first = DossierSequence::new("H57.101.02", day, "22", 0).and_then(|mut s| s.next());
    assert_eq!(first.as_deref(), Some("H57.101.02-260125-220001"));
    assert!(DossierSequence::new("h57", day, "22", 0).is_none());
    assert!(DossierSequence::new("H57.101.02", day, "2", 0).is_none());
}

#[test]
fn the_day_is_a_real_day() {
    let day = |d: &str| {
        DossierCode::parse(&format!("H57.101.02-{d}-220001"), DEFAULT).map(|c| c.received())
    };
    assert_eq!(day("260229"), Err(DossierFault::Day));
    assert_eq!(day("260230"), Err(DossierFault::Day));
    assert_eq!(day("280229"), Ok(Day { year: 2028, month: 2, day: 29 }));
    assert_eq!(day("261301"), Err(DossierFault::Day));
}

#[test]
fn owner_digits_belong_to_the_owner_of_the_system() {
    assert_eq!(owner_digits("G22.001.00"), Some("22"));
    assert_eq!(owner_digits("g22"), None);
    assert_eq!(owner_digits("GĐ2"), None);
    let code = DossierCode::parse("H57.101.02-260125-220001", DEFAULT).expect("valid");
    assert_eq!(code.owner(), Some("22"));
    assert!(!accepts("H57.101.02-260125-A20001", DEFAULT));
    let registered = DossierGrammars { owners: vec!["22".into()], ..DossierGrammars::default() };
    let other = DossierGrammars { owners: vec!["23".into()], ..DossierGrammars::default() };
    assert!(registered.knows_owner(&code) && !other.knows_owner(&code));
}

#[test]
fn needless_zeros_are_noticed() {
    let code = DossierCode::parse("H57.101.02-260125-2200001", DEFAULT).expect("accepted");
    assert!(!code.has_canonical_number());
    assert_eq!(code.canonical_number(), "0001");
    for good in ["0001", "0000", "10000"] {
        let text = format!("H57.101.02-260125-22{good}");
        assert!(DossierCode::parse(&text, DEFAULT).expect("accepted").has_canonical_number());
    }
}

// covers: P-K9
#[test]
fn the_form_follows_procedure_and_day_of_receipt() {
    let grammars = DossierGrammars {
        centralised_procedures: vec!["1.000894".into()],
        ..DossierGrammars::default()
    };
    let central = Some("1.000894");
    let other = Some("2.000111");
    let new = "H57.101.02-260125-220001";
    assert!(grammars.check(new, central).is_ok());
    assert!(grammars.check(new, other).is_ok());
    // Received before the new form: keeps the older one whenever the update is sent.
    assert!(grammars.check("000.00.00.H29-260120-0001", central).is_ok());
    let after = "000.00.00.H29-260125-0001";
    assert_eq!(grammars.check(after, central), Err(DossierFault::NotInForce));
    assert!(grammars.check(after, other).is_ok());
    assert!(grammars.check(after, None).is_ok());
    let early = "H57.101.02-260124-220001";
    assert_eq!(grammars.check(early, None), Err(DossierFault::NotInForce));
    assert_eq!(grammars.check("000.00.00.H29-260230-0001", None), Err(DossierFault::Day));
    assert_eq!(grammars.check("HS-1", None), Err(DossierFault::Form));
}

// covers: P-K5
#[test]
fn a_million_random_codes_print_as_they_were_read() {
    // A small multiplicative generator: deterministic, no randomness in a pure crate.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for _ in 0..1_000_000 {
        let letter = (b'A' + next(26) as u8) as char;
        let mut any = || alphabet[next(36) as usize] as char;
        let [y1, y2, y3, z1, z2] = [any(), any(), any(), any(), any()];
        let (yy, mm) = (next(100), 1 + next(12));
        let dd = 1 + next(u64::from(days_in_month(2000 + yy as u32, mm as u32)));
        let (xx, aa, size) = (next(100), next(100), 1 + next(30));
        let n = next(1 << size);
        let text =
            format!("{letter}{xx:02}.{y1}{y2}{y3}.{z1}{z2}-{yy:02}{mm:02}{dd:02}-{aa:02}{n:04}");
        let code = DossierCode::parse(&text, DEFAULT).expect("built by the grammar");
        assert_eq!(code.to_string(), text);
        assert_eq!(code.number(), format!("{n:04}"));
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = DossierGrammars::default().check(&text, None);
    }
}

/// The rules that a payment with this code breaks or is reported for.
fn findings(owners: &[&str], code: &str) -> Vec<crate::Rule> {
    let mut definition = crate::Definition::built_in("payment").expect("built in");
    definition.dossier_codes.owners = owners.iter().map(|o| (*o).to_owned()).collect();
    let schema = crate::CompiledSchema::compile(&definition).expect("compiles");
    let record = format!(
        r#"{{"dossier_code":"{code}","procedure_code":"1","revenue_item_identification":{{}},"transaction_code":"G"}}"#
    );
    match schema.check(record.as_bytes(), &mut crate::Scratch::default()) {
        crate::Outcome::Accepted { warnings, .. } => warnings.iter().map(|w| w.rule).collect(),
        crate::Outcome::Refused(refusal) => refusal.violations.iter().map(|v| v.rule).collect(),
    }
}

// covers: P-K7
#[test]
fn a_number_with_needless_zeros_is_accepted_and_reported() {
    let report = [crate::Rule::DossierNumber];
    assert_eq!(findings(&[], "H57.101.02-260125-2200001"), report);
    assert_eq!(findings(&[], "H57.101.02-260125-220001"), []);
    assert_eq!(findings(&[], "H57.101.02-260125-2210000"), []);
}

// covers: P-K3
#[test]
fn owner_digits_without_a_registered_system_are_reported() {
    let registered = owner_digits("G22.001.00").expect("an agency code");
    assert_eq!(registered, "22");
    assert_eq!(findings(&[registered], "H57.101.02-260125-220001"), []);
    let report = [crate::Rule::DossierOwner];
    assert_eq!(findings(&[registered], "H57.101.02-260125-230001"), report);
    assert_eq!(findings(&[registered], "H57.101.02-260125-A20001"), [crate::Rule::DossierCode]);
}
