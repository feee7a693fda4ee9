//! [`Diagonal`]: the diagonal of a matrix given by its products.

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::deflated_trace::rounding;
use super::probe_loop::{BLOCK_SIZE, Estimator, Sampler, estimate};
use crate::error::{Error, Result, counted};
use crate::operator::{LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::Purpose;

/// An estimate of a matrix's diagonal: the mean of v ⊙ Av over `samples` vectors v of random signs (Bekas, Kokiopoulou and
/// Saad, 2007). It is exact for a diagonal matrix; otherwise a sample of entry i has the variance Σ_{j≠i} aᵢⱼ².
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Diagonal;
///
/// let exact = Diagonal::estimate(&Dense::new(array![[3.0, 0.0], [0.0, -1.0]])?, 2, 0)?;
/// assert_eq!(exact.values, [3.0, -1.0]);
/// let found = Diagonal::estimate(&Dense::new(array![[3.0, 1.0], [1.0, -1.0]])?, 100, 0)?;
/// let [low, high] = found.interval(0, 0.999)?; // of the first entry
/// assert!(low < 3.0 && 3.0 < high);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagonal {
    /// Estimates of aᵢᵢ, length n.
    pub values: Vec<f64>,
    /// Standard error of each estimate, including the rounding of the products; length n.
    pub standard_errors: Vec<f64>,
    /// Number of samples, which is the number of products.
    pub samples: usize,
}

impl Diagonal {
    /// Estimates the diagonal of `operator` from `samples` products.
    ///
    /// # Errors
    /// Fewer than 2 samples; products that fail or are not finite.
    pub fn estimate(operator: &dyn LinearOperator, samples: usize, seed: u64) -> Result<Self> {
        if samples < 2 {
            return Err(Error::invalid(format!(
                "a diagonal from {} has no standard error: use at least 2",
                counted(samples, "sample")
            )));
        }
        let n = operator.dim();
        let mut sampler = Sampler::new(Purpose::Diagonal, seed);
        let integrand = |_: &RunningMoments, probes: Vec<Vec<f64>>| {
            let mut products = checked_products(operator, &probes)?;
            for (product, v) in products.iter_mut().zip(&probes) {
                product.iter_mut().zip(v).for_each(|(a, v)| *a *= v);
            }
            Ok(products)
        };
        let moments = RunningMoments {
            mean: vec![0.0; n],
            squares: vec![0.0; n],
            count: 0,
            samples,
            progress: Progress::start("diagonal"),
        };
        let moments = estimate(|| sampler.signs(n), integrand, moments)?;
        let degrees_of_freedom = (samples * (samples - 1)) as f64;
        // An entry is not a sum over a row: only its product is rounded.
        let (epsilon, cancellation) = (operator.epsilon(), operator.cancellation()?);
        let rounding = |size: f64| rounding(epsilon, 0, size + cancellation);
        let errors = moments.squares.iter().zip(&moments.mean);
        let errors = errors.map(|(squares, mean)| {
            let size = (mean * mean + squares / samples as f64).sqrt();
            (squares / degrees_of_freedom).sqrt().hypot(rounding(size))
        });
        Ok(Self {
            standard_errors: errors.collect(),
            values: moments.mean,
            samples,
        })
    }

    /// Confidence interval of entry `i`, for a confidence such as 0.95, by Student's distribution with N − 1 degrees of
    /// freedom for N samples.
    ///
    /// # Errors
    /// An index beyond the last entry; a confidence that is not between 0 and 1.
    pub fn interval(&self, i: usize, confidence: f64) -> Result<[f64; 2]> {
        let (Some(value), Some(error)) = (self.values.get(i), self.standard_errors.get(i)) else {
            return Err(Error::invalid(format!(
                "there is no entry {i}: the diagonal has {}, counted from 0",
                counted(self.values.len(), "entry")
            )));
        };
        let entry = Estimate {
            value: *value,
            standard_error: *error,
            samples: self.samples,
            products: self.samples,
            converged: true,
        };
        entry.interval(confidence)
    }
}

/// Running means and sums of squared deviations of vectors (Welford, 1962), up to a number of samples.
struct RunningMoments {
    mean: Vec<f64>,
    squares: Vec<f64>,
    count: usize,
    samples: usize,
    progress: Progress,
}

impl Estimator for RunningMoments {
    type Sample = Vec<f64>;

    fn next_round(&mut self) -> Result<usize> {
        if self.count > 0 {
            self.progress.part(self.count, self.samples);
        }
        Ok(BLOCK_SIZE.min(self.samples - self.count))
    }

    fn add(&mut self, sample: Vec<f64>) {
        self.count += 1;
        let moments = self.mean.iter_mut().zip(&mut self.squares);
        for ((mean, squares), x) in moments.zip(sample) {
            let deviation = x - *mean;
            *mean += deviation / self.count as f64;
            *squares += deviation * (x - *mean);
        }
    }
}
