//! At which applied index the replicas freeze their rows.
//!
//! ```text
//!  idle       the leader's applied index: the others are there, or come there
//!  busy       somebody has passed it by the time that he is asked: ahead of it, twice as far each time
//!  idle again the index ahead is not reached in time: half as far, back to where the leader is
//! ```

/// How far ahead of the leader at most, entries.
const AHEAD_MAX: u64 = 1 << 20;
/// How far ahead the first time that somebody has passed the index.
const AHEAD_MIN: u64 = 64;

/// What became of a request to freeze rows at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They are frozen there.
    Kept,
    /// The replica has applied more than that.
    Passed,
    /// It did not get there in time.
    Behind,
}

/// Looks for an index that all replicas can freeze.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aim {
    ahead: u64,
}

impl Aim {
    /// The index to ask for, where the leader has applied through `applied`.
    pub fn index(&self, applied: u64) -> u64 {
        applied + self.ahead
    }

    /// Takes over what became of it, the leader's own answer apart; whether to go on with those that
    /// froze theirs. A replica other than the leader that is behind is not waited for.
    pub fn told(&mut self, own: Kept, others: &[Kept]) -> bool {
        if own == Kept::Behind {
            self.ahead = if self.ahead <= AHEAD_MIN { 0 } else { self.ahead / 2 };
            return false;
        }
        if own == Kept::Passed || others.contains(&Kept::Passed) {
            self.ahead = (self.ahead * 2).clamp(AHEAD_MIN, AHEAD_MAX);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_load_it_aims_further_ahead_and_comes_back() {
        let mut aim = Aim::default();
        assert_eq!(aim.index(100), 100);
        for ahead in [64, 128, 256] {
            assert!(!aim.told(Kept::Kept, &[Kept::Passed, Kept::Kept]));
            assert_eq!(aim.index(100), 100 + ahead);
        }
        assert!(aim.told(Kept::Kept, &[Kept::Behind, Kept::Kept]), "who lags is left out");
        // The load is over: the index is not reached.
        for ahead in [128, 64, 0, 0] {
            assert!(!aim.told(Kept::Behind, &[Kept::Behind]));
            assert_eq!(aim.index(100), 100 + ahead);
        }
        (0..99).for_each(|_| assert!(!aim.told(Kept::Passed, &[])));
        assert_eq!(aim.index(0), AHEAD_MAX);
    }
}
