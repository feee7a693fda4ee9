//! [`BatchSharpness`]: the curvature that a step of stochastic gradient descent meets in its own batch.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, counted};
use crate::objective::Objective;
use crate::random::{Purpose, generator};
use crate::spectral::Estimate;
use crate::vector::dot;

/// Settings of a measurement of batch sharpness:
///
/// E g_Bᵀ H_B g_B / E ‖g_B‖²
///
/// over random batches B with gradient g_B and Hessian H_B. Stochastic gradient descent without momentum sharpens until it is near 2/η,
/// while λ_max(H) stays below (Andreyev and Beneventano, "Edge of Stochastic Stability", 2024). With all samples in the batch it is the
/// curvature along the gradient.
///
/// A batch has distinct samples. The estimate is the ratio of the means, with the jackknife's correction of its bias, and its error is
/// the jackknife's, wider for skewed ratios. A batch takes one gradient and one product.
///
/// ```
/// use loss_landscape::landscape::BatchSharpness;
/// use loss_landscape::prelude::*;
///
/// // (wx + b)² of the samples x = 1 and x = 2, at b = 0 and w = 1: g = 2x(1, x) and gᵀHg/‖g‖² = 2(1 + x²).
/// let x = Tensor::new(&[[1.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let found = BatchSharpness::new(1).with_batches(400).run(&objective)?;
/// let exact = (4.0 * 8.0 + 10.0 * 80.0) / (8.0 + 80.0);
/// assert!((found.value - exact).abs() < 4.0 * found.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BatchSharpness {
    /// Number of samples in a batch.
    pub batch_size: usize,
    /// Number of batches, at least 3.
    pub batches: usize,
    /// Seed of the batches.
    pub seed: u64,
}

impl BatchSharpness {
    /// 100 batches of this size, seed 0.
    pub fn new(batch_size: usize) -> Self {
        Self {
            batch_size,
            batches: 100,
            seed: 0,
        }
    }

    /// Sets the number of batches.
    #[must_use]
    pub fn with_batches(mut self, batches: usize) -> Self {
        self.batches = batches;
        self
    }

    /// Sets the seed of the batches.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Estimates the batch sharpness at the model's current parameters. With all samples in a batch the value is exact.
    ///
    /// # Errors
    /// A batch size of 0 or above the number of samples; fewer than 3 batches; gradients that are all 0; samples that are read in parts
    /// or distributed over ranks; a gradient or product fails.
    pub fn run(&self, objective: &Objective) -> Result<Estimate> {
        objective.needs_all_samples("batch sharpness")?;
        let samples = objective.samples();
        if self.batch_size == 0 || self.batch_size > samples {
            return Err(Error::invalid(format!(
                "batches of {} cannot be drawn from {samples} samples: use 1 to {samples}",
                self.batch_size
            )));
        }
        if self.batches < 3 {
            return Err(Error::invalid(format!(
                "no standard error from {}: use 3 or more",
                counted(self.batches, "batch")
            )));
        }
        let is_whole = self.batch_size == samples;
        let batches = if is_whole { 1 } else { self.batches };
        let mut pairs = Vec::with_capacity(batches);
        for i in 0..batches {
            let mut rng = generator(Purpose::BatchSharpness, self.seed, i as u64);
            let rows = rand::seq::index::sample(&mut rng, samples, self.batch_size).into_vec();
            let batch = objective.with_batch(objective.data().select(&rows)?);
            let gradient = batch.gradient()?;
            pairs.push((
                dot(&gradient, &batch.hvp(&gradient)?),
                dot(&gradient, &gradient),
            ));
        }
        if pairs.iter().all(|(_, square)| *square == 0.0) {
            return Err(Error::invalid(
                "the gradient of each batch is 0: batch sharpness is not defined",
            ));
        }
        let estimate = match is_whole {
            true => Estimate::exact(pairs[0].0 / pairs[0].1),
            false => ratio(&pairs),
        };
        Ok(Estimate {
            products: batches,
            ..estimate
        })
    }
}

/// Ratio of the means of at least 3 pairs (a, b) with b ≥ 0, by the jackknife (Quenouille, 1956; Tukey, 1958).
pub(super) fn ratio(pairs: &[(f64, f64)]) -> Estimate {
    let n = pairs.len() as f64;
    let [a, b] = pairs
        .iter()
        .fold([0.0; 2], |[a, b], pair| [a + pair.0, b + pair.1]);
    let without = |pair: &(f64, f64)| match b - pair.1 > 0.0 {
        true => (a - pair.0) / (b - pair.1),
        false => a / b,
    };
    let values = pairs
        .iter()
        .map(|pair| n * a / b - (n - 1.0) * without(pair));
    Estimate::from_samples(&values.collect::<Vec<_>>())
}
