//! Convergence of several chains: the split R̂, the effective number of samples, and the error of the mean.

use crate::spectral::Estimate;

/// Diagnostics of several chains of equal length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreement {
    /// Split R̂: the square root of the variance of all samples, with that of the chains' means, over the variance within the
    /// halves of chains.
    pub(super) r_hat: f64,
    /// Effective number of samples.
    pub(super) effective: f64,
    /// Mean of all samples.
    pub(super) mean: f64,
    /// Variance of a sample.
    pub(super) variance: f64,
}

impl Agreement {
    /// Computes the split R̂ and the effective number of samples from the autocorrelation (Gelman et al., "Bayesian Data
    /// Analysis", 3rd ed., 2013, sections 11.4 and 11.5; Vehtari et al., 2021). Chains need at least 4 samples.
    pub(super) fn of(chains: &[Vec<f64>]) -> Self {
        let n = chains[0].len() / 2;
        let halves: Vec<&[f64]> = chains
            .iter()
            .flat_map(|chain| [&chain[..n], &chain[chain.len() - n..]])
            .collect();
        let count = halves.len() as f64;
        let length = n as f64;
        let means: Vec<f64> = halves.iter().map(|half| mean(half)).collect();
        let overall = mean(&means);
        let within = halves
            .iter()
            .zip(&means)
            .map(|(half, mean)| autocovariance(half, *mean, 0) * length / (length - 1.0))
            .sum::<f64>()
            / count;
        let between = means.iter().map(|m| (m - overall).powi(2)).sum::<f64>() / (count - 1.0);
        let variance = (length - 1.0) / length * within + between;
        if within == 0.0 {
            let r_hat = if between == 0.0 { 1.0 } else { f64::INFINITY };
            return Self {
                r_hat,
                effective: count * length,
                mean: overall,
                variance,
            };
        }
        let correlation = |lag: usize| {
            let pairs = halves.iter().zip(&means);
            let sum: f64 = pairs
                .map(|(half, mean)| autocovariance(half, *mean, lag))
                .sum();
            let unbiased = sum / count * length / (length - 1.0);
            1.0 - (within - unbiased) / variance
        };
        // Geyer's initial monotone sequence: sums of two neighbours are positive and decrease.
        let (mut time, mut last) = (-1.0, f64::INFINITY);
        for lag in (0..n.saturating_sub(1)).step_by(2) {
            let pair = correlation(lag) + correlation(lag + 1);
            if pair <= 0.0 {
                break;
            }
            last = pair.min(last);
            time += 2.0 * last;
        }
        let total = count * length;
        Self {
            r_hat: (variance / within).sqrt(),
            effective: total / time.max(1.0 / total.log10()),
            mean: overall,
            variance,
        }
    }

    /// Returns the mean of the chains, which are independent samples of it. Its error is the larger of two: from the scatter of
    /// the chains' means, and from the autocorrelation within chains.
    pub(super) fn estimate(&self, chains: &[Vec<f64>]) -> Estimate {
        let means: Vec<f64> = chains.iter().map(|chain| mean(chain)).collect();
        let estimate = Estimate::mean(&means);
        let within = (self.variance / self.effective).sqrt();
        Estimate {
            standard_error: estimate.standard_error.max(within),
            ..estimate
        }
    }
}

/// Returns the mean of some numbers.
pub(super) fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// (1/n) Σ (xᵢ − m)(xᵢ₊ₖ − m)
fn autocovariance(x: &[f64], mean: f64, lag: usize) -> f64 {
    let pairs = x.iter().zip(&x[lag..]);
    pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / x.len() as f64
}
