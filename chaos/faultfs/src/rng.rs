//! SplitMix64: its numbers are the same on every machine, so that a printed seed repeats a run.

/// A stream of numbers that its seed decides.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix {
    state: u64,
}

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream for one part of what `seed` decides; parts do not disturb each other.
    pub(crate) fn for_part(seed: u64, part: u64) -> Self {
        let mut parent = Self::new(seed ^ part.wrapping_mul(0xD134_2543_DE82_EF95));
        Self::new(parent.draw())
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two u64 fits one")
    }
}
