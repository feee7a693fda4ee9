//! [`ImplicitBias`]: the loss that gradient descent with finite steps goes down instead.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::spectral::{Estimate, Trace};
use crate::vector::{dot, scale};

/// The modified loss whose gradient flow follows gradient descent (Barrett and Dherin, "Implicit Gradient
/// Regularization", 2021) and, in the mean over the order of the samples, SGD (Smith, Dherin, Barrett and De, "On
/// the Origin of Implicit Regularization in Stochastic Gradient Descent", 2021) to second order in the learning
/// rate η.
///
/// The steps are those of [`Trainer::sgd`](crate::train::Trainer::sgd): a constant rate, and in each epoch all N samples in a
/// new random order, in m = ⌈N/B⌉ batches of B samples, the last of which may be smaller. With the samples' gradients' mean
/// g and covariance Σ the modified loss is
///
/// L + (η/4)‖g‖² + (η/4) tr Σ (m − 1)/(N − 1)
///
/// Where B divides N, that is L + (η/4) E‖g_B‖² with the gradient g_B of a batch, as in Smith et al. With heavy-ball momentum β
/// (b ← βb + g, θ ← θ − ηb), after the first 1/(1 − β) steps or so, it is
///
/// L + (η/4)‖g‖² (1 + β)/(1 − β)² + η tr Σ Σₖ (m − k)(1 − βᵏ)/(2m(N − 1)(1 − β)), k = 1 … m − 1,
///
/// whose flow runs 1/(1 − β) times as fast: a step takes the time η/(1 − β). The full-batch part is that of Ghosh, Lyu,
/// Zhang and Wang ("Implicit Regularization in Heavy-ball Momentum Accelerated Stochastic Gradient Descent", 2023).
/// Nesterov's momentum, Adam, sharpness-aware steps, dropout and schedules have other modified losses.
///
/// See [`ModifiedLoss`] for an example.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ImplicitBias {
    /// η
    pub learning_rate: f64,
    /// B; N for gradient descent.
    pub batch_size: usize,
    /// β, from 0 to below 1; 0 if not set.
    pub momentum: f64,
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
/// assert!((modified.noise.value - 0.1 / 4.0 * 20.0).abs() < 1e-9); // (m − 1)/(N − 1) = 1
/// assert!((modified.total().value - 3.0).abs() < 1e-9);
/// assert!((modified.drift[1] + 0.1 / 2.0 * 8.0 * 4.0).abs() < 1e-9); // −(η/2)Hg
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModifiedLoss {
    /// L
    pub loss: f64,
    /// (η/4)‖g‖², times (1 + β)/(1 − β)².
    pub full_batch: f64,
    /// (η/4) tr Σ (m − 1)/(N − 1) for m batches an epoch; with momentum as in [`ImplicitBias`].
    pub noise: Estimate,
    /// Minus the gradient of the full-batch part, which is −(η/2)Hg without momentum: what it adds to the flow −g.
    pub drift: Vec<f64>,
}

impl ImplicitBias {
    /// Steps of length `learning_rate` along the gradients of batches of `batch_size` samples; tr Σ as
    /// [`Trace`] does it by default.
    pub fn new(learning_rate: f64, batch_size: usize) -> Self {
        Self {
            learning_rate,
            batch_size,
            momentum: 0.0,
            trace: Trace::default(),
        }
    }

    /// With heavy-ball momentum β.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w², where the full-batch part grows by (1 + ½)/(1 − ½)² = 6.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// model.parameters().set_flat(&[1.0, 0.5])?;
    /// let objective = Objective::of(&model, &data, Loss::Mse)?;
    /// let [plain, heavy] = [0.0, 0.5].map(|beta| ImplicitBias::new(0.1, 2).with_momentum(beta));
    /// let [plain, heavy] = [plain.run(&objective)?, heavy.run(&objective)?];
    /// assert!((heavy.full_batch - 6.0 * plain.full_batch).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets how tr Σ is estimated.
    #[must_use]
    pub fn with_trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// The modified loss where the model of `objective` stands. It takes two gradients, one product with the Hessian and,
    /// for batches of less than all samples, the trace.
    ///
    /// # Errors
    /// A learning rate that is no positive number; a batch size that is 0 or above N; a momentum that is not from 0 to below
    /// 1; those of the products.
    pub fn run(&self, objective: &Objective) -> Result<ModifiedLoss> {
        let samples = objective.samples();
        check_step(self.learning_rate, self.batch_size, samples)?;
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::invalid(format!(
                "a momentum of {} does not settle: give a number from 0 to below 1",
                self.momentum
            )));
        }
        let [whole, noise] = self.factors(samples);
        let theta = objective.parameters().to_flat()?;
        let variance = if noise > 0.0 {
            let covariance = objective.gradient_covariance()?.at(theta.clone())?;
            self.trace.trace(&covariance)?
        } else {
            Estimate::of(&[0.0; 2])
        };
        let (_, gradient) = objective.gradient_at(&theta)?;
        let mut drift = objective.hessian().at(theta.clone())?.apply(&gradient)?;
        scale(&mut drift, -2.0 * whole);
        Ok(ModifiedLoss {
            loss: objective.loss_at(&theta)?,
            full_batch: whole * dot(&gradient, &gradient),
            noise: variance.scaled(noise),
            drift,
        })
    }

    /// What ‖g‖² and tr Σ are multiplied with.
    ///
    /// In an epoch, E Hₛg_q = Hg − (½∇ tr Σ)/(N − 1) for the batches of two of its steps q < s, whatever their sizes, since
    /// they have no sample in common; for steps of different epochs it is Hg. Step q has moved θ by −ηβʳg_q, r ≥ 0, in
    /// each step up to s, and step s acts on with the weights βʳ.
    fn factors(&self, samples: usize) -> [f64; 2] {
        let (eta, beta) = (self.learning_rate, self.momentum);
        let steps = samples.div_ceil(self.batch_size);
        let whole = 0.25 * eta * (1.0 + beta) / (1.0 - beta).powi(2);
        if steps == 1 {
            return [whole, 0.0];
        }
        let (m, n) = (steps as f64, samples as f64);
        let pairs = (1..steps).map(|k| (steps - k) as f64 * (1.0 - beta.powi(k as i32)));
        let noise = 0.5 * eta * pairs.sum::<f64>() / (m * (n - 1.0) * (1.0 - beta));
        [whole, noise]
    }
}

/// (N − B)/(B(N − 1)): the covariance of the gradient of one batch, in units of a sample's.
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
}
