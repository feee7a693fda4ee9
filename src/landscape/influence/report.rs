//! [`InfluenceReport`]: the influence of each training sample, with its error.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::InfluenceSolver;
use crate::error::counted;
use crate::spectral::Short;

/// The influence of each training sample on a test loss.
///
/// ```
/// use loss_landscape::landscape::Influence;
/// use loss_landscape::prelude::*;
///
/// // L(w) = ½(w − 1)² + ½(w − 3)² at its minimum w = 2, and L_test(w) = w². Per sample ∇ℓ = ±2, G = 2, ∇L_test = 4.
/// let x = Tensor::new(&[[1.0], [1.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &Tensor::new(&[[1.0], [3.0]], &Device::Cpu)?)?;
/// let test = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Layered::new(
///     vec![loss_landscape::layers::Linear::without_bias("w").into()],
///     Parameters::new([("w".to_owned(), Var::new(&[[2.0]], &Device::Cpu)?)])?,
/// );
/// let objective = Objective::of(&line, &data, Loss::Mse)?;
/// let found = Influence::default().with_damping(1e-9).run(&objective, &test)?;
/// assert!((found.values[0] + 2.0).abs() < 1e-6 && (found.values[1] - 2.0).abs() < 1e-6);
/// assert_eq!(found.ranking(), [0, 1]); // the most helpful sample first
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InfluenceReport {
    /// Iᵢ for each training sample: the estimated change of the test loss if it counted once more. Without the sample, the test loss
    /// changes by about −Iᵢ.
    pub values: Vec<f64>,
    /// Bound on the numerical error of each Iᵢ: ‖∇ℓᵢ‖ ‖r‖/(nμ) for the residual r of the linear system and the smallest eigenvalue of
    /// its matrix, of which the damping plus twice the L2 strength, μ, is a lower bound; plus rounding. It is often far larger than
    /// the error. It does not contain the error of the linear approximation itself.
    pub errors: Vec<f64>,
    /// Number of test samples.
    pub test_samples: usize,
    /// Mean loss of the test samples.
    pub test_loss: f64,
    /// ‖∇L‖ of the training objective, 0 at a minimum.
    pub gradient_norm: f64,
    /// Damping λ.
    pub damping: f64,
    /// How the linear system was solved.
    pub solver: InfluenceSolver,
    /// Residual of the linear system, relative to its right-hand side ∇L_test.
    pub relative_residual: f64,
    /// Number of products with the Gauss–Newton matrix.
    pub products: usize,
    /// Whether the relative residual is at most the tolerance.
    pub converged: bool,
}

/// A solution of the linear system.
pub(super) struct Solved {
    pub(super) x: Vec<f64>,
    /// With its rounding.
    pub(super) residual: f64,
    pub(super) relative_residual: f64,
    pub(super) products: usize,
}

impl InfluenceReport {
    /// Indices of the samples by their influence, ascending: the most helpful ones first, the most harmful ones last.
    pub fn ranking(&self) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.values.len()).collect();
        indices.sort_by(|i, j| self.values[*i].total_cmp(&self.values[*j]));
        indices
    }
}

impl fmt::Display for InfluenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "influence of {} on the loss of {}",
            counted(self.values.len(), "sample"),
            counted(self.test_samples, "test sample")
        )?;
        let ranking = self.ranking();
        if let (Some(first), Some(last)) = (ranking.first(), ranking.last()) {
            let [low, high] = [first, last].map(|i| Short(self.values[*i]));
            write!(
                f,
                ": {low:.3} (sample {first}) to {high:.3} (sample {last})"
            )?;
        }
        let error = self
            .errors
            .iter()
            .fold(0.0, |most: f64, error| most.max(*error));
        write!(
            f,
            ", error at most {:.1}; {}converged: relative residual {:.1} after {}, damping {:.2}",
            Short(error),
            if self.converged { "" } else { "not " },
            Short(self.relative_residual),
            counted(self.products, "product"),
            Short(self.damping)
        )
    }
}
