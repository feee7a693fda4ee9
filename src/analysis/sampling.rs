//! [`SamplingError`]: the error of a number measured on a random subsample, relative to its value on all samples.
//!
//! The n measured samples are split into groups. The spread of a mean over the groups gives its standard error, which
//! the finite-population correction √(1 − n/N) takes to 0 where n is all N samples (Cochran, "Sampling Techniques",
//! 1977, ch. 2).
//!
//! Many numbers are not means but maxima of a mean: λ₁ = max vᵀHv, or the largest increase of the loss in a ball.
//! Measured on a subsample such a number is too large on average, because the maximiser was chosen on the same samples.
//! At the same maximiser, other samples give a number that is too small on average. The interval extends from the lower end
//! of the second to the upper end of the first (Mak, Morton and Wood, "Monte Carlo bounding
//! techniques for determining solution quality in stochastic programs", 1999). It is
//! conservative. The standard error of the maximum is that of the mean at its maximiser, which bounds it by the
//! inequality of Efron and Stein ("The jackknife estimate of variance", 1981).

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::data::Dataset;
use crate::error::Result;
use crate::objective::Objective;
use crate::operator::{Hessian, LinearOperator};
use crate::progress::Progress;
use crate::vector::{axpy, scale};

/// Number of groups, or the number of samples if smaller.
const GROUPS: usize = 20;

/// Error from measuring on a random subsample.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(400, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 2], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?;
/// let whole = analyzer.hessian_metrics(1)?;
/// let part = analyzer.with_samples(100, 0)?.hessian_metrics(1)?;
/// let sampling = part.sampling.unwrap().largest;
/// let exact = whole.largest[0].value;
/// assert!(sampling.low <= exact && exact <= sampling.high);
/// assert_eq!(whole.sampling, None); // measured on all samples
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SamplingError {
    /// Standard error from the choice of samples only.
    pub standard_error: f64,
    /// Lower end of a 95 % confidence interval for the value on all samples. It includes the error of the estimator, unless the
    /// field that holds the interval says otherwise.
    pub low: f64,
    /// Upper end of that interval.
    pub high: f64,
}

impl SamplingError {
    /// The error of a monotone function `f` of the number.
    pub(super) fn map(self, slope: f64, f: impl Fn(f64) -> f64) -> Self {
        let [a, b] = [f(self.low), f(self.high)];
        Self {
            standard_error: slope.abs() * self.standard_error,
            low: a.min(b),
            high: a.max(b),
        }
    }
}

/// The n measured samples in groups, and up to n other samples in groups.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    measured: Vec<Objective>,
    others: Vec<Objective>,
    /// n/N
    share: f64,
    /// Fraction of the N − n unmeasured samples that is in `others`.
    seen: f64,
}

/// A mean over samples, on each group.
#[derive(Clone)]
pub(super) struct ByGroup {
    measured: Vec<f64>,
    others: Vec<f64>,
}

impl ByGroup {
    /// A function of several means, group by group.
    pub(super) fn combine(means: &[&Self], f: impl Fn(&[f64]) -> f64) -> Self {
        let over = |part: fn(&Self) -> &[f64]| {
            let row = |g: usize| means.iter().map(|mean| part(mean)[g]).collect::<Vec<f64>>();
            let groups = 0..part(means[0]).len();
            groups.map(|g| f(&row(g))).collect()
        };
        Self {
            measured: over(|mean| &mean.measured),
            others: over(|mean| &mean.others),
        }
    }

    pub(super) fn on_measured(&self) -> &[f64] {
        &self.measured
    }
}

impl Groups {
    /// The first `n` samples of `order`, a random order of the objective's data, and up to `n` samples after them.
    pub(super) fn new(objective: &Objective, order: &[usize], n: usize) -> Result<Self> {
        let (measured, rest) = order.split_at(n);
        let others = &rest[..n.min(rest.len())];
        Ok(Self {
            measured: split(objective, measured)?,
            others: split(objective, others)?,
            share: n as f64 / order.len() as f64,
            seen: others.len() as f64 / rest.len().max(1) as f64,
        })
    }

    /// Means over the samples of each group; `f` computes all of them for one group.
    pub(super) fn means<const K: usize>(
        &self,
        f: impl Fn(&Objective) -> Result<[f64; K]>,
    ) -> Result<[ByGroup; K]> {
        let mut progress = Progress::start("sampling error");
        let (mut done, total) = (0, self.measured.len() + self.others.len());
        let mut over = |groups: &[Objective]| -> Result<Vec<[f64; K]>> {
            let mut rows = Vec::with_capacity(groups.len());
            for group in groups {
                rows.push(f(group)?);
                done += 1;
                progress.part(done, total);
            }
            Ok(rows)
        };
        let (measured, others) = (over(&self.measured)?, over(&self.others)?);
        let column = |rows: &[[f64; K]], k: usize| rows.iter().map(|row| row[k]).collect();
        Ok(std::array::from_fn(|k| ByGroup {
            measured: column(&measured, k),
            others: column(&others, k),
        }))
    }

    /// A mean over the measured samples, on each group.
    pub(super) fn measured(&self, f: impl Fn(&Objective) -> Result<f64>) -> Result<Vec<f64>> {
        self.measured.iter().map(f).collect()
    }

    /// The standard error of a mean over the measured samples, from its value on each group. `None` for a single sample.
    pub(super) fn standard_error(&self, groups: &[f64]) -> Option<f64> {
        let variance = variance_of_mean(&self.measured, groups)?;
        Some((variance * (1.0 - self.share)).sqrt())
    }

    /// The standard error with the spread pooled over measured and other groups.
    pub(super) fn pooled_error(&self, mean: &ByGroup) -> Option<f64> {
        let size =
            |groups: &[Objective]| groups.iter().map(|g| g.data().len()).sum::<usize>() as f64;
        let mut variance = variance_of_mean(&self.measured, &mean.measured)?;
        if let Some(other) = variance_of_mean(&self.others, &mean.others) {
            let ratio = size(&self.others) / size(&self.measured);
            let [ours, theirs] = [&self.measured, &self.others].map(|g| g.len() as f64 - 1.0);
            variance = (ours * variance + theirs * other * ratio) / (ours + theirs);
        }
        Some((variance * (1.0 - self.share)).sqrt())
    }

    /// The interval of an unbiased number with this standard error and estimator error `error`.
    pub(super) fn unbiased(&self, number: f64, standard_error: f64, error: f64) -> SamplingError {
        let reach = (student(self.measured.len()) * standard_error).hypot(error);
        SamplingError {
            standard_error,
            low: number - reach,
            high: number + reach,
        }
    }

    /// The interval of a maximum of means, `number` ± `error`, from the mean at its maximiser.
    pub(super) fn maximum(&self, number: f64, error: f64, mean: &ByGroup) -> Option<SamplingError> {
        Some(SamplingError {
            standard_error: self.standard_error(&mean.measured)?,
            low: self.least(number, mean)? - error,
            high: self.most(number, mean)? + error,
        })
    }

    /// The interval of a minimum of means.
    pub(super) fn minimum(&self, number: f64, error: f64, mean: &ByGroup) -> Option<SamplingError> {
        let opposite = ByGroup::combine(&[mean], |x| -x[0]);
        let found = self.maximum(-number, error, &opposite)?;
        Some(SamplingError {
            low: -found.high,
            high: -found.low,
            ..found
        })
    }

    /// An upper confidence bound on a maximum of means.
    pub(super) fn most(&self, number: f64, mean: &ByGroup) -> Option<f64> {
        let error = self.standard_error(&mean.measured)?;
        Some(number + student(self.measured.len()) * error)
    }

    /// A lower confidence bound on a maximum of means: the mean over all samples at the maximiser.
    pub(super) fn least(&self, number: f64, mean: &ByGroup) -> Option<f64> {
        let others = self.mean_of_others(mean);
        let mut error = 0.0;
        if self.seen < 1.0 {
            let variance = variance_of_mean(&self.others, &mean.others)?;
            error = student(self.others.len()) * (variance * (1.0 - self.seen)).sqrt();
        }
        Some(self.share * number + (1.0 - self.share) * (others - error))
    }

    /// Estimates the mean over all samples of a mean that is `number` on the measured samples.
    pub(super) fn over_all(&self, number: f64, mean: &ByGroup) -> f64 {
        self.share * number + (1.0 - self.share) * self.mean_of_others(mean)
    }

    /// Products with a weighted Hessian of the measured and other samples, an unbiased estimate of that of all samples.
    pub(super) fn products(
        &self,
        measured: &Hessian,
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        let mut products = measured.apply_block(vectors)?;
        for product in &mut products {
            scale(product, self.share);
        }
        for (group, weight) in self.others.iter().zip(weights(&self.others)) {
            let images = group.hessian().apply_block(vectors)?;
            for (product, image) in products.iter_mut().zip(&images) {
                axpy((1.0 - self.share) * weight, image, product);
            }
        }
        Ok(products)
    }

    fn mean_of_others(&self, mean: &ByGroup) -> f64 {
        weighted_mean(&weights(&self.others), &mean.others)
    }
}

/// Splits the samples `chosen` into groups whose sizes differ by at most one.
fn split(objective: &Objective, chosen: &[usize]) -> Result<Vec<Objective>> {
    let data: Dataset = objective.data().select(chosen)?;
    let (n, count) = (data.len(), GROUPS.min(data.len()));
    let bound = |group: usize| group * n / count;
    let group = |i: usize| objective.with_subset(&data.narrow(bound(i), bound(i + 1) - bound(i))?);
    (0..count).map(group).collect()
}

/// Fraction of the samples in each group.
fn weights(groups: &[Objective]) -> Vec<f64> {
    let sizes: Vec<f64> = groups.iter().map(|g| g.data().len() as f64).collect();
    let all: f64 = sizes.iter().sum();
    sizes.iter().map(|size| size / all).collect()
}

fn weighted_mean(weights: &[f64], values: &[f64]) -> f64 {
    weights.iter().zip(values).map(|(w, x)| w * x).sum()
}

/// Σ w²(x − x̄)² G/(G − 1) for G groups of weights w, which is s²/G for equal weights. `None` for one group.
fn variance_of_mean(groups: &[Objective], values: &[f64]) -> Option<f64> {
    let (weights, count) = (weights(groups), groups.len() as f64);
    let mean = weighted_mean(&weights, values);
    let squares = weights.iter().zip(values);
    let squares: f64 = squares.map(|(w, x)| (w * (x - mean)).powi(2)).sum();
    (groups.len() > 1).then(|| squares * count / (count - 1.0))
}

/// The 97.5 % quantile of Student's t distribution for this many groups.
fn student(groups: usize) -> f64 {
    StudentsT::new(0.0, 1.0, groups.max(2) as f64 - 1.0)
        .map_or(f64::INFINITY, |student| student.inverse_cdf(0.975))
}
