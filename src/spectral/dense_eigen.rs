//! [`Dense::eigen`]: all eigenpairs of a matrix in memory.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par, Spec};

use super::{Eigenpair, Rank, Spectrum};
use crate::error::{Error, Result};
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
    /// An eigenvalue iteration that does not converge; [`Error::Interrupted`].
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
        let matrix = Mat::from_fn(n, n, |i, j| self.matrix()[[i, j]]);
        let values = match n < LARGE {
            true => decompose(&matrix, ComputeEigenvectors::No)?.0,
            false => {
                let work = move || decompose(&matrix, ComputeEigenvectors::No);
                progress::abandon_on_interrupt(work)??.0
            }
        };
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

/// Computes the eigenvalues, ascending, and eigenvectors of the symmetric n × n matrix with these entries.
pub(crate) fn symmetric_eigen(
    n: usize,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let matrix = Mat::from_fn(n, n, entry);
    match n < LARGE {
        true => decompose(&matrix, ComputeEigenvectors::Yes),
        false => {
            let work = move || decompose(&matrix, ComputeEigenvectors::Yes);
            progress::abandon_on_interrupt(work)?
        }
    }
}

/// Number of rows from which a decomposition can take longer than an interrupt may wait.
const LARGE: usize = 512;

/// Without `vectors`, the list of eigenvectors is empty.
fn decompose(matrix: &Mat<f64>, vectors: ComputeEigenvectors) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let n = matrix.nrows();
    let columns = match vectors {
        ComputeEigenvectors::Yes => n,
        ComputeEigenvectors::No => 0,
    };
    let (mut values, mut found) = (Diag::zeros(n), Mat::zeros(n, columns));
    // With a single thread, because with several the last bits depend on their load.
    let (par, settings) = (Par::Seq, Spec::default());
    let scratch = self_adjoint_evd_scratch::<f64>(n, vectors, par, settings);
    self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        (columns > 0).then(|| found.as_mut()),
        par,
        MemStack::new(&mut MemBuffer::new(scratch)),
        settings,
    )
    .map_err(|e| Error::NotFinite(format!("the eigenvalue iteration did not converge: {e:?}")))?;
    let values = values.column_vector().iter().copied().collect();
    let vectors = (0..columns).map(|j| found.col(j).iter().copied().collect());
    Ok((values, vectors.collect()))
}
