//! Eigenvalues and eigenvectors, by algorithms that see only a [`LinearOperator`].

mod full;
mod lanczos;
mod spectrum;

pub use lanczos::Lanczos;
pub use spectrum::{Eigenpair, Inertia, Spectrum};

use crate::error::Result;
use crate::operator::{Dense, LinearOperator};

/// What every operator can be asked.
pub trait Spectral: LinearOperator {
    /// The `k` largest eigenvalues with their eigenvectors and residuals, by [`Lanczos`] with its
    /// usual settings.
    ///
    /// # Errors
    /// `k` = 0 or more than there are; those of the products.
    fn top(&self, k: usize) -> Result<Spectrum> {
        Lanczos::default().largest(self, k)
    }

    /// The whole matrix, for small ones; see [`Dense::of`].
    ///
    /// # Errors
    /// As [`Dense::of`].
    fn dense(&self) -> Result<Dense> {
        Dense::of(self)
    }
}

impl<T: LinearOperator + ?Sized> Spectral for T {}
