//! [`SamStep`]: the ascent step of sharpness-aware minimisation.

use serde::{Deserialize, Serialize};

use super::Sharpness;
use crate::error::Result;
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::vector::{dot, norm, scale};

/// Ascent step of sharpness-aware minimisation (Foret et al., "SAM", 2021): δ = ρ T²g / ‖Tg‖, the worst perturbation to
/// first order.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: the second-order prediction is exact.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let step = Sharpness::new(0.5).sam(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert_eq!(step.perturbation, [0.0, 0.5]); // along the gradient (0, 8)
/// assert_eq!(
///     (step.first_order, step.second_order, step.rise),
///     (4.0, 5.0, 5.0)
/// );
/// assert_eq!(step.gradient, [0.0, 12.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SamStep {
    /// Measured rise L(θ + δ) − L(θ).
    pub rise: f64,
    /// First-order prediction ρ‖Tg‖.
    pub first_order: f64,
    /// Second-order prediction ρ‖Tg‖ + ½δᵀHδ; for T = 1 it is ρ‖g‖ + ρ² gᵀHg / 2‖g‖².
    pub second_order: f64,
    /// Perturbation δ, shape `(d,)`; 0 where the gradient is 0.
    pub perturbation: Vec<f64>,
    /// ∇L(θ + δ), shape `(d,)`: the gradient of a training step with SAM.
    pub gradient: Vec<f64>,
    /// Rounding error of the loss in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Radius ρ.
    pub radius: f64,
}

impl Sharpness {
    /// Computes the ascent step of sharpness-aware minimisation.
    ///
    /// # Errors
    /// The radius is not positive; the loss or gradient at the perturbed point is not finite.
    pub fn sam(&self, objective: &Objective) -> Result<SamStep> {
        let ball = self.ball(objective)?;
        let (_, gradient) = objective.gradient_at(&ball.theta)?;
        let mut u = ball.perturbation(&gradient);
        let slope = norm(&u);
        if slope > 0.0 {
            scale(&mut u, self.radius / slope);
        }
        let perturbation = ball.perturbation(&u);
        let curvature = dot(&ball.hessian(objective)?.apply(&u)?, &u);
        let (loss, gradient) = objective.gradient_at(&ball.point(&u))?;
        let first_order = self.radius * slope;
        Ok(SamStep {
            rise: loss - ball.center,
            first_order,
            second_order: first_order + 0.5 * curvature,
            perturbation,
            gradient,
            rounding: ball.rounding,
            radius: self.radius,
        })
    }
}

impl std::fmt::Display for SamStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a step of {} along the gradient raises the loss by {:.5e}; predicted {:.5e} (first \
             order {:.5e})",
            self.radius, self.rise, self.second_order, self.first_order
        )
    }
}
