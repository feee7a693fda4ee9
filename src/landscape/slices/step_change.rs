//! [`StepChange`]: the loss change of one step, predicted by the quadratic model and measured.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::vector::{axpy, dot};

/// Change of the loss by a step θ → θ − ηv: predicted to first and second order, and measured.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: the second-order prediction is exact.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let step = StepChange::measure(&objective, &objective.gradient()?, 0.25)?;
/// assert_eq!(step.first_order, -16.0); // −η‖g‖² with g = (0, 8)
/// assert_eq!((step.second_order, step.actual), (0.0, 0.0)); // from w = 1 to w = −1
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepChange {
    /// Learning rate η.
    pub learning_rate: f64,
    /// First-order prediction −ηgᵀv.
    pub first_order: f64,
    /// Second-order prediction −ηgᵀv + ½η²vᵀHv. For a smooth loss its error is of third order in η.
    pub second_order: f64,
    /// Measured change L(θ − ηv) − L(θ).
    pub actual: f64,
}

impl StepChange {
    /// Computes the change by a step of `learning_rate` along −`direction` from the model's current parameters. For gradient
    /// descent, `direction` is the gradient.
    ///
    /// # Errors
    /// `direction` has the wrong length or entries that are not finite; the learning rate or a loss is not finite.
    pub fn measure(objective: &Objective, direction: &[f64], learning_rate: f64) -> Result<Self> {
        if !learning_rate.is_finite() {
            return Err(Error::invalid(format!(
                "the learning rate is {learning_rate}: give a finite number"
            )));
        }
        let theta = objective.parameters().to_flat()?;
        objective
            .parameters()
            .check_vector(direction, "direction")?;
        let (_, gradient) = objective.gradient_at(&theta)?;
        let slope = dot(&gradient, direction);
        let hessian = objective.hessian().at(theta.clone())?;
        let curvature = dot(&hessian.apply(direction)?, direction);
        let mut moved = theta.clone();
        axpy(-learning_rate, direction, &mut moved);
        let first_order = -learning_rate * slope;
        Ok(Self {
            learning_rate,
            first_order,
            second_order: first_order + 0.5 * learning_rate.powi(2) * curvature,
            actual: objective.loss_at(&moved)? - objective.loss_at(&theta)?,
        })
    }
}

impl std::fmt::Display for StepChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the loss changes by {:.5e}; predicted {:.5e} (first order {:.5e})",
            self.actual, self.second_order, self.first_order
        )
    }
}
