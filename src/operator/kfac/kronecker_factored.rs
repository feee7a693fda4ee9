//! [`KroneckerFactored`]: a matrix of Kronecker-factored blocks, and its damped inverse.

use std::sync::Arc;

use rayon::prelude::*;

use super::eigenbasis::Eigenbasis;
use crate::error::{Error, Result, check_finite};
use crate::operator::{LinearOperator, check_length};

/// An approximation of the Gauss–Newton matrix by [`Kfac`](super::Kfac): blocks that are diagonal in the eigenbases of Kronecker
/// products, and a diagonal for the other parameters. It is constant and does not follow the model.
///
/// Products take O(Σ inputs · outputs · (inputs + outputs)) operations over the layers, without a pass over the samples. So do
/// exact products with the inverse of the matrix plus λI, for any λ.
#[derive(Clone, Debug)]
pub struct KroneckerFactored {
    pub(super) parts: Arc<Parts>,
}

#[derive(Debug)]
pub(super) struct Parts {
    pub(super) blocks: Vec<Eigenbasis>,
    /// Length of θ. Entries within blocks are not used.
    pub(super) diagonal: Vec<f64>,
    /// Whether an entry of θ is in a block.
    is_in_block: Vec<bool>,
    /// Multiple of the identity that is added.
    shift: f64,
    passes: usize,
}

impl KroneckerFactored {
    pub(super) fn new(
        blocks: Vec<Eigenbasis>,
        diagonal: Vec<f64>,
        shift: f64,
        passes: usize,
    ) -> Self {
        let mut is_in_block = vec![false; diagonal.len()];
        for range in blocks.iter().flat_map(Eigenbasis::ranges) {
            is_in_block[range.clone()].fill(true);
        }
        Self {
            parts: Arc::new(Parts {
                blocks,
                diagonal,
                is_in_block,
                shift,
                passes,
            }),
        }
    }

    /// All eigenvalues, descending, L2 term included.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let Parts {
            blocks,
            diagonal,
            is_in_block,
            shift,
            ..
        } = &*self.parts;
        let others = diagonal.iter().zip(is_in_block);
        let others = others.filter(|(_, in_block)| !**in_block).map(|(d, _)| d);
        let of_blocks = blocks.iter().flat_map(|block| &block.values);
        let mut values: Vec<f64> = of_blocks.chain(others).map(|value| value + shift).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    /// Number of backward passes for each sample.
    pub fn passes(&self) -> usize {
        self.parts.passes
    }

    /// (A + λI)⁻¹ for this matrix A and a damping λ, as an operator: a preconditioner of
    /// [`ConjugateGradients`](crate::spectral::ConjugateGradients). The inverse is exact.
    ///
    /// # Errors
    /// A damping that is not finite, or with which the matrix is not positive definite.
    pub fn inverse(&self, damping: f64) -> Result<KroneckerInverse> {
        check_finite(&[damping], "the damping")?;
        let eigenvalues = self.eigenvalues();
        let [largest, smallest] = [eigenvalues.first(), eigenvalues.last()]
            .map(|value| value.copied().unwrap_or_default());
        if smallest + damping <= f64::EPSILON * (largest + damping) {
            return Err(Error::invalid(format!(
                "the eigenvalues are between {smallest:.1e} and {largest:.1e}: with a damping of {damping:e} there is no inverse; \
                 use a larger damping, such as {:.0e}",
                1e-3 * largest.max(1e-6)
            )));
        }
        Ok(KroneckerInverse {
            matrix: self.clone(),
            damping,
        })
    }

    /// The product with the matrix that has the same eigenvectors and `f` of each eigenvalue.
    fn apply_function(&self, v: &[f64], f: impl Fn(f64) -> f64 + Sync) -> Result<Vec<f64>> {
        let Parts {
            blocks,
            diagonal,
            shift,
            ..
        } = &*self.parts;
        check_length(v, diagonal.len())?;
        check_finite(v, "the vector")?;
        let f = |value: f64| f(value + shift);
        let mut product: Vec<f64> = v.iter().zip(diagonal).map(|(v, d)| v * f(*d)).collect();
        let of_blocks = blocks.par_iter().map(|block| block.apply(v, f));
        let of_blocks: Vec<_> = of_blocks.collect();
        for (block, gathered) in blocks.iter().zip(of_blocks) {
            block.scatter(&gathered, &mut product);
        }
        Ok(product)
    }
}

impl LinearOperator for KroneckerFactored {
    fn dim(&self) -> usize {
        self.parts.diagonal.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        self.apply_function(v, |value| value)
    }
}

/// (A + λI)⁻¹ for a [`KroneckerFactored`] A and a damping λ.
///
/// ```
/// use loss_landscape::operator::{Kfac, Shifted};
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::ConjugateGradients;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let (damping, b) = (1e-3, objective.gradient()?);
/// let damped = Shifted::new(objective.gauss_newton(), damping)?;
/// let inverse = Kfac::default().run(&objective)?.inverse(damping)?;
/// let cg = ConjugateGradients::default();
/// let solved = cg.solve_preconditioned(&damped, &inverse, &b)?;
/// assert!(solved.verdict.is_converged(), "{solved}");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KroneckerInverse {
    matrix: KroneckerFactored,
    damping: f64,
}

impl LinearOperator for KroneckerInverse {
    fn dim(&self) -> usize {
        self.matrix.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        self.matrix
            .apply_function(v, |value| 1.0 / (value + self.damping))
    }
}
