//! Eigenvalues, their density and sums of them, by algorithms that see only a [`LinearOperator`].
//!
//! | question | answer |
//! | --- | --- |
//! | some eigenvalues with their vectors | [`Lanczos`]; [`PowerIteration`] to see how one comes about |
//! | all eigenvalues of a small matrix | [`Dense::eigen`] |
//! | how the eigenvalues of a large one are distributed | [`DensitySettings`] |
//! | tr(A), ‖A‖²_F | [`Trace`] |
//! | aᵢᵢ | [`Diagonal`] |
//! | tr(AB), the cosine between two matrices | [`Alignment`] |
//! | how much their leading eigenvectors share | [`Spectrum::subspace_overlap`] |

mod alignment;
mod density;
mod diagonal;
mod estimate;
mod full;
mod krylov;
mod lanczos;
mod power;
mod probe;
mod product;
mod remainder;
mod simple;
mod space;
mod spectrum;
#[cfg(feature = "tables")]
mod table;
mod trace;

pub use alignment::Alignment;
pub use density::{Count, Density, DensityCurve, DensitySettings, Quadrature};
pub use diagonal::Diagonal;
pub(crate) use estimate::Short;
pub use estimate::{Bracket, Estimate};
pub(crate) use full::symmetric_eigen;
pub use lanczos::{Lanczos, Which};
pub use power::{Power, PowerIteration};
pub use spectrum::{Eigenpair, Inertia, Participation, Rank, Spectrum};
pub use trace::{Trace, TraceMethod};

use crate::error::Result;
use crate::operator::{Dense, LinearOperator};

/// What every operator can be asked, with the usual settings.
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
    /// `k` = 0 or more than there are; those of the products.
    fn top(&self, k: usize) -> Result<Spectrum> {
        Lanczos::default().run(self, k)
    }

    /// How all eigenvalues are distributed, by [`DensitySettings`].
    ///
    /// # Errors
    /// Those of the products.
    fn density(&self) -> Result<Density> {
        DensitySettings::default().run(self)
    }

    /// tr(A), the sum of all eigenvalues, by [`Trace`].
    ///
    /// # Errors
    /// Those of the products.
    fn trace(&self) -> Result<Estimate> {
        Trace::default().trace(self)
    }

    /// ‖A‖²_F, the sum of all squared eigenvalues, by [`Trace`].
    ///
    /// # Errors
    /// Those of the products.
    fn frobenius_squared(&self) -> Result<Estimate> {
        Trace::default().frobenius_squared(self)
    }

    /// The whole matrix, for small ones; see [`Dense::of`].
    ///
    /// # Errors
    /// As [`Dense::of`].
    fn dense(&self) -> Result<Dense> {
        Dense::from_operator(self)
    }
}

impl<T: LinearOperator + ?Sized> Spectral for T {}
