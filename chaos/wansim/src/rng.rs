//! The randomness of all faults: SplitMix64, whose numbers are the same on every machine and in
//! every release, so that a printed seed repeats a run.

/// A stream of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct SplitMix {
    state: u64,
}

impl SplitMix {
    /// A stream of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream for one part of what `seed` decides; parts do not disturb each other.
    #[must_use]
    pub fn for_part(seed: u64, part: u64) -> Self {
        let mut parent = Self::new(seed ^ part.wrapping_mul(0xD134_2543_DE82_EF95));
        Self::new(parent.draw())
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for 0. Evenly spread but for a bias below 2^-32 at the bounds
    /// that faults have.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two u64 fits one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_parts_differ() {
        let draw = |mut rng: SplitMix| (0..8).map(|_| rng.draw()).collect::<Vec<_>>();
        assert_eq!(draw(SplitMix::new(7)), draw(SplitMix::new(7)));
        assert_ne!(draw(SplitMix::for_part(7, 0)), draw(SplitMix::for_part(7, 1)));
        // The published first value of SplitMix64 for the seed 0: the numbers never change.
        assert_eq!(SplitMix::new(0).draw(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = SplitMix::new(3);
        assert!((0..10_000).all(|_| rng.below(10) < 10));
        assert_eq!(rng.below(0), 0);
    }
}
