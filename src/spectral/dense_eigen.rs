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
        let epsilon = self.epsilon();
        // The rounding of the sums is larger than that of entries in `f64`.
        let entries = match epsilon > f64::EPSILON {
            true => norm(&values),
            false => 0.0,
        };
        let rounding = n as f64 * f64::EPSILON * largest(&values)
            + 4.0 * epsilon * (entries + self.cancellation()?);
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
}

/// Computes the eigenvalues, ascending, and eigenvectors of the symmetric n × n matrix with these entries.
pub(crate) fn symmetric_eigen(
    n: usize,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let matrix = Mat::from_fn(n, n, entry);
    match n < LARGE {
        true => decompose(&matrix),
        false => progress::abandon_on_interrupt(move || decompose(&matrix))?,
    }
}

/// Number of rows from which a decomposition can take longer than an interrupt may wait.
const LARGE: usize = 512;

fn decompose(matrix: &Mat<f64>) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let n = matrix.nrows();
    let (mut values, mut vectors) = (Diag::zeros(n), Mat::zeros(n, n));
    // With a single thread, because with several the last bits depend on their load.
    let (par, settings) = (Par::Seq, Spec::default());
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, par, settings);
    self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        par,
        MemStack::new(&mut MemBuffer::new(scratch)),
        settings,
    )
    .map_err(|e| Error::NotFinite(format!("the eigenvalue iteration did not converge: {e:?}")))?;
    let values = values.column_vector().iter().copied().collect();
    let vectors = (0..n).map(|j| vectors.col(j).iter().copied().collect());
    Ok((values, vectors.collect()))
}
