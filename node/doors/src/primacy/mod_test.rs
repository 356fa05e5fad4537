//! What a node may enter in meta while sites change.

use dtm_machine::seams::ManualClock;
use dtm_register::Act;

use super::*;
use crate::system::OsEntropy;

const NOW_US: i64 = 1_763_000_000_000_000;

fn opened(data: &Path, clock: &Arc<ManualClock>) -> Arc<Primacy> {
    let seams = (Arc::clone(clock) as Arc<dyn Clock>, Arc::new(OsEntropy) as Arc<dyn Entropy>);
    let node = (NodeId([1; 16]), "hanoi");
    Primacy::open(data, node, Incarnation(1), true, seams).expect("a folder")
}

fn act() -> Act {
    Act { at_us: NOW_US, by: "lan".to_owned(), reason: "a test".to_owned() }
}

#[test]
fn what_would_be_left_behind_is_not_entered() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::at(NOW_US));
    let primacy = opened(folder.path(), &clock);
    let why = || primacy.leaves_behind().map(|told| told.of(dtm_types::text::Lang::En));
    assert_eq!(why(), None, "nobody decided anything yet");
    let first = Decision::founded(Incarnation(1), ("hanoi", "danang"), Vec::new(), act());
    primacy.adopt(&first);
    assert_eq!(why(), None);
    // A planned change: until its time is over, whatever came of it.
    primacy.goes_by(true, NOW_US + 90_000_000);
    assert!(why().is_some_and(|why| why.contains("danang")), "{:?}", why());
    clock.advance_us(90_000_000);
    assert_eq!(why(), None);
    // The other site goes on, and this one knows.
    let cause = dtm_register::Cause::Promoted;
    let intent = first.intended(NodeId([2; 16]), act());
    primacy.adopt(&intent);
    assert_eq!(why(), None, "it is only intended");
    primacy.adopt(&intent.promoted(cause, act()));
    assert!(why().is_some_and(|why| why.contains("life 2")), "{:?}", why());
    // Without a standby there is one life.
    primacy.goes_by(false, 0);
    assert_eq!(why(), None);
}
