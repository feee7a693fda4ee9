//! [`Dense::eigen`]: all eigenpairs of a matrix in memory.

use super::{Eigenpair, Rank, Spectrum};
use crate::error::Result;
use crate::kernels::{symmetric_eigen, symmetric_eigenvalues};
use crate::operator::{Dense, LinearOperator};
use crate::progress;
use crate::vector::{axpy, largest, norm};

impl Dense {
    /// Computes all eigenpairs. Each residual is ‖Av − λv‖ plus a bound on the change of an eigenvalue by rounding: the matrix's
    /// [`asymmetry`](Self::asymmetry), nε‖A‖ for the sums, and 4ε‖A‖_F if the entries were computed in `f32`.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// let spectrum = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?;
    /// for (pair, exact) in spectrum.pairs.iter().zip([3.0, 1.0]) {
    ///     assert!((pair.value - exact).abs() <= pair.residual && pair.residual < 1e-14);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// An eigenvalue iteration that does not converge; [`Error::Interrupted`](crate::error::Error::Interrupted).
    pub fn eigen(&self) -> Result<Spectrum> {
        let n = self.dim();
        let (values, vectors) = symmetric_eigen(n, |i, j| self.matrix()[[i, j]])?;
        let rounding = self.rounding(&values)?;
        let pairs =
            values
                .into_iter()
                .zip(vectors)
                .rev()
                .enumerate()
                .map(|(i, (value, vector))| {
                    progress::check()?;
                    let mut residual = self.apply(&vector)?;
                    axpy(-value, &vector, &mut residual);
                    Ok(Eigenpair {
                        value,
                        residual: norm(&residual) + self.asymmetry() + rounding,
                        vector,
                        rank: Some(Rank {
                            index: i + 1,
                            error: 0.0,
                        }),
                    })
                });
        Ok(Spectrum {
            pairs: pairs.collect::<Result<_>>()?,
            dim: n,
            products: n,
            converged: true,
        })
    }

    /// Computes the eigenvalues, ascending, and a bound on their errors, as that of [`eigen`](Self::eigen).
    pub(super) fn eigenvalues(&self) -> Result<(Vec<f64>, f64)> {
        let n = self.dim();
        let values = symmetric_eigenvalues(n, |i, j| self.matrix()[[i, j]])?;
        let error = self.asymmetry() + self.rounding(&values)?;
        Ok((values, error))
    }

    /// Bound on the change of an eigenvalue by rounding of the entries and of the decomposition.
    fn rounding(&self, values: &[f64]) -> Result<f64> {
        let epsilon = self.epsilon();
        // The rounding of the sums is larger than that of entries in `f64`.
        let entries = match epsilon > f64::EPSILON {
            true => norm(values),
            false => 0.0,
        };
        let sums = values.len() as f64 * f64::EPSILON * largest(values);
        Ok(sums + 4.0 * epsilon * (entries + self.cancellation()?))
    }
}
