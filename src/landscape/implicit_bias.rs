//! [`ImplicitBias`]: the loss that gradient descent with finite steps goes down instead.

use polars::df;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::{Estimate, Trace};
use crate::vector::{dot, scale};

/// The modified loss whose gradient flow follows gradient descent (Barrett and Dherin, "Implicit Gradient
/// Regularization", 2021) and, in the mean over the order of the batches, SGD (Smith, Dherin, Barrett and De, "On
/// the Origin of Implicit Regularization in Stochastic Gradient Descent", 2021) to second order in the learning
/// rate η. For batches of B of the N samples, drawn without replacement,
///
/// L + (η/4) E‖g_B‖² = L + (η/4)‖g‖² + (η/4) tr Σ (N − B)/(B(N − 1)),
///
/// with the samples' gradients' mean g and covariance Σ, and the gradient g_B of a batch.
///
/// See [`ModifiedLoss`] for an example.
#[derive(Clone, Debug, PartialEq)]
pub struct ImplicitBias {
    /// η
    pub learning_rate: f64,
    /// B; N for gradient descent.
    pub batch_size: usize,
    /// How tr Σ is estimated.
    pub trace: Trace,
}

/// The [modified loss](ImplicitBias), part by part.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² = 2 with the gradient (2, 4), and tr Σ = 20, as in `NoiseReport`.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 0.5])?;
/// let modified = ImplicitBias::new(0.1, 1).run(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert!((modified.full_batch - 0.1 / 4.0 * 20.0).abs() < 1e-9);
/// assert!((modified.noise.value - 0.1 / 4.0 * 20.0).abs() < 1e-9); // (N − B)/(B(N − 1)) = 1
/// assert!((modified.total().value - 3.0).abs() < 1e-9);
/// assert!((modified.drift[1] + 0.1 / 2.0 * 8.0 * 4.0).abs() < 1e-9); // −(η/2)Hg
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModifiedLoss {
    /// L
    pub loss: f64,
    /// (η/4)‖g‖²
    pub full_batch: f64,
    /// (η/4) tr Σ (N − B)/(B(N − 1))
    pub noise: Estimate,
    /// −(η/2)Hg, minus the gradient of the full-batch part: what it adds to the flow −g.
    pub drift: Vec<f64>,
}

impl ImplicitBias {
    /// Steps of length `learning_rate` along the gradients of batches of `batch_size` samples; tr Σ as
    /// [`Trace`] does it by default.
    pub fn new(learning_rate: f64, batch_size: usize) -> Self {
        Self {
            learning_rate,
            batch_size,
            trace: Trace::default(),
        }
    }

    /// The modified loss where the model of `objective` stands. It takes two gradients, one product with the Hessian and,
    /// for batches of less than all samples, the trace.
    ///
    /// # Errors
    /// A learning rate that is no positive number; a batch size that is 0 or above N; those of the products.
    pub fn run(&self, objective: &Objective) -> Result<ModifiedLoss> {
        let samples = objective.samples();
        check_step(self.learning_rate, self.batch_size, samples)?;
        let (eta, share) = (self.learning_rate, batch_variance(samples, self.batch_size));
        let variance = if share > 0.0 {
            self.trace.trace(&objective.gradient_covariance()?)?
        } else {
            Estimate::of(&[0.0; 2])
        };
        let gradient = objective.gradient()?;
        let mut drift = objective.hvp(&gradient)?;
        scale(&mut drift, -0.5 * eta);
        Ok(ModifiedLoss {
            loss: objective.loss()?,
            full_batch: 0.25 * eta * dot(&gradient, &gradient),
            noise: variance.scaled(0.25 * eta * share),
            drift,
        })
    }
}

/// (N − B)/(B(N − 1)): the covariance of the gradient of a batch, in units of a sample's.
pub(super) fn batch_variance(samples: usize, batch_size: usize) -> f64 {
    let (n, b) = (samples as f64, batch_size as f64);
    if samples == batch_size {
        return 0.0;
    }
    (n - b) / (b * (n - 1.0))
}

pub(super) fn check_step(learning_rate: f64, batch_size: usize, samples: usize) -> Result<()> {
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(Error::invalid(format!(
            "a learning rate of {learning_rate} makes no step: give a finite number above 0"
        )));
    }
    if batch_size == 0 || batch_size > samples {
        return Err(Error::invalid(format!(
            "{batch_size} of {samples} samples make no batch: take 1 to {samples}"
        )));
    }
    Ok(())
}

impl ModifiedLoss {
    /// The sum of the parts.
    pub fn total(&self) -> Estimate {
        Estimate {
            value: self.loss + self.full_batch + self.noise.value,
            ..self.noise
        }
    }

    /// The parts and their sum, with the standard error of those that have one.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        let total = self.total();
        let error = Some(total.standard_error);
        Ok(df!(
            "part" => ["loss", "full batch", "noise", "modified loss"],
            "value" => [self.loss, self.full_batch, self.noise.value, total.value],
            "standard error" => [None, None, error, error],
        )?)
    }
}
