//! [`Sgd`]: stochastic gradient descent with momentum.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::optimizer::{Optimizer, SliceUpdate, Step};
use crate::error::{Error, Result};
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;

/// Stochastic gradient descent, with momentum μ: b ← μb + g, θ ← θ − ηb (Polyak, 1964).
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::Sgd;
///
/// // Two steps on L(b, w) = b² + 4w² from (1, 0): g = 2 and b ← 0.5 · 2 + 1.5.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.0])?;
/// Trainer::new(Sgd::default().with_momentum(0.5), 0.125)
///     .with_epochs(2)
///     .fit(&line, &data, &data)?;
/// let expected = 1.0 - 0.125 * 2.0 - 0.125 * (0.5 * 2.0 + 1.5);
/// assert!((line.parameters().to_flat()?[0] - expected).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Sgd {
    /// μ, in [0, 1).
    pub momentum: f64,
    /// Whether to take Nesterov's step θ ← θ − η(g + μb).
    pub nesterov: bool,
}

impl Sgd {
    /// Sets the momentum μ, in [0, 1).
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets whether the step is Nesterov's, θ ← θ − η(g + μb) (Sutskever et al., 2013).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # use loss_landscape::train::Sgd;
    /// // One step on L(b, w) = b² + 4w² from (1, 0), where b ← g: θ − η (g + μg).
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.0])?;
    /// let sgd = Sgd::default().with_momentum(0.5).with_nesterov(true);
    /// Trainer::new(sgd, 0.125).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[0] - (1.0 - 0.125 * 1.5 * 2.0)).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }
}

impl Optimizer for Sgd {
    fn settings(&self) -> Value {
        json!({ "Sgd": self })
    }

    fn check(&self) -> Result<()> {
        match (0.0..1.0).contains(&self.momentum) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "a momentum of {} does not converge: give a number from 0 to below 1",
                self.momentum
            ))),
        }
    }

    fn num_moments(&self) -> usize {
        1
    }

    fn update(
        &self,
        theta: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        step: Step,
    ) -> candle_core::Result<Tensor> {
        if self.momentum == 0.0 {
            return theta - (gradient * step.learning_rate)?;
        }
        let b = ((&moments[0] * self.momentum)? + gradient)?;
        let direction = match self.nesterov {
            true => (gradient + (&b * self.momentum)?)?,
            false => b.clone(),
        };
        moments[0] = b;
        theta - (direction * step.learning_rate)?
    }

    fn slice_update(&self) -> Option<&dyn SliceUpdate> {
        Some(self)
    }
}

impl Sgd {
    fn update_slice<T: Scalar>(
        &self,
        theta: &mut [T],
        g: &[T],
        moments: &mut [&mut [T]],
        step: Step,
    ) {
        let nesterov = f64::from(u8::from(self.nesterov));
        let rule = [step.learning_rate, self.momentum, nesterov].map(Scalar::from_f64);
        sgd(theta, g, moments[0], rule);
    }
}

impl SliceUpdate for Sgd {
    fn update_f32(
        &self,
        theta: &mut [f32],
        gradient: &[f32],
        moments: &mut [&mut [f32]],
        step: Step,
    ) {
        self.update_slice(theta, gradient, moments, step);
    }

    fn update_f64(
        &self,
        theta: &mut [f64],
        gradient: &[f64],
        moments: &mut [&mut [f64]],
        step: Step,
    ) {
        self.update_slice(theta, gradient, moments, step);
    }
}

vectorised! {
    /// `rule`: learning rate, momentum, and 1 for Nesterov's step or 0.
    fn sgd<T: Scalar>(theta: &mut [T], g: &[T], b: &mut [T], rule: [T; 3]) {
        let [rate, momentum, nesterov] = rule;
        for ((t, g), b) in theta.iter_mut().zip(g).zip(b) {
            *b = momentum * *b + *g;
            let step = *b + nesterov * (*g + (momentum - T::ONE) * *b);
            *t = *t - rate * step;
        }
    }
}
