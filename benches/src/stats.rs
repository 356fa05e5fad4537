//! Small statistics: medians with an interval that assumes nothing about the distribution, and
//! the drift test that drops a round.

use serde::Serialize;

/// A median with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// Lower end of the 95 % interval (order statistics; min where there are too few values).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Values it was taken from.
    pub count: usize,
}

/// Median and interval; `None` without values.
pub fn median(values: &[f64]) -> Option<Median> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    if count == 0 {
        return None;
    }
    let middle = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
    let rank = interval_rank(count);
    Some(Median { value: middle, low: sorted[rank], high: sorted[count - 1 - rank], count })
}

/// Largest `k` for which [k-th lowest, k-th highest] covers the median with at least 95 %; the
/// widest interval there is (0) where even that covers less.
fn interval_rank(count: usize) -> usize {
    let mut below = 0.0;
    let mut choose = 1.0;
    let scale = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    for rank in 0..count / 2 {
        below += choose * scale;
        if 2.0 * below > 0.05 {
            return rank.saturating_sub(1);
        }
        choose = choose * (count - rank) as f64 / (rank + 1) as f64;
    }
    (count / 2).saturating_sub(1)
}

/// A figure with so many digits behind the point; a dash where it was not measured.
pub fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Whether probes of one round lie within 20 % of each other.
pub fn steady(probes: &[f64]) -> bool {
    let low = probes.iter().copied().fold(f64::INFINITY, f64::min);
    let high = probes.iter().copied().fold(0.0, f64::max);
    probes.is_empty() || high <= low * 1.2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_interval() {
        assert_eq!(median(&[]), None);
        let three = median(&[3.0, 1.0, 2.0]).expect("values");
        assert_eq!((three.value, three.low, three.high), (2.0, 1.0, 3.0));
        assert_eq!(median(&[1.0, 2.0]).expect("values").value, 1.5);
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        let ten = median(&ten).expect("values");
        // Known from tables: for n = 10 the second lowest and second highest cover 97.9 %.
        assert_eq!((ten.low, ten.high), (2.0, 9.0));
    }

    #[test]
    fn drift_is_seen() {
        assert!(steady(&[]));
        assert!(steady(&[1.0, 1.19]));
        assert!(!steady(&[1.0, 1.21]));
    }
}
