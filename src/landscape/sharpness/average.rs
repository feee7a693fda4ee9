//! [`AverageSharpness`]: mean increase of the loss over a sphere and over a Gaussian.

use serde::{Deserialize, Serialize};

use super::{Sharpness, trace, write_rounding};
use crate::error::Result;
use crate::objective::Objective;
use crate::random::Purpose;
use crate::spectral::Estimate;
use crate::vector::norm;

/// Mean rise E L(θ + δ) − L(θ): measured, and predicted by the quadratic model.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + w²: the rise is the same everywhere on a sphere around the minimum.
/// let x = Tensor::new(&[[-1.0], [1.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let sphere = Sharpness::new(0.5).average(&objective)?;
/// assert!((sphere.mean.value - 0.25).abs() < 1e-9 && sphere.mean.standard_error < 1e-9);
/// assert!((sphere.quadratic.value - 0.25).abs() < 1e-9); // ρ² tr H/2n
/// let cloud = Sharpness::new(0.5).gaussian(&objective)?.mean;
/// assert!((cloud.value - 0.25).abs() < 5.0 * cloud.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AverageSharpness {
    /// Mean over random pairs ±δ, which cancel the slope. Its error includes [`rounding`](Self::rounding).
    pub mean: Estimate,
    /// ρ² tr(THT) / 2n, the mean for a quadratic loss.
    pub quadratic: Estimate,
    /// Rounding error of the loss in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Radius ρ.
    pub radius: f64,
    /// L(θ).
    pub center: f64,
}

impl Sharpness {
    /// Computes the mean rise over the sphere ‖u‖ = ρ.
    ///
    /// # Errors
    /// As [`Sharpness::random`]; a Hessian–vector product fails.
    pub fn average(&self, objective: &Objective) -> Result<AverageSharpness> {
        self.mean(objective, Purpose::SphereSharpness, |u| {
            self.radius / norm(u)
        })
    }

    /// Computes the mean rise over Gaussian u = σz with σ = ρ/√n, so that E‖u‖² = ρ². For a quadratic loss it is
    /// σ² tr(THT) / 2.
    ///
    /// # Errors
    /// As [`Sharpness::average`].
    pub fn gaussian(&self, objective: &Objective) -> Result<AverageSharpness> {
        let n = objective.dim() as f64;
        self.mean(objective, Purpose::GaussianSharpness, |_| {
            self.radius / n.sqrt()
        })
    }

    /// Computes the mean rise over standard normal vectors, each scaled by `factor`.
    fn mean(
        &self,
        objective: &Objective,
        purpose: Purpose,
        factor: impl Fn(&[f64]) -> f64,
    ) -> Result<AverageSharpness> {
        let ball = self.ball(objective)?;
        let rises = self.rises(("average sharpness", purpose), objective, &ball, factor)?;
        let trace = trace(&ball.hessian(objective)?, self.seed)?;
        Ok(AverageSharpness {
            mean: ball.mean(&rises),
            quadratic: trace.scaled(self.radius.powi(2) / (2.0 * ball.theta.len() as f64)),
            rounding: ball.rounding,
            radius: self.radius,
            center: ball.center,
        })
    }
}

impl std::fmt::Display for AverageSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b] = [self.mean, self.quadratic].map(|e| (e.value, e.standard_error));
        write!(
            f,
            "mean rise {:.5e} ± {:.1e} at distance {}; by the quadratic model {:.5e} ± {:.1e}",
            a.0, a.1, self.radius, b.0, b.1
        )?;
        write_rounding(f, self.rounding, a.1)
    }
}
