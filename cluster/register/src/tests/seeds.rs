//! The register from seeds: nothing breaks, and what is broken on purpose is noticed.
//!
//! One seed again: `DTM_REGISTER_SEED=17 cargo test --release -p dtm-register one_seed`; more of
//! them: `DTM_REGISTER_SEEDS=20000 cargo test --release -p dtm-register nothing_breaks`.

use super::oracle::Broken;
use super::world::{Bug, Stats, World};

const SEEDS: u64 = 300;

#[test]
fn nothing_breaks_in_any_seed() {
    let seeds = std::env::var("DTM_REGISTER_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut all = Stats::default();
    for seed in 0..seeds {
        let (stats, violation) = World::new(seed, Bug::None).run();
        assert!(violation.is_none(), "seed {seed}: {violation:?} {stats:?}");
        all.events += stats.events;
        all.decisions += stats.decisions;
        all.replaced += stats.replaced;
        all.intents += stats.intents;
        all.withdrawn += stats.withdrawn;
        all.lost_disks += stats.lost_disks;
        all.crashes += stats.crashes;
        all.unknown += stats.unknown;
        all.looks_held += stats.looks_held;
        all.clear += stats.clear;
    }
    println!("{seeds} seeds: {all:?}");
    let often = [all.decisions, all.replaced, all.intents, all.withdrawn, all.lost_disks];
    for count in [&often[..], &[all.crashes, all.unknown, all.clear]].concat() {
        assert!(count > seeds / 4, "hardly anything happened: {all:?}");
    }
    assert!(all.looks_held > all.events / 10, "hardly anybody could acknowledge: {all:?}");
}

#[test]
fn a_seed_is_the_same_world_again() {
    let run = |seed| format!("{:?}", World::new(seed, Bug::None).run());
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("DTM_REGISTER_SEED") else { return };
    let (stats, violation) = World::new(seed.parse().unwrap(), Bug::None).run();
    println!("seed {seed}: {stats:?} {violation:?}");
    assert!(violation.is_none());
}

/// Within so many seeds the bug shows as one of these.
fn caught(bug: Bug, as_one_of: &[Broken], within: u64) {
    let found = (0..within).find_map(|seed| {
        let (_, violation) = World::new(seed, bug).run();
        let violation = violation.filter(|violation| as_one_of.contains(&violation.broken))?;
        Some((seed, violation))
    });
    let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not noticed"));
    println!("{bug:?}: seed {seed}: {:?}: {}", violation.broken, violation.text);
}

#[test]
fn an_acceptance_that_is_answered_before_it_is_on_disk_is_noticed() {
    caught(Bug::AnswersBeforeTheDisk, &[Broken::Agreement, Broken::Lost], 100);
}

#[test]
fn a_replacement_by_a_majority_of_the_new_list_only_is_noticed() {
    caught(Bug::NewListOnly, &[Broken::Agreement, Broken::Lost], 2_000);
}

#[test]
fn a_lost_file_that_comes_back_under_its_old_id_is_noticed() {
    caught(Bug::OldIdAfterLoss, &[Broken::Agreement, Broken::Lost], 100);
}

#[test]
fn a_promotion_that_does_not_wait_for_the_lease_is_noticed() {
    caught(Bug::NoPromotionWait, &[Broken::TwoPrimaries], 100);
}

#[test]
fn a_lease_that_is_counted_from_the_answer_is_noticed() {
    caught(Bug::LeaseFromTheAnswer, &[Broken::TwoPrimaries], 1_000);
}

#[test]
fn following_what_is_not_known_to_be_chosen_is_noticed() {
    caught(Bug::FollowsUndecided, &[Broken::Agreement, Broken::Lost], 1_000);
}

#[test]
fn proposer_ids_that_are_used_again_are_noticed() {
    caught(Bug::ReusesProposerIds, &[Broken::Agreement, Broken::Lost], 1_000);
}

#[test]
fn clocks_that_run_wrong_beyond_the_bound_are_noticed() {
    caught(Bug::ClocksBeyondTheBound, &[Broken::TwoPrimaries], 1_000);
}

#[test]
fn confirming_without_the_number_is_noticed() {
    caught(Bug::ConfirmsWithoutNumber, &[Broken::TwoPrimaries], 4_000);
}

#[test]
fn carrying_out_what_was_told_as_failed_is_noticed() {
    caught(Bug::SleepsOnIntents, &[Broken::Late], 1_000);
}

#[test]
fn carrying_out_what_others_intended_is_noticed() {
    caught(Bug::CarriesOutWhatOthersIntended, &[Broken::Late], 1_000);
}
