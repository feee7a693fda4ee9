//! [`GradientNoise`]: covariance of the batch gradient, and its alignment with the curvature.

use serde::{Deserialize, Serialize};

use super::implicit_bias::{batch_variance, check_step};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::{Alignment, Bracket, Estimate, Lanczos, Spectrum, Trace};
use crate::vector::{dot, norm};

/// Settings of a gradient-noise measurement: the covariance Σ = (1/N) Σᵢ gᵢgᵢᵀ − ggᵀ of the gradients of N samples. The dataset
/// is treated as the whole population: its mean gradient g has no sampling error.
///
/// See [`NoiseReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GradientNoise {
    /// Number of leading eigenpairs of Σ and of H.
    pub top: usize,
    /// Relative standard error of tr Σ at which to stop.
    pub relative_error: f64,
    /// Number of random vectors for tr(HΣ) and the cosine; each takes a product with H and one with Σ.
    pub probes: usize,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for GradientNoise {
    /// 5 eigenpairs, tr Σ to 1 %, 64 probes, seed 0.
    fn default() -> Self {
        Self {
            top: 5,
            relative_error: 0.01,
            probes: 64,
            seed: 0,
        }
    }
}

/// Gradient g, its covariance Σ and the Hessian H at a point, compared. An L2 term contributes to g and H, not to Σ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²; the two samples' gradients are (0, 0) and (4, 8), so that g = (2, 4).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 0.5])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let found = GradientNoise::default().with_top(1).run(&objective)?;
/// assert!((found.variance.value - 20.0).abs() < 1e-9); // tr Σ
/// assert!((found.simple_noise_scale.value - 1.0).abs() < 1e-9); // tr Σ/‖g‖²
/// assert!((found.gradient_curvature - (2.0 * 4.0 + 8.0 * 16.0)).abs() < 1e-9); // gᵀHg
/// let full_batch = found.expected_change(0.1, 2)?; // without noise
/// let step = StepChange::measure(&objective, &objective.gradient()?, 0.1)?;
/// assert!((full_batch.value - step.actual).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NoiseReport {
    /// Number of samples N.
    pub samples: usize,
    /// ‖g‖.
    pub gradient_norm: f64,
    /// gᵀHg.
    pub gradient_curvature: f64,
    /// Largest eigenvalues of Σ.
    pub covariance: Spectrum,
    /// Largest eigenvalues of H.
    pub hessian: Spectrum,
    /// tr Σ, the mean of ‖gᵢ − g‖².
    pub variance: Estimate,
    /// Simple noise scale tr Σ/‖g‖² (B_simple of McCandlish et al., "An Empirical Model of Large-Batch Training", 2018): the
    /// batch size, for samples drawn with replacement, at which the root mean square of the noise equals the gradient norm.
    /// Infinite if the gradient is zero up to rounding; 0 without noise.
    #[serde(alias = "simple_scale")]
    pub simple_noise_scale: Estimate,
    /// Noise scale tr(HΣ)/(gᵀHg) (B_noise of the same paper): the batch size at which an optimal step makes half the progress of
    /// an optimal full-batch step. If gᵀHg or tr(HΣ) is negative, there is no optimal step and the value is not a batch size.
    #[serde(alias = "curvature_scale")]
    pub noise_scale: Estimate,
    /// tr(HΣ) and the cosine between H and Σ.
    pub alignment: Alignment,
    /// Overlap of the leading eigenspaces of Σ and H, from 0 to 1. See [`Spectrum::subspace_overlap`].
    pub overlap: Bracket,
}

impl GradientNoise {
    /// Sets the number of leading eigenpairs of Σ and of H.
    #[must_use]
    pub fn with_top(mut self, top: usize) -> Self {
        self.top = top;
        self
    }
    /// Sets the relative standard error of tr Σ at which to stop.
    #[must_use]
    pub fn with_relative_error(mut self, relative_error: f64) -> Self {
        self.relative_error = relative_error;
        self
    }
    /// Sets the number of random vectors for tr(HΣ) and the cosine.
    #[must_use]
    pub fn with_probes(mut self, probes: usize) -> Self {
        self.probes = probes;
        self
    }
    /// Sets the seed of the random vectors.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Measures the noise at the model's current parameters.
    ///
    /// # Errors
    /// `top` is 0 or larger than the number of parameters; there are fewer than 2 probes; the relative error is not a positive
    /// number; a product fails.
    pub fn run(&self, objective: &Objective) -> Result<NoiseReport> {
        let n = objective.dim();
        if self.top == 0 || self.top > n {
            return Err(Error::invalid(format!(
                "{} eigenpairs of {n} × {n} matrices cannot be computed: use 1 to {n}",
                self.top
            )));
        }
        let gradient = objective.gradient()?;
        let square = dot(&gradient, &gradient);
        let curved = objective.hvp(&gradient)?;
        let gradient_curvature = dot(&gradient, &curved);
        let (covariance, hessian) = (objective.gradient_covariance()?, objective.hessian());

        let trace = Trace::default()
            .with_relative_error(self.relative_error)
            .with_seed(self.seed);
        let variance = trace.trace(&covariance)?;
        // Rounding error of a mean of gradients with this root mean square.
        let epsilon = objective.parameters().epsilon();
        let rounding = 4.0 * epsilon * (variance.value.max(0.0) + square).sqrt();
        let alignment = Alignment::estimate(&hessian, &covariance, self.probes, self.seed)?;
        let lanczos = Lanczos::default().with_seed(self.seed);
        // One more pair, for the gap that bounds the overlap's error.
        let pairs = (self.top + 1).min(n);
        let mut covariance = lanczos.run(&covariance, pairs)?;
        let mut hessian = lanczos.run(&hessian, pairs)?;
        let overlap = covariance.subspace_overlap(&hessian, self.top)?;
        covariance.pairs.truncate(self.top);
        hessian.pairs.truncate(self.top);
        Ok(NoiseReport {
            samples: objective.samples(),
            gradient_norm: square.sqrt(),
            gradient_curvature,
            covariance,
            hessian,
            variance,
            simple_noise_scale: divide(
                variance,
                square,
                (2.0 * square.sqrt() + rounding) * rounding,
            ),
            noise_scale: divide(
                alignment.product,
                gradient_curvature,
                2.0 * norm(&curved) * rounding,
            ),
            alignment,
            overlap,
        })
    }
}

/// Divides an estimate by a number known up to `rounding`. The result is infinite if that number may be 0.
fn divide(estimate: Estimate, by: f64, rounding: f64) -> Estimate {
    if by.abs() > rounding {
        let quotient = estimate.scaled(1.0 / by);
        let relative = rounding / by.abs();
        let quotient = quotient.with_error(relative * quotient.value.abs());
        if quotient.value.is_finite() && quotient.standard_error.is_finite() {
            return quotient;
        }
    }
    let infinite = f64::INFINITY.copysign(estimate.value);
    Estimate {
        value: if estimate.value == 0.0 { 0.0 } else { infinite },
        standard_error: 0.0,
        ..estimate
    }
}

impl NoiseReport {
    /// Returns the expected change of the loss by one step of SGD with batches of B of the N samples, drawn without
    /// replacement, to second order in the learning rate η:
    ///
    /// E ΔL = −η ‖g‖² + ½ η² (gᵀHg + tr(HΣ)(N − B)/(B(N − 1)))
    ///
    /// It is exact for a quadratic loss. The standard error is that of tr(HΣ).
    ///
    /// # Errors
    /// The learning rate is not a positive number; the batch size is 0 or above N.
    pub fn expected_change(&self, learning_rate: f64, batch_size: usize) -> Result<Estimate> {
        check_step(learning_rate, batch_size, self.samples)?;
        let half = 0.5 * learning_rate * learning_rate;
        let noise = half * batch_variance(self.samples, batch_size);
        let mut change = self.alignment.product.scaled(noise);
        change.value += half * self.gradient_curvature - learning_rate * self.gradient_norm.powi(2);
        Ok(change)
    }
}
