//! [`PowerLaw`]: the exponent of a spectrum's tail, with its confidence interval and goodness of fit.

use rand::Rng;
use rand_distr::{Distribution, Exp1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::estimate::{Short, check_confidence};
use super::power_law_tail::{MIN_TAIL, Tail};
use super::tail_alternatives::{self, TailComparison};
use super::{Eigenpair, Spectrum};
use crate::error::{Error, Result, counted};
use crate::progress;
use crate::random::{Purpose, generator};

/// Settings of the fit of a power law to the tail of a list of positive numbers, such as the bulk of a Hessian's eigenvalues.
///
/// The model: values λ above some λ_min have the density p(λ) = (α − 1)/λ_min · (λ/λ_min)^−α with an exponent α > 1. Sorted, such
/// values decay as λ_k ∝ k^−s with s = 1/(α − 1). The method is that of Clauset, Shalizi and Newman ("Power-law distributions in
/// empirical data", 2009):
///
/// 1. For given λ_min, the maximum of the likelihood of the n values above it is α = 1 + n/S with S = Σ ln(λᵢ/λ_min).
/// 2. λ_min is the value with the smallest Kolmogorov–Smirnov distance between the values above it and this power law. At least
///    50 values must lie above it. If more than 500 values could be λ_min, 500 of them are tried, equally spaced in the
///    sorted list.
/// 3. The fit is repeated, with a new λ_min each time, for [`num_resamples`](Self::num_resamples) random lists: n draws from the
///    fitted power law, and as many draws from the other values as there are of them.
///
/// The estimate is α = 1 + (n − 1)/S, without the bias 1/n of the maximum. The interval contains all α for which the ratio of α −
/// 1 to its estimate is not extreme among the random lists, so it includes the choice of λ_min. It is somewhat too wide: on 200
/// to 600 draws, 95 % intervals contained α in at least 97 % of runs. The p-value is the fraction of random lists whose distance is
/// at least that of the given values, each with its own fit.
///
/// # Assumptions
///
/// Interval and p-values hold for independent draws from one distribution. Eigenvalues are not independent: they repel each
/// other, so sorted eigenvalues fluctuate less than sorted draws. The interval is that of n independent draws. It does not state
/// how much α varies between seeds or datasets: repeat the analysis to measure that. For the same reason a large p-value is weak
/// evidence for a power law, while a small one rejects it.
///
/// # Partial spectra
///
/// The largest k eigenvalues are a tail of all of them, and λ_min cannot be below the smallest of them. A power law that starts
/// lower is still fitted without bias. If [`PowerLaw::min_value`] is among the smallest computed values, the power law may
/// continue: compute more eigenvalues to find where it ends.
///
/// # Outliers
///
/// The largest eigenvalues of a classifier's Hessian are mostly separate from the bulk: about as many as there are classes (Sagun
/// et al., "Eigenvalues of the Hessian in deep learning", 2016; Papyan, "Traces of class/cross-class structure pervade deep
/// learning spectra", 2020). They are draws from another distribution and make the tail heavier.
/// [`with_num_outliers`](Self::with_num_outliers) leaves out the largest values; nothing is assumed about them. The fit does not
/// decide how many these are: choose their number from the classes or from a gap in the spectrum, not from the p-value. Values of
/// a pure power law also seem to have outliers; leaving those out makes α too large.
///
/// # Where it misleads
///
/// Every distribution has a short tail that is like a power law, and λ_min is chosen to find it: compare [`PowerLaw::num_tail`]
/// with [`PowerLaw::num_values`]. A straight line in a log–log plot, or a small distance, is no evidence that other distributions fit worse: read
/// [`PowerLaw::lognormal`] and [`PowerLaw::exponential`]. A tail over less than a decade, or with fewer than some hundred values,
/// rarely tells them apart. Xie et al. ("On the power-law Hessian spectrums in deep learning", 2022) find power laws in many
/// networks' Hessians.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // The values that divide the density 1.5 λ^−2.5 above 1 into equal parts.
/// let values: Vec<f64> = (0..1000).map(|i| ((i as f64 + 0.5) / 1000.0).powf(-1.0 / 1.5)).collect();
/// let fit = PowerLawSettings::default().fit(&values)?;
/// assert!((fit.exponent - 2.5).abs() < 0.05);
/// assert!(fit.interval[0] < 2.5 && 2.5 < fit.interval[1]);
/// assert!(fit.p_value > 0.5);
/// assert!(fit.exponential.log_ratio > 0.0 && fit.exponential.p_value < 0.01); // a better fit than an exponential
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PowerLawSettings {
    /// Number of largest values that are left out.
    pub num_outliers: usize,
    /// Confidence of the interval, between 0 and 1.
    pub confidence: f64,
    /// Number of random lists, at least 100. The standard error of the p-value p is √(p(1 − p)/num_resamples).
    pub num_resamples: usize,
    /// Seed of the random lists.
    pub seed: u64,
}

impl Default for PowerLawSettings {
    /// No outliers, confidence 0.95, 1,000 random lists, seed 0.
    fn default() -> Self {
        Self {
            num_outliers: 0,
            confidence: 0.95,
            num_resamples: 1000,
            seed: 0,
        }
    }
}

/// Smallest number of random lists.
const MIN_RESAMPLES: usize = 100;

impl PowerLawSettings {
    /// Smallest number of values of a fit, without the outliers: λ_min and 50 values above it.
    pub const MIN_VALUES: usize = MIN_TAIL + 1;

    /// Sets the number of largest values that are left out.
    #[must_use]
    pub fn with_num_outliers(mut self, num_outliers: usize) -> Self {
        self.num_outliers = num_outliers;
        self
    }

    /// Sets the confidence of the interval.
    #[must_use]
    pub fn with_confidence(mut self, confidence: f64) -> Self {
        self.confidence = confidence;
        self
    }

    /// Sets the number of random lists.
    #[must_use]
    pub fn with_num_resamples(mut self, num_resamples: usize) -> Self {
        self.num_resamples = num_resamples;
        self
    }

    /// Sets the seed of the random lists.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Fits a power law to the tail of these values, in any order. For eigenvalues, [`Spectrum::power_law`] checks that they are
    /// a tail.
    ///
    /// # Errors
    /// Values that are not above 0 and finite; fewer than 51 values after the outliers; fewer than 50 values above the smallest
    /// one, as of equal values; a confidence that is not between 0 and 1; fewer than 100 random lists; an interrupt.
    pub fn fit(&self, values: &[f64]) -> Result<PowerLaw> {
        self.check()?;
        if let Some((i, value)) =
            (values.iter().enumerate()).find(|(_, value)| !(**value > 0.0 && value.is_finite()))
        {
            return Err(Error::invalid(format!(
                "value {i}, counted from 0, is {value}: a power law needs finite values above 0; leave out the others, or give their \
                 magnitudes"
            )));
        }
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.truncate(values.len().saturating_sub(self.num_outliers));
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        if logs.len() < Self::MIN_VALUES {
            return Err(Error::invalid(format!(
                "a power law needs at least {} values, found {} without {}: compute more eigenvalues",
                Self::MIN_VALUES,
                logs.len(),
                counted(self.num_outliers, "outlier")
            )));
        }
        let tail = Tail::find(&logs, 0).ok_or_else(|| {
            Error::invalid(format!(
                "fewer than {MIN_TAIL} of the {} values lie above the smallest: equal values have no power law",
                logs.len()
            ))
        })?;
        let (p_value, interval) = self.resample(&logs, &tail)?;
        let log_min = logs[tail.start - 1];
        let above: Vec<f64> = logs[tail.start..].iter().map(|log| log - log_min).collect();
        Ok(PowerLaw {
            exponent: 1.0 + tail.rate(),
            interval,
            confidence: self.confidence,
            min_value: values[tail.start - 1],
            num_tail: tail.len,
            num_values: logs.len(),
            num_outliers: self.num_outliers,
            distance: tail.distance,
            p_value,
            lognormal: tail_alternatives::lognormal(&above),
            exponential: tail_alternatives::exponential(&above),
        })
    }

    fn check(&self) -> Result<()> {
        check_confidence(self.confidence)?;
        if self.num_resamples < MIN_RESAMPLES {
            return Err(Error::invalid(format!(
                "num_resamples is {}: give at least {MIN_RESAMPLES}, for the ends of the interval",
                self.num_resamples
            )));
        }
        Ok(())
    }

    /// The p-value, and the interval of α, from fits to random lists.
    fn resample(&self, logs: &[f64], tail: &Tail) -> Result<(f64, [f64; 2])> {
        let body = &logs[..tail.start];
        let log_min = body[body.len() - 1];
        let refit = |i: u64| -> Result<Option<(f64, f64)>> {
            progress::check()?;
            let mut random = generator(Purpose::PowerLaw, self.seed, i);
            let copies: Vec<f64> = (body.iter())
                .map(|_| body[random.random_range(0..body.len())])
                .collect();
            let draws = Exp1.sample_iter(&mut random);
            let draws = draws.map(|y: f64| log_min + y / tail.likeliest_rate);
            let mut sample: Vec<f64> = copies.into_iter().chain(draws.take(tail.len)).collect();
            sample.sort_unstable_by(f64::total_cmp);
            let found = Tail::find(&sample, tail.start - 1);
            Ok(found.map(|found| (found.rate() / tail.likeliest_rate, found.distance)))
        };
        let refits = (0..self.num_resamples as u64).into_par_iter().map(refit);
        let refits: Vec<Option<(f64, f64)>> = refits.collect::<Result<_>>()?;
        let (mut ratios, distances): (Vec<f64>, Vec<f64>) = refits.into_iter().flatten().unzip();
        let larger = distances.iter().filter(|d| **d >= tail.distance).count();
        ratios.sort_by(f64::total_cmp);
        let outside = (1.0 - self.confidence) / 2.0;
        let skipped = ((ratios.len() as f64 + 1.0) * outside).round().max(1.0) as usize - 1;
        let [low, high] = [ratios[ratios.len() - 1 - skipped], ratios[skipped]];
        Ok((
            larger as f64 / distances.len() as f64,
            [low, high].map(|ratio| 1.0 + tail.rate() / ratio),
        ))
    }
}

/// The fit of a power law to the tail of a list of numbers; see [`PowerLawSettings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerLaw {
    /// Exponent α of the density λ^−α.
    pub exponent: f64,
    /// Confidence interval of α.
    pub interval: [f64; 2],
    /// Confidence of the interval.
    pub confidence: f64,
    /// λ_min
    pub min_value: f64,
    /// Number of values above λ_min, n.
    pub num_tail: usize,
    /// Number of values without the outliers, N.
    pub num_values: usize,
    /// Number of largest values that were left out.
    pub num_outliers: usize,
    /// Kolmogorov–Smirnov distance between the values above λ_min and the power law of the largest likelihood.
    pub distance: f64,
    /// Probability of at least this distance if the values above λ_min are draws from a power law. Clauset et al. reject a power
    /// law at p ≤ 0.1.
    pub p_value: f64,
    /// Comparison with a lognormal distribution above λ_min, which includes the power law as a limit: the ratio is at most 0.
    pub lognormal: TailComparison,
    /// Comparison with an exponential distribution above λ_min.
    pub exponential: TailComparison,
}

impl std::fmt::Display for PowerLaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval.map(Short);
        let against = |other: &TailComparison| match other.log_ratio {
            _ if other.p_value > 0.05 => "not distinguishable",
            ratio if ratio > 0.0 => "fits worse",
            _ => "fits better",
        };
        write!(
            f,
            "power law: density ∝ λ^−α with α = {:.4} (between {low:.4} and {high:.4} with {} % confidence) for the {} of {} above \
             {:.4}, {} left out; goodness of fit p = {:.3}; exponential {} (p = {:.2}), lognormal {} (p = {:.2})",
            Short(self.exponent),
            100.0 * self.confidence,
            self.num_tail,
            counted(self.num_values, "value"),
            Short(self.min_value),
            counted(self.num_outliers, "outlier"),
            self.p_value,
            against(&self.exponential),
            Short(self.exponential.p_value),
            against(&self.lognormal),
            Short(self.lognormal.p_value),
        )
    }
}

impl Spectrum {
    /// Fits a power law to the tail of the positive eigenvalues, such as the bulk of a Hessian without `num_outliers` of them.
    ///
    /// The fit uses the largest eigenvalues down to the first one that is not above its error, or that has a larger eigenvalue
    /// which was not computed. The interval is widened by the largest change that the errors of these eigenvalues can cause at
    /// the same λ_min, all in the same direction; compute them to a smaller tolerance if it is too wide. For the negative
    /// eigenvalues, fit their magnitudes with [`PowerLawSettings::fit`].
    ///
    /// ```
    /// use loss_landscape::ndarray::{Array1, Array2};
    /// use loss_landscape::prelude::*;
    ///
    /// // λ_k ∝ k^−1.25 for k from 1 to 300, so α = 1 + 1/1.25.
    /// let diagonal = Array1::from_shape_fn(300, |i| (i as f64 + 1.0).powf(-1.25));
    /// let spectrum = Dense::new(Array2::from_diag(&diagonal))?.eigen()?;
    /// let fit = spectrum.power_law(&PowerLawSettings::default())?;
    /// assert!((fit.exponent - 1.8).abs() < 0.05, "{fit}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PowerLawSettings::fit`]; an iteration that has not converged; a largest eigenvalue that was not computed or is not
    /// above its error.
    pub fn power_law(&self, settings: &PowerLawSettings) -> Result<PowerLaw> {
        self.require_bounds("a power law")?;
        let mut pairs: Vec<&Eigenpair> = self.pairs.iter().collect();
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        let is_tail = |(i, pair): &(usize, &&Eigenpair)| {
            pair.value > pair.error() && pair.rank.is_some_and(|rank| rank.index == i + 1)
        };
        let count = pairs.iter().enumerate().take_while(is_tail).count();
        pairs.truncate(count);
        if pairs.is_empty() {
            return Err(Error::invalid(
                "a power law needs the largest eigenvalues, above 0 by more than their errors: compute them with Which::Largest",
            ));
        }
        let values: Vec<f64> = pairs.iter().map(|pair| pair.value).collect();
        let mut fit = settings.fit(&values)?;
        let tail = &pairs[fit.num_outliers..][..=fit.num_tail];
        let log_sum = |shift: f64| {
            let log = |pair: &Eigenpair, shift: f64| (pair.value + shift * pair.error()).ln();
            let min = log(tail[fit.num_tail], -shift);
            let logs = tail[..fit.num_tail].iter();
            logs.map(|pair| (log(pair, shift) - min).max(0.0))
                .sum::<f64>()
        };
        let [low, high] = [1.0, -1.0].map(|shift| log_sum(0.0) / log_sum(shift));
        fit.interval = [
            1.0 + (fit.interval[0] - 1.0) * low,
            1.0 + (fit.interval[1] - 1.0) * high,
        ];
        Ok(fit)
    }
}
