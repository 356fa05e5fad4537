//! What readers rely on in a `RecordStore`.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{RecordError, RecordStore};

/// A store under test and what is in it.
pub struct Given {
    /// The store.
    pub store: Arc<dyn RecordStore>,
    /// Bundles that were committed, by index.
    pub held: Vec<(u64, Bytes)>,
    /// Indexes of entries that are not bundles, or that were never written.
    pub not_held: Vec<u64>,
    /// Indexes whose bytes were damaged where they lie.
    pub damaged: Vec<u64>,
}

/// Runs the suite.
pub fn suite(given: &Given) {
    assert!(given.held.len() > 2 && !given.damaged.is_empty(), "the suite needs something to read");
    held_or_not(given);
    for index in &given.damaged {
        damage_is_never_served(&*given.store, *index);
    }
    many_readers_see_the_same(given);
}

fn held_or_not(given: &Given) {
    // Any order, and again.
    for (index, bytes) in given.held.iter().rev().chain(&given.held) {
        assert_eq!(given.store.bundle(*index).as_ref(), Ok(bytes), "index {index}");
    }
    for index in given.not_held.iter().copied().chain([u64::MAX]) {
        assert_eq!(given.store.bundle(index), Err(RecordError::NotHeld(index)));
    }
}

/// Where the damage took the place too, all that is left to say is that it is missing.
fn damage_is_never_served(store: &dyn RecordStore, index: u64) {
    let found = store.bundle(index);
    let (Err(RecordError::Damaged { index: at, .. })
    | Err(RecordError::NotHeld(at) | RecordError::Missing(at))) = found
    else {
        panic!("damage at {index} is never served: {found:?}");
    };
    assert_eq!(at, index);
}

fn many_readers_see_the_same(given: &Given) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| held_or_not(given)));
        }
    });
}
