//! Comparisons of a power law with other distributions of the same tail.

use std::f64::consts::{PI, SQRT_2};

use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;

use crate::vector::largest;

/// The fit of a power law to a tail compared with that of another distribution.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // The values that divide an exponential distribution into equal parts.
/// let values: Vec<f64> = (0..500).map(|i| 0.1 - ((i as f64 + 0.5) / 500.0).ln()).collect();
/// let comparison = PowerLawSettings::default().fit(&values)?.exponential;
/// assert!(comparison.log_ratio < 0.0 || comparison.p_value > 0.05); // a power law does not fit better
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TailComparison {
    /// Logarithm of the likelihood of the power law, minus that of the other distribution: positive if the power law fits better.
    pub log_ratio: f64,
    /// Probability of so large a ratio if neither fits better. The sign of the ratio is meaningful only if this is small.
    pub p_value: f64,
}

/// Compares with the exponential distribution above the same λ_min, by the test of Vuong (1989): R/(σ√n) is about standard
/// normal for two distributions that fit equally well, where R is the sum and σ the standard deviation of the n ratios.
///
/// `logs` are ln(λᵢ/λ_min).
pub(super) fn exponential(logs: &[f64]) -> TailComparison {
    let n = logs.len() as f64;
    let rate = n / logs.iter().sum::<f64>();
    // (λ − λ_min)/λ_max
    let end = largest(logs);
    let excess = |y: f64| (y - end).exp() - (-end).exp();
    let other_rate = n / logs.iter().map(|y| excess(*y)).sum::<f64>();
    // Logarithms of the densities of λ/λ_min
    let ratio = |y: &f64| {
        let power_law = rate.ln() - (rate + 1.0) * y;
        power_law - (other_rate.ln() - other_rate * excess(*y) - end)
    };
    let ratios: Vec<f64> = logs.iter().map(ratio).collect();
    let log_ratio = ratios.iter().sum::<f64>();
    let squares = ratios
        .iter()
        .map(|r| (r - log_ratio / n).powi(2))
        .sum::<f64>();
    TailComparison {
        log_ratio,
        p_value: erfc(log_ratio.abs() / (2.0 * squares).sqrt()),
    }
}

/// Compares with the lognormal distribution above the same λ_min.
///
/// The logarithms y = ln(λ/λ_min) of a lognormal distribution have a density ∝ exp(−ay − by²) with b > 0, those of a power law the
/// same with b = 0. The lognormal distribution therefore never fits worse. If b = 0, twice the ratio is 0 with probability ½ and
/// else χ² with one degree of freedom (Castillo and Puig, "The best test of exponentiality against singly truncated normal
/// alternatives", 1999).
pub(super) fn lognormal(logs: &[f64]) -> TailComparison {
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let mean_square = logs.iter().map(|y| y * y).sum::<f64>() / n;
    let power_law = -mean.ln() - 1.0;
    let likeliest = truncated_normal(mean, mean_square);
    // Both are per value.
    let log_ratio = n * (power_law - likeliest.unwrap_or(power_law)).min(0.0);
    TailComparison {
        log_ratio,
        p_value: match log_ratio < 0.0 {
            true => 0.5 * erfc((-log_ratio).sqrt()),
            false => 1.0,
        },
    }
}

/// Point of truncation, in standard deviations above the mean, from which a normal distribution is exponential up to 10⁻⁷ of the
/// likelihood per value.
const FARTHEST: f64 = 30.0;

/// Largest mean logarithm of the likelihood of a normal distribution truncated at 0, for values y > 0 with this mean and mean
/// square; `None` if no normal distribution is more likely than an exponential one.
fn truncated_normal(mean: f64, mean_square: f64) -> Option<f64> {
    // The moments of the likeliest distribution are those of the values. For truncation at t, in standard deviations from the
    // mean of the normal distribution, E y² / (E y)² increases from 1 for t → −∞ to 2 for t → ∞.
    let ratio = mean_square / (mean * mean);
    let (mut low, mut high) = (-1e4, FARTHEST);
    if ratio >= moments(high)[1] / moments(high)[0].powi(2) {
        return None;
    }
    for _ in 0..100 {
        let t = 0.5 * (low + high);
        let [first, second] = moments(t);
        match second / (first * first) < ratio {
            true => low = t,
            false => high = t,
        }
    }
    let [first, second] = moments(low);
    let deviation = mean / first;
    // E (y − μ)²/σ² with μ = −tσ
    let square = second + 2.0 * low * first + low * low;
    Some(-0.5 * square - deviation.ln() - 0.5 * (2.0 * PI).ln() - upper_tail(low).ln())
}

/// E y and E y² for y = x − t, where x is standard normal above t.
fn moments(t: f64) -> [f64; 2] {
    let hazard = (-0.5 * t * t).exp() / (2.0 * PI).sqrt() / upper_tail(t);
    let first = hazard - t;
    [first, 1.0 - t * first]
}

/// The probability that a standard normal number is above t.
fn upper_tail(t: f64) -> f64 {
    0.5 * erfc(t / SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean logarithm of the likelihood of a truncated normal distribution.
    fn likelihood(mean: f64, mean_square: f64, center: f64, deviation: f64) -> f64 {
        let square = mean_square - 2.0 * center * mean + center * center;
        let normal = -0.5 * square / deviation.powi(2) - (deviation * (2.0 * PI).sqrt()).ln();
        normal - upper_tail(-center / deviation).ln()
    }

    #[test]
    fn no_truncated_normal_distribution_nearby_is_more_likely() {
        for (mean, mean_square) in [(1.0, 1.9), (1.0, 1.5), (2.0, 4.4), (0.1, 0.0101)] {
            let found = truncated_normal(mean, mean_square).unwrap();
            // Of all truncated normal distributions, on a grid: none is more likely, and one is almost as likely.
            let mut largest = f64::NEG_INFINITY;
            for center in (-4_000..=1_200).map(|i| f64::from(i) / 400.0 * mean) {
                for deviation in (1..=600).map(|i| f64::from(i) / 150.0 * mean) {
                    // The probability above a truncation farther away is 0 in floating point.
                    if center >= -FARTHEST * deviation {
                        largest = largest.max(likelihood(mean, mean_square, center, deviation));
                    }
                }
            }
            assert!(
                largest <= found + 1e-12,
                "{mean} {mean_square}: {largest} {found}"
            );
            assert!(
                largest > found - 1e-3,
                "{mean} {mean_square}: {largest} {found}"
            );
        }
        // More spread out than exponential.
        assert_eq!(truncated_normal(1.0, 2.1), None);
    }

    #[test]
    fn moments_of_the_half_normal_distribution() {
        let [first, second] = moments(0.0);
        assert!((first - (2.0 / PI).sqrt()).abs() < 1e-14 && (second - 1.0).abs() < 1e-14);
        // Almost exponential with mean 1/t
        let [first, second] = moments(FARTHEST);
        assert!((first * FARTHEST - 1.0).abs() < 2.0 / FARTHEST.powi(2));
        assert!((second / first.powi(2) - 2.0).abs() < 4.0 / FARTHEST.powi(2));
    }

    #[test]
    fn ratios_of_two_values_by_hand() {
        // λ/λ_min = 2 and 4: n/S = 2/(3 ln 2), and the exponential distribution has the rate 2/(1 + 3).
        let logs = [2f64.ln(), 4f64.ln()];
        let rate = 2.0 / (3.0 * 2f64.ln());
        let power_law = |x: f64| rate * x.powf(-rate - 1.0);
        let other = |x: f64| 0.5 * (-0.5 * (x - 1.0)).exp();
        let [a, b] = [2.0, 4.0].map(|x| (power_law(x) / other(x)).ln());
        let found = exponential(&logs);
        assert!((found.log_ratio - (a + b)).abs() < 1e-13);
        // R/(σ√n) with σ² = ((a − b)/2)²
        let score = (a + b).abs() / ((a - b).abs() / 2.0 * 2f64.sqrt());
        assert!((found.p_value - erfc(score / SQRT_2)).abs() < 1e-13);
    }

    #[test]
    fn values_far_apart_do_not_overflow() {
        let logs: Vec<f64> = (1..=100).map(|i| 14.0 * f64::from(i)).collect();
        for found in [exponential(&logs), lognormal(&logs)] {
            assert!(found.log_ratio.is_finite() && (0.0..=1.0).contains(&found.p_value));
        }
    }
}
