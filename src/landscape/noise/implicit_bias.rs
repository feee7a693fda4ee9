//! [`ImplicitBias`]: the modified loss that gradient descent with finite steps minimises.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_positive};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::spectral::{Estimate, Trace};
use crate::vector::{dot, scale};

/// Settings of the modified loss whose gradient flow follows gradient descent (Barrett and Dherin, "Implicit Gradient
/// Regularization", 2021) and, in the mean over the order of the samples, SGD (Smith, Dherin, Barrett and De, "On the Origin
/// of Implicit Regularization in Stochastic Gradient Descent", 2021), to second order in the learning rate η.
///
/// The steps are those of [`Trainer::sgd`](crate::train::Trainer::sgd): a constant learning rate and, in each epoch, all N
/// samples in a new random order, in m = ⌈N/B⌉ batches of B samples, of which the last may be smaller. With mean g and
/// covariance Σ of the samples' gradients, the modified loss is
///
/// L + (η/4)‖g‖² + (η/4) tr Σ (m − 1)/(N − 1).
///
/// If B divides N, that is L + (η/4) E‖g_B‖², where g_B is the gradient of a batch, as in Smith et al. With heavy-ball
/// momentum β (b ← βb + g, θ ← θ − ηb), after about the first 1/(1 − β) steps, it is
///
/// L + (η/4)‖g‖² (1 + β)/(1 − β)² + η tr Σ Σₖ (m − k)(1 − βᵏ)/(2m(N − 1)(1 − β)), k = 1 … m − 1,
///
/// and the flow runs 1/(1 − β) times as fast: a step takes the time η/(1 − β). The full-batch part is that of Ghosh, Lyu,
/// Zhang and Wang ("Implicit Regularization in Heavy-Ball Momentum Accelerated Stochastic Gradient Descent", 2023).
/// Nesterov momentum, Adam, sharpness-aware steps, dropout and schedules have other modified losses.
///
/// See [`ModifiedLoss`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImplicitBias {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Batch size B; N for gradient descent.
    pub batch_size: usize,
    /// Momentum β, 0 ≤ β < 1 [default: 0].
    pub momentum: f64,
    /// Estimator of tr Σ.
    pub trace: Trace,
}

/// The [modified loss](ImplicitBias), term by term.
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
    /// L.
    pub loss: f64,
    /// Full-batch term: (η/4)‖g‖², times (1 + β)/(1 − β)².
    pub full_batch: f64,
    /// Noise term: (η/4) tr Σ (m − 1)/(N − 1) for m batches per epoch; with momentum as in [`ImplicitBias`].
    pub noise: Estimate,
    /// Negative gradient of the full-batch term, shape `(d,)`, which is added to the flow −g. Without momentum: −(η/2)Hg.
    pub drift: Vec<f64>,
}

impl ImplicitBias {
    /// Creates settings for SGD with this learning rate and batch size: no momentum, tr Σ by the default [`Trace`].
    pub fn new(learning_rate: f64, batch_size: usize) -> Self {
        Self {
            learning_rate,
            batch_size,
            momentum: 0.0,
            trace: Trace::default(),
        }
    }

    /// Sets the heavy-ball momentum β.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w²: the full-batch term grows by (1 + ½)/(1 − ½)² = 6.
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

    /// Computes the modified loss at the model's current parameters, with two gradients, one Hessian–vector product and, for
    /// batches smaller than the dataset, the trace.
    ///
    /// # Errors
    /// The learning rate is not a positive number; the batch size is 0 or above N; the momentum is not in [0, 1); a product
    /// fails.
    pub fn run(&self, objective: &Objective) -> Result<ModifiedLoss> {
        let samples = objective.samples();
        check_step(self.learning_rate, self.batch_size, samples)?;
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::invalid(format!(
                "the momentum is {}: use a number from 0 to below 1",
                self.momentum
            )));
        }
        let [full_batch, noise] = self.factors(samples);
        let theta = objective.parameters().to_flat()?;
        let variance = if noise > 0.0 {
            let covariance = objective.gradient_covariance()?.at(theta.clone())?;
            self.trace.trace(&covariance)?
        } else {
            Estimate::from_samples(&[0.0; 2])
        };
        let (_, gradient) = objective.gradient_at(&theta)?;
        let mut drift = objective.hessian().at(theta.clone())?.apply(&gradient)?;
        scale(&mut drift, -2.0 * full_batch);
        Ok(ModifiedLoss {
            loss: objective.loss_at(&theta)?,
            full_batch: full_batch * dot(&gradient, &gradient),
            noise: variance.scaled(noise),
            drift,
        })
    }

    /// Returns the factors of ‖g‖² and tr Σ.
    ///
    /// Within an epoch, E Hₛg_q = Hg − (½∇ tr Σ)/(N − 1) for the batches of two steps q < s, whatever their sizes, because they
    /// share no samples; for steps of different epochs it is Hg. In each step up to s, step q has moved θ by −ηβʳg_q with r ≥ 0.
    /// The gradient of step s acts on this and all later steps, with the weights βʳ.
    fn factors(&self, samples: usize) -> [f64; 2] {
        let (eta, beta) = (self.learning_rate, self.momentum);
        let steps = samples.div_ceil(self.batch_size);
        let full_batch = 0.25 * eta * (1.0 + beta) / (1.0 - beta).powi(2);
        if steps == 1 {
            return [full_batch, 0.0];
        }
        let (m, n) = (steps as f64, samples as f64);
        let pairs = (1..steps).map(|k| (steps - k) as f64 * (1.0 - beta.powi(k as i32)));
        let noise = 0.5 * eta * pairs.sum::<f64>() / (m * (n - 1.0) * (1.0 - beta));
        [full_batch, noise]
    }
}

/// Returns (N − B)/(B(N − 1)), the covariance of a batch gradient relative to that of a sample.
pub(super) fn batch_variance(samples: usize, batch_size: usize) -> f64 {
    let (n, b) = (samples as f64, batch_size as f64);
    if samples == batch_size {
        return 0.0;
    }
    (n - b) / (b * (n - 1.0))
}

pub(super) fn check_step(learning_rate: f64, batch_size: usize, samples: usize) -> Result<()> {
    check_positive(learning_rate, "the learning rate")?;
    if batch_size == 0 || batch_size > samples {
        return Err(Error::invalid(format!(
            "the batch size is {batch_size}: use 1 to {samples}, the number of samples"
        )));
    }
    Ok(())
}

impl ModifiedLoss {
    /// Returns the sum of the terms.
    pub fn total(&self) -> Estimate {
        Estimate {
            value: self.loss + self.full_batch + self.noise.value,
            ..self.noise
        }
    }
}
