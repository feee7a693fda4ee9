//! [`symmetric_eigen`]: all eigenpairs of a small symmetric matrix.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par, Spec};

use crate::error::{Error, Result};
use crate::progress;

/// Computes the eigenvalues, ascending, and eigenvectors of the symmetric n × n matrix with these entries.
pub(crate) fn symmetric_eigen(
    n: usize,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    eigen(n, entry, ComputeEigenvectors::Yes)
}

/// Computes the eigenvalues alone, ascending.
pub(crate) fn symmetric_eigenvalues(
    n: usize,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<Vec<f64>> {
    Ok(eigen(n, entry, ComputeEigenvectors::No)?.0)
}

/// Number of rows from which a decomposition can take longer than an interrupt may wait.
const LARGE: usize = 512;

fn eigen(
    n: usize,
    entry: impl Fn(usize, usize) -> f64,
    vectors: ComputeEigenvectors,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let matrix = Mat::from_fn(n, n, entry);
    match n < LARGE {
        true => decompose(&matrix, vectors),
        false => {
            let work = move || decompose(&matrix, vectors);
            progress::abandon_on_interrupt(work)?
        }
    }
}

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
