//! Derivatives of the samples' losses, one by one.

use super::Objective;
use crate::error::{Result, check_finite};

impl Objective {
    /// ∇ℓᵢ·v for each sample i at the model's current point, by one forward pass with tangents. Without the L2 term, so their mean is
    /// ∇L·v without it.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// // The losses (w·x + b)² at x = ±2 have the gradients (0, 0) and (4, 8) in (b, w) at b = 1, w = ½.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// let objective = Objective::of(&line, &data, Loss::Mse)?;
    /// assert_eq!(objective.sample_derivatives(&[1.0, 1.0])?, [0.0, 12.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Shapes
    /// `direction` has the length of θ; the result has one entry per sample.
    ///
    /// # Errors
    /// A direction of the wrong length or not finite; derivatives that are not finite; an objective without hand-derived rules, see
    /// [`Objective::engine`].
    pub fn sample_derivatives(&self, direction: &[f64]) -> Result<Vec<f64>> {
        self.parameters.check_vector(direction, "direction")?;
        let engine = self.hand_derived("the derivative of each sample's loss")?;
        let found = engine.sample_derivatives(&self.point(None)?, &self.data, direction)?;
        check_finite(&found, "the derivative of the samples' losses")?;
        Ok(found)
    }

    /// Bounds on ‖∇ℓᵢ‖ for each sample, which are equal to it unless layers share parameters.
    ///
    /// # Errors
    /// As [`sample_derivatives`](Self::sample_derivatives).
    pub(crate) fn sample_gradient_norms(&self) -> Result<Vec<f64>> {
        let engine = self.hand_derived("the gradient of each sample")?;
        let found = engine.sample_gradient_norms(&self.point(None)?, &self.data)?;
        check_finite(&found, "the gradient of the samples")?;
        Ok(found)
    }
}
