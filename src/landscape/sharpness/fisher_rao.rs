//! [`FisherRaoNorm`]: the length of the parameters in the metric of the Fisher matrix.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::spectral::Bracket;
use crate::vector::{dot, norm};

/// The squared Fisher–Rao norm θᵀFθ (Liang, Poggio, Rakhlin and Stokes, "Fisher-Rao Metric, Geometry, and Complexity of Neural
/// Networks", 2019). It does not change under rescalings of layers that leave the function unchanged.
///
/// For a ReLU network with L layers and no biases, θ·∇f = Lf for the outputs f. Then it is L² times the mean square of
/// ⟨f, ∂ℓ/∂f⟩.
///
/// ```
/// use loss_landscape::landscape::FisherRaoNorm;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: the per-sample gradients at (0, 1) are 2(b ± 2w)(1, ±2) = (±4, 8), so that θ·g = 8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let found = FisherRaoNorm::measure(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert!((found.empirical.value - 64.0).abs() < 1e-9);
/// assert!((found.gauss_newton.value - 8.0).abs() < 1e-9); // 2 · (2w)²
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FisherRaoNorm {
    /// (1/n) Σ (θ·∇ℓᵢ)² with the gradients of the samples' own targets. It is 0 where the loss of each sample has a minimum.
    pub empirical: Bracket,
    /// θᵀGθ with the Gauss-Newton matrix G, which is the Fisher matrix of the model's distribution for cross-entropy.
    pub gauss_newton: Bracket,
}

impl FisherRaoNorm {
    /// Computes both at the model's θ, from two products. Bounds are those of rounding. The penalty λ‖θ‖² is left out.
    ///
    /// # Errors
    /// A product that fails or is not finite; an objective with batch statistics.
    pub fn measure(objective: &Objective) -> Result<Self> {
        let theta = objective.parameters().to_flat()?;
        let loss = objective.clone().with_l2(0.0)?;
        let quadratic = |matrix: &dyn LinearOperator| -> Result<Bracket> {
            let product = matrix.apply(&theta)?;
            let error = matrix.epsilon() * norm(&theta) * norm(&product);
            Ok(Bracket::around(dot(&theta, &product), 4.0 * error))
        };
        Ok(Self {
            empirical: quadratic(&loss.empirical_fisher().at(theta.clone())?)?,
            gauss_newton: quadratic(&loss.gauss_newton().at(theta.clone())?)?,
        })
    }
}

impl std::fmt::Display for FisherRaoNorm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "squared Fisher-Rao norm: {} with the targets, {} with the model's distribution",
            self.empirical, self.gauss_newton
        )
    }
}
