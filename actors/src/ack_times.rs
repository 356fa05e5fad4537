//! How long acknowledgements took over the last minute: counts by duration in six windows.

use parking_lot::Mutex;

/// Windows of a minute.
const WINDOWS: usize = 6;
const WINDOW_US: i64 = 10_000_000;
/// Steps between two powers of two: a value is known to an eighth.
const STEPS_BITS: u32 = 3;
/// Up to 2^27 microseconds, about two minutes; longer ones count as that.
const BUCKETS: usize = 25 << STEPS_BITS;

#[derive(Debug)]
struct Window {
    /// Number of the window since the clock's zero; counts of another one are old.
    number: i64,
    counts: [u32; BUCKETS],
}

/// Durations of one node's acknowledgements.
#[derive(Debug)]
pub struct AckTimes(Mutex<[Window; WINDOWS]>);

impl Default for AckTimes {
    fn default() -> Self {
        let empty = || Window { number: i64::MIN, counts: [0; BUCKETS] };
        Self(Mutex::new(std::array::from_fn(|_| empty())))
    }
}

fn bucket(us: u64) -> usize {
    let us = us.max(1 << STEPS_BITS);
    let power = 63 - us.leading_zeros();
    let step = (us >> (power - STEPS_BITS)) as usize & ((1 << STEPS_BITS) - 1);
    ((((power - STEPS_BITS) as usize) << STEPS_BITS) + step).min(BUCKETS - 1)
}

/// Upper end of a bucket, microseconds.
fn upper(bucket: usize) -> u64 {
    let (power, step) = (bucket >> STEPS_BITS, bucket as u64 & ((1 << STEPS_BITS) - 1));
    ((1 << STEPS_BITS) + step + 1) << power
}

impl AckTimes {
    /// One acknowledgement, at a monotonic moment.
    pub fn record(&self, now_us: i64, took_us: u64) {
        let number = now_us.div_euclid(WINDOW_US);
        let mut windows = self.0.lock();
        let window = &mut windows[number.rem_euclid(WINDOWS as i64) as usize];
        if window.number != number {
            *window = Window { number, counts: [0; BUCKETS] };
        }
        window.counts[bucket(took_us)] += 1;
    }

    /// Durations below which these shares (0 to 1) of the last minute's acknowledgements took, in
    /// milliseconds; 0 where there was none.
    pub fn quantiles_ms<const N: usize>(&self, now_us: i64, shares: [f64; N]) -> [f64; N] {
        let newest = now_us.div_euclid(WINDOW_US);
        let mut sum = [0_u64; BUCKETS];
        for window in self.0.lock().iter().filter(|w| w.number > newest - WINDOWS as i64) {
            sum.iter_mut().zip(window.counts).for_each(|(sum, count)| *sum += u64::from(count));
        }
        let total: u64 = sum.iter().sum();
        shares.map(|share| {
            let wanted = (total as f64 * share).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = sum.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.map_or(0.0, |at| upper(at) as f64 / 1e3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_an_eighth_and_old_ones_are_forgotten() {
        let times = AckTimes::default();
        assert_eq!(times.quantiles_ms(0, [0.5]), [0.0]);
        for ms in 1..=1_000_u64 {
            times.record(5, ms * 1_000);
        }
        let [median, high] = times.quantiles_ms(10_000_000, [0.5, 0.99]);
        assert!((500.0..=563.0).contains(&median), "{median}");
        assert!((990.0..=1_114.0).contains(&high), "{high}");
        assert_eq!(times.quantiles_ms(60_000_001, [0.5]), [0.0]);
        times.record(60_000_001, 1);
        assert!(times.quantiles_ms(60_000_002, [0.99])[0] < 0.01);
        times.record(60_000_003, u64::MAX);
        assert!(times.quantiles_ms(60_000_004, [1.0])[0] > 60_000.0);
    }

    #[test]
    fn buckets_hold_what_falls_into_them() {
        for us in [1_u64, 8, 9, 15, 16, 100, 1_000, 65_535, 65_536, 10_000_000] {
            let at = bucket(us);
            assert!(us < upper(at) && (at == 0 || us.max(8) >= upper(at - 1)), "{us}");
        }
    }
}
