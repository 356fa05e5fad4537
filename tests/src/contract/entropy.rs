//! What callers rely on in an `Entropy`.

use std::collections::HashSet;

use dtm_machine::seams::Entropy;

/// Runs the suite.
pub fn suite(entropy: &dyn Entropy) {
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        assert!(seen.insert(entropy.id16()), "an id came twice");
    }
    for bytes in [1, 16, 24, 31, 32, 33, 100] {
        let mut buffer = vec![0; bytes];
        // A byte that no fill ever touches would stay 0 in each of these.
        let mut touched = vec![false; bytes];
        for _ in 0..64 {
            entropy.fill(&mut buffer);
            touched.iter_mut().zip(&buffer).for_each(|(t, b)| *t |= *b != 0);
        }
        assert!(touched.iter().all(|t| *t), "a fill of {bytes} leaves bytes as they were");
    }
    entropy.fill(&mut []);
}
