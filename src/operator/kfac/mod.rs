//! [`Kfac`]: Kronecker-factored approximations of the Gauss–Newton matrix.
//!
//! | file | contents |
//! | --- | --- |
//! | `eigenbasis` | a Kronecker product, or a matrix in its eigenbasis |
//! | `kronecker_factored` | the whole matrix and its damped inverse |

mod eigenbasis;
mod kronecker_factored;

#[cfg(test)]
mod tests;

pub use kronecker_factored::{KroneckerFactored, KroneckerInverse};

use serde::{Deserialize, Serialize};

use self::eigenbasis::Eigenbasis;
use crate::engine::RootColumns;
use crate::error::{Error, Result, check_finite};
use crate::memory;
use crate::objective::Objective;
use crate::progress::Progress;

/// Settings of a Kronecker-factored approximation of the Gauss–Newton matrix G (K-FAC: Martens and Grosse, "Optimizing Neural
/// Networks with Kronecker-factored Approximate Curvature", 2015).
///
/// The block of a layer y_t = W a_t + b, with rows a_t of its input at the positions t, is approximated by B ⊗ A:
///
/// A = (1/(nT)) Σᵢ Σ_t a aᵀ, B = (1/n) Σᵢ Σ_t Σ_c g gᵀ
///
/// over n samples and T positions, with a followed by 1 if there is a bias. g is the derivative with respect to y_t of the column c
/// of a root of the loss's curvature ∇²ℓ in the outputs. So both factors are those of G, not of the empirical Fisher matrix: the
/// targets do not enter. Blocks of different layers are zero. For cross-entropy and squared error G is the Fisher matrix.
///
/// - Convolutions have a position for each output pixel, and a holds the pixels under the kernel (KFC: Grosse and Martens, "A
///   Kronecker-factored Approximate Fisher Matrix for Convolution Layers", 2016). Each group of channels has its own block.
/// - Linear layers over several positions, such as those of attention, share weights in the same way. This is K-FAC-expand
///   (Eschenhagen et al., "Kronecker-Factored Approximate Curvature for Modern Neural Network Architectures", 2023).
/// - Layers that read the same input and are computed together have one block: query, key and value of an attention layer, gate and
///   hidden values of a gated perceptron.
/// - Other parameters get the diagonal of G: those of normalisation and embeddings, and those that several layers share. For the
///   latter it is the sum of the diagonals of the uses.
///
/// With the eigenvalue correction (EKFAC: George et al., "Fast Approximate Natural Gradient Descent in a Kronecker-factored
/// Eigenbasis", 2018), the eigenvalues of B ⊗ A are replaced by the diagonal of G in their eigenbasis. Of all matrices with these
/// eigenvectors, the result is the nearest to G's block in the Frobenius norm, with the same trace.
///
/// The L2 term is part of the matrix, as it is of G: 2λI.
///
/// ```
/// use loss_landscape::operator::Kfac;
/// use loss_landscape::prelude::*;
///
/// // For a linear layer and squared error, G is exactly I ⊗ A times a constant.
/// let data = teacher_student(20, &[3, 2], 0.1, 0, &Device::Cpu)?.data;
/// let model = Mlp::new(&[3, 2], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?.with_l2(0.1)?;
/// let approximated = Kfac::default().run(&objective)?;
/// let v = direction::gaussian(model.parameters(), 0);
/// let product = objective.gauss_newton().apply(&v)?;
/// for (a, b) in approximated.apply(&v)?.iter().zip(&product) {
///     assert!((a - b).abs() < 1e-12);
/// }
/// let solved = approximated.inverse(0.0)?.apply(&product)?;
/// assert!(solved.iter().zip(&v).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Kfac {
    /// Whether eigenvalues are corrected, which takes a second pass over the samples.
    pub eigenvalue_correction: bool,
    /// Largest number of backward passes for each sample. If samples have at most as many outputs, each column of the root has its
    /// own pass. Otherwise the columns are added with random signs, which leaves the factors unbiased.
    pub max_passes: usize,
    /// Seed of these signs.
    pub seed: u64,
}

impl Default for Kfac {
    /// With corrected eigenvalues, at most 32 backward passes, seed 0.
    fn default() -> Self {
        Self {
            eigenvalue_correction: true,
            max_passes: 32,
            seed: 0,
        }
    }
}

impl Kfac {
    /// Sets whether eigenvalues are corrected (EKFAC) or products of the factors' (K-FAC).
    #[must_use]
    pub fn with_eigenvalue_correction(mut self, correction: bool) -> Self {
        self.eigenvalue_correction = correction;
        self
    }

    /// Sets the largest number of backward passes for each sample.
    #[must_use]
    pub fn with_max_passes(mut self, passes: usize) -> Self {
        self.max_passes = passes;
        self
    }

    /// Sets the seed of the signs with which columns are added, if samples have more outputs than passes.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Approximates the Gauss–Newton matrix at the model's current θ. The result does not follow the model.
    ///
    /// # Errors
    /// No passes; too little memory; factors that are not finite; an objective without hand-derived rules, see
    /// [`Objective::engine`]; samples that are divided among ranks or read in parts.
    pub fn run(&self, objective: &Objective) -> Result<KroneckerFactored> {
        if self.max_passes == 0 {
            return Err(Error::invalid(
                "max_passes is 0: allow at least one backward pass",
            ));
        }
        let outputs = objective.outputs_per_sample()?;
        let columns = match outputs <= self.max_passes {
            true => RootColumns::All,
            false => RootColumns::Signs {
                passes: self.max_passes,
                seed: self.seed,
            },
        };
        let mut progress = Progress::start("Kronecker factors");
        let point = objective.point(None)?;
        let factors = objective.curvature_factors(&point, columns)?;
        check_finite(&factors.diagonal, "the diagonal of the Gauss–Newton matrix")?;
        let numbers = factors.blocks.iter().map(|block| {
            let [inputs, outputs] = [block.inputs, block.outputs].map(|n| n as f64);
            inputs * inputs + outputs * outputs + inputs * outputs
        });
        memory::check(
            8.0 * numbers.sum::<f64>(),
            "the eigenvectors of the factors",
        )?;
        let count = factors.blocks.len();
        let mut bases = Vec::with_capacity(count);
        for block in factors.blocks {
            bases.push(Eigenbasis::new(block)?);
            progress.part(bases.len(), count);
        }
        if self.eigenvalue_correction {
            let vectors: Vec<_> = bases.iter().map(Eigenbasis::vectors).collect();
            let corrected = objective.diagonal_in_bases(&point, columns, &vectors)?;
            for (basis, values) in bases.iter_mut().zip(corrected) {
                check_finite(&values, "the corrected eigenvalues")?;
                basis.values = values;
            }
        }
        Ok(KroneckerFactored::new(
            bases,
            factors.diagonal,
            2.0 * objective.l2(),
            factors.passes,
        ))
    }
}
