//! The kept corpus and seeded mutations of it through every fuzz target.
//!
//! `FUZZ_SECONDS` (default 2) a target; `FUZZ_SEED` (default 1), printed, so that a run can be
//! repeated.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use dtm_tests::fuzz::TARGETS;
use dtm_tests::fuzz::drive::drive;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
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

targets! { record dossier_code definition bundle header snapshot log session }
