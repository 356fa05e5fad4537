//! The kept corpus and seeded mutations of it through every fuzz target.
//!
//! `FUZZ_SECONDS` (default 2) a target; `FUZZ_SEED` (default 1), printed, so that a run can be
//! repeated.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use dtm_tests::fuzz::TARGETS;
use dtm_tests::fuzz::drive::drive;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = Path::new(CORPUS).join(name);
    let (seed, seconds) = (number("FUZZ_SEED", 1), number("FUZZ_SECONDS", 2));
    let driven = drive(target, &corpus, seed, Duration::from_secs(seconds));
    println!("{name}: seed {seed}, {driven:?}");
    assert!(driven.mutated > 20 * seconds, "{driven:?}: too slow to find anything");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_its_test() {
            let named = [$(stringify!($name)),*];
            assert!(TARGETS.iter().all(|target| named.contains(&target.name)));
            assert_eq!(named.len(), TARGETS.len());
        }
    };
}

// A folder that is renamed or emptied would be left out without a word.
#[test]
fn every_kept_corpus_is_of_a_target() {
    let mut count = 0;
    for entry in std::fs::read_dir(CORPUS).unwrap() {
        let folder = entry.unwrap();
        let name = folder.file_name();
        assert!(TARGETS.iter().any(|target| *target.name == *name), "{name:?} is of no target");
        assert!(std::fs::read_dir(folder.path()).unwrap().count() > 0, "{name:?} is empty");
        count += 1;
    }
    assert!(count >= 6, "{count} corpora are left");
}

targets! { record dossier_code definition bundle header snapshot log session }
