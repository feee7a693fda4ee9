//! [`Diagonal`]: the diagonal of a matrix known by its products.

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::krylov::Draws;
use super::product::TOGETHER;
use super::remainder::rounding;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, checked_products, epsilon};
use crate::progress::Progress;
use crate::random::Purpose;

/// An estimate of a matrix's diagonal: the mean of v ⊙ Av over `samples` vectors v of random signs (Bekas,
/// Kokiopoulou and Saad, 2007). For a diagonal matrix it is exact; else entry i has the variance Σ_{j≠i} aᵢⱼ² of
/// a sample.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let exact = Diagonal::estimate(&Dense::new(array![[3.0, 0.0], [0.0, -1.0]])?, 2, 0)?;
/// assert_eq!(exact.values, [3.0, -1.0]);
/// let found = Diagonal::estimate(&Dense::new(array![[3.0, 1.0], [1.0, -1.0]])?, 100, 0)?;
/// let [low, high] = found.interval(0, 0.999)?; // of the first entry
/// assert!(low < 3.0 && 3.0 < high);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagonal {
    /// The estimate of each aᵢᵢ.
    pub values: Vec<f64>,
    /// Standard error of each, what the products' rounding adds to it included.
    pub standard_errors: Vec<f64>,
    /// Vectors, and products.
    pub samples: usize,
}

impl Diagonal {
    /// The diagonal of `operator` from `samples` products.
    ///
    /// # Errors
    /// Fewer than 2 samples; products that fail or are not finite.
    pub fn estimate(
        operator: &(impl LinearOperator + ?Sized),
        samples: usize,
        seed: u64,
    ) -> Result<Self> {
        if samples < 2 {
            return Err(Error::invalid(format!(
                "a diagonal from {samples} samples has no uncertainty: take at least 2"
            )));
        }
        let n = operator.dim();
        let mut draws = Draws::new(Purpose::Diagonal, seed);
        let mut progress = Progress::start("diagonal");
        // Running means and sums of squared deviations (Welford, 1962).
        let (mut mean, mut squares) = (vec![0.0; n], vec![0.0; n]);
        let mut seen = 0;
        while seen < samples {
            let count = TOGETHER.min(samples - seen);
            let probes: Vec<Vec<f64>> = (0..count).map(|_| draws.signs(n)).collect();
            for (v, image) in probes.iter().zip(checked_products(operator, &probes)?) {
                seen += 1;
                for (((m, s), v), a) in mean.iter_mut().zip(&mut squares).zip(v).zip(&image) {
                    let deviation = v * a - *m;
                    *m += deviation / seen as f64;
                    *s += deviation * (v * a - *m);
                }
            }
            progress.part(seen, samples);
        }
        let freedom = (samples * (samples - 1)) as f64;
        // An entry is no sum over a row: only its product is rounded.
        let (epsilon, cancelled) = (epsilon(operator), operator.cancellation()?);
        let rounding = |size: f64| rounding(epsilon, 0, size + cancelled);
        let errors = squares.iter().zip(&mean).map(|(squares, mean)| {
            let size = (mean * mean + squares / samples as f64).sqrt();
            (squares / freedom).sqrt().hypot(rounding(size))
        });
        let standard_errors = errors.collect();
        Ok(Self {
            values: mean,
            standard_errors,
            samples,
        })
    }

    /// The interval that holds entry `i` with this probability, such as 0.95, by Student's distribution with N − 1 degrees
    /// of freedom for N samples.
    ///
    /// # Errors
    /// No such entry; a confidence that is not between 0 and 1.
    pub fn interval(&self, i: usize, confidence: f64) -> Result<[f64; 2]> {
        let (Some(value), Some(error)) = (self.values.get(i), self.standard_errors.get(i)) else {
            return Err(Error::invalid(format!(
                "there is no entry {i} among {}",
                self.values.len()
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
