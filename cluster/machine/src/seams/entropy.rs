//! Randomness as a seam: keys and nonces come from here, so that a simulation can repeat itself.

use std::sync::Mutex;

use sha2::{Digest, Sha256};

/// Source of unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the buffer. The real twin takes the operating system's randomness and never fails
    /// softly: without randomness the process ends.
    fn fill(&self, buffer: &mut [u8]);

    /// A 16-byte id.
    fn id16(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.fill(&mut id);
        id
    }
}

/// Repeatable bytes from a seed (SHA-256 in counter mode): tests and simulation only.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<(u64, u64)>,
}

impl SeededEntropy {
    /// The same seed gives the same bytes.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new((seed, 0)) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in buffer.chunks_mut(32) {
            let mut hash = Sha256::new();
            hash.update(state.0.to_le_bytes());
            hash.update(state.1.to_le_bytes());
            state.1 += 1;
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
    }
}
