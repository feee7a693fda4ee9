//! Eigenvalues, spectral densities, traces and diagonals, by algorithms that use only the products of a [`LinearOperator`].
//!
//! | quantity | algorithm |
//! | --- | --- |
//! | some eigenpairs | [`Lanczos`]; [`PowerIteration`], slower, to show each step |
//! | some eigenpairs of a matrix that changes from point to point | [`Following`] |
//! | all eigenpairs of a small matrix | [`Dense::eigen`] |
//! | spectral density of a large matrix | [`DensitySettings`] |
//! | spectra of the diagonal blocks of a matrix | [`BlockSettings`] |
//! | distance between two densities | [`Density::js_distance`] |
//! | tr(A), ‖A‖²_F | [`Trace`] |
//! | aᵢᵢ | [`Diagonal`] |
//! | tr(AB), the cosine between two matrices | [`Alignment`] |
//! | solution of Ax = b | [`ConjugateGradients`] |
//! | exponent of the bulk's power law | [`PowerLawSettings`], [`Spectrum::power_law`] |
//! | overlap of the leading eigenvectors of two matrices, and the angles between them | [`Spectrum::subspace_overlap`], [`Spectrum::principal_angles`] |
//! | number of outliers | [`OutlierTest`] |

mod alignment;
mod arrays;
mod basis_blocks;
mod block_checkpoint;
mod block_spectra;
mod conjugate_gradients;
mod deflated_trace;
mod dense_eigen;
mod density;
mod density_band;
mod diagonal;
mod edge_gaps;
mod effective_dimension;
mod estimate;
mod following;
mod js_distance;
mod lanczos;
mod missed_eigenvalues;
mod orthonormal;
mod outliers;
mod power_iteration;
mod power_law;
mod power_law_tail;
mod principal_angles;
mod probe_loop;
mod schur_complement;
mod secant_model;
mod simple_eigenvalues;
mod spectrum;
#[cfg(feature = "tables")]
mod table;
mod tail_alternatives;
mod thick_restart;
mod trace;

pub use alignment::Alignment;
pub use block_spectra::{BlockSettings, BlockSpectra, BlockSpectrum, JsDistances};
pub use conjugate_gradients::{ConjugateGradients, LinearSolution, SolverVerdict};
pub(crate) use deflated_trace::rounding;
pub use density::{Count, Density, DensityCurve, DensitySettings, Quadrature};
pub use diagonal::Diagonal;
pub(crate) use estimate::Short;
pub use estimate::{Bracket, Estimate};
pub use following::{Followed, Following};
pub use lanczos::{Lanczos, Which};
pub(crate) use orthonormal::products as dot_products;
pub use outliers::{OutlierCount, OutlierTest};
pub use power_iteration::{PowerIteration, PowerResult};
pub use power_law::{PowerLaw, PowerLawSettings};
pub use spectrum::{Eigenpair, Inertia, Participation, Rank, Spectrum};
pub use tail_alternatives::TailComparison;
pub use trace::{Trace, TraceMethod};

use crate::error::Result;
use crate::operator::{Dense, LinearOperator};

/// Methods of every operator: each algorithm with its default settings.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&array![3.0, 1.0, 0.0, -2.0]))?;
/// assert!((a.top(1)?.pairs[0].value - 3.0).abs() < 1e-10);
/// assert!((a.trace()?.value - 2.0).abs() < 1e-10);
/// assert!((a.frobenius_squared()?.value - 14.0).abs() < 1e-10);
/// assert_eq!(a.dense()?, a);
/// assert_eq!(a.density()?.dim, 4);
/// # Ok::<(), Error>(())
/// ```
pub trait Spectral: LinearOperator {
    /// The `k` largest eigenvalues with their eigenvectors and residuals, by [`Lanczos`].
    ///
    /// # Errors
    /// `k` = 0 or `k` > n; failed products.
    fn top(&self, k: usize) -> Result<Spectrum> {
        Lanczos::default().run(&self, k)
    }

    /// The spectral density, by [`DensitySettings`].
    ///
    /// # Errors
    /// Failed products.
    fn density(&self) -> Result<Density> {
        DensitySettings::default().run(&self)
    }

    /// tr(A), the sum of all eigenvalues, by [`Trace`].
    ///
    /// # Errors
    /// Failed products.
    fn trace(&self) -> Result<Estimate> {
        Trace::default().trace(&self)
    }

    /// ‖A‖²_F, the sum of all squared eigenvalues, by [`Trace`].
    ///
    /// # Errors
    /// Failed products.
    fn frobenius_squared(&self) -> Result<Estimate> {
        Trace::default().frobenius_squared(&self)
    }

    /// The solution x of Ax = b for a positive definite matrix, by [`ConjugateGradients`].
    ///
    /// # Errors
    /// As [`ConjugateGradients::solve`].
    fn solve(&self, b: &[f64]) -> Result<LinearSolution> {
        ConjugateGradients::default().solve(&self, b)
    }

    /// All entries of a small matrix; see [`Dense::from_operator`].
    ///
    /// # Errors
    /// As [`Dense::from_operator`].
    fn dense(&self) -> Result<Dense> {
        Dense::from_operator(&self)
    }
}

impl<T: LinearOperator + ?Sized> Spectral for T {}
