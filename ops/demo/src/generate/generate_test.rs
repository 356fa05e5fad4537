//! What the generator makes, held against the data contracts.

use std::collections::{BTreeMap, BTreeSet};

use dtm_catalog::dossier::{DossierCode, Reading};
use dtm_catalog::{Accepted, CompiledSchema, Outcome, Scratch};
use jiff::civil::date;

use super::*;
use crate::roster;

fn schema(dataset: Dataset) -> CompiledSchema {
    let definition = Definition::built_in(dataset.id()).expect("it is built in");
    CompiledSchema::compile(&definition).expect("it compiles")
}

fn generators(broken_permille: u32) -> impl Iterator<Item = Generator> {
    let today = date(2026, 11, 21);
    roster::all(today).into_iter().enumerate().map(move |(seed, plan)| {
        Generator::new(Arc::new(plan), seed as u64, today, broken_permille)
    })
}

// A record that is canonical as it comes has the digest of what is stored.
#[test]
fn every_valid_record_is_accepted_as_it_is_and_without_a_report() {
    let mut ids = BTreeSet::new();
    let schemas = Dataset::SHARES.map(|(dataset, _)| (dataset, schema(dataset)));
    let mut scratch = Scratch::default();
    for mut generator in generators(0) {
        for (dataset, schema) in schemas.iter().cycle().take(400) {
            let made = generator.next(*dataset);
            let want = Outcome::Accepted { form: Accepted::Same, warnings: Vec::new() };
            let shown = String::from_utf8_lossy(&made.payload);
            assert_eq!(schema.check(&made.payload, &mut scratch), want, "{shown}");
            assert_eq!(made.breaks, None);
            assert!(ids.insert(made.message_id), "message ids are unique");
        }
    }
}

#[test]
fn every_broken_record_is_refused_by_the_rule_it_breaks() {
    let mut seen: BTreeMap<&str, BTreeSet<Rule>> = BTreeMap::new();
    let schemas = Dataset::SHARES.map(|(dataset, _)| (dataset, schema(dataset)));
    let mut scratch = Scratch::default();
    for mut generator in generators(1_000) {
        for (dataset, schema) in schemas.iter().cycle().take(120) {
            let made = generator.next(*dataset);
            let rule = made.breaks.expect("all are broken");
            match schema.check(&made.payload, &mut scratch) {
                Outcome::Refused(refusal) => {
                    assert_eq!(refusal.violations[0].rule, rule, "{:?}", refusal.violations);
                }
                accepted => panic!("{rule:?} was accepted: {accepted:?}"),
            }
            seen.entry(dataset.id()).or_default().insert(rule);
        }
    }
    for (dataset, _) in Dataset::SHARES {
        assert_eq!(seen[dataset.id()].len(), broken::count(dataset), "every way was taken");
    }
}

#[test]
fn dossier_codes_are_unique_and_dated_from_the_first_day_on() {
    let mut codes = BTreeSet::new();
    for mut generator in generators(0) {
        for _ in 0..200 {
            let made = generator.next(Dataset::Dossier);
            let value: Value = serde_json::from_slice(&made.payload).expect("JSON");
            let code = value["dossier_code"].as_str().expect("a code").to_owned();
            let parsed = DossierCode::parse(&code, Reading::default()).expect("of the form");
            let received = parsed.received().to_string();
            assert!(("2026-01-25"..="2026-11-21").contains(&received.as_str()), "{code}");
            assert!(codes.insert(code), "twice");
        }
    }
}

#[test]
fn the_share_of_broken_records_is_small() {
    let mut generator = generators(10).next().expect("a source");
    let broken = (0..20_000).filter(|_| generator.next(Dataset::Payment).breaks.is_some()).count();
    assert!((100..300).contains(&broken), "{broken}");
}
