//! [`StableRate`]: learning rates for which gradient descent is stable.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::objective::Objective;
use crate::spectral::{Bracket, Lanczos, Which};

/// Learning rates for which gradient descent is stable on the quadratic model of the loss.
///
/// On a quadratic loss, gradient descent converges for η < 2/λ_max and diverges above. On networks, full-batch gradient
/// descent at a fixed η often drifts to where 2/λ_max ≈ η, and stays there without diverging (Cohen et al., "Gradient
/// Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² with λ_max = 8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let rate = StableRate::estimate(&objective)?;
/// assert!((rate.limit.value - 0.25).abs() < 1e-6 && (rate.sharpest_step - 0.125).abs() < 1e-6);
/// let change =
///     |rate| Ok::<_, Error>(StepChange::measure(&objective, &objective.gradient()?, rate)?.actual);
/// assert!(change(0.24)? < 0.0 && change(0.26)? > 0.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StableRate {
    /// Largest eigenvalue λ_max of the Hessian, with its error.
    pub largest: Bracket,
    /// Stability limit 2/λ_max; infinite if no direction curves upwards.
    pub limit: Bracket,
    /// 1/λ_max: minimises a quadratic loss along its sharpest direction in one step.
    pub sharpest_step: f64,
}

impl StableRate {
    /// Estimates the rates from the Hessian at the model's current parameters.
    ///
    /// # Errors
    /// A Hessian–vector product fails.
    pub fn estimate(objective: &Objective) -> Result<Self> {
        let lanczos = Lanczos {
            which: Which::Largest,
            ..Lanczos::default()
        };
        let top = lanczos.run(&objective.hessian(), 1)?;
        let largest = top.pairs[0].bracket();
        let rate = |curvature: f64| match curvature > 0.0 {
            true => 2.0 / curvature,
            false => f64::INFINITY,
        };
        Ok(Self {
            largest,
            limit: Bracket {
                value: rate(largest.value),
                low: rate(largest.high),
                high: rate(largest.low),
            },
            sharpest_step: 0.5 * rate(largest.value),
        })
    }
}

impl std::fmt::Display for StableRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "λ_max = {}; on the quadratic model, gradient descent is stable below η = 2/λ_max = {}",
            self.largest, self.limit
        )
    }
}
