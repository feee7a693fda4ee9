//! [`ExtremeEigenvalues`]: the Hessian's smallest and largest eigenvalue at each point of a plane.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::grid::EIGENVALUES;
use super::loss_at_points::{origin, warn_of_non_finite};
use super::{Grid, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::partial_results::{Items, compute_in_parts};
use crate::spectral::{Following, Lanczos, Which};
use crate::vector::axpy;

/// The Hessian's smallest and largest eigenvalue at each point of a plane; NaN where the loss or a derivative is not finite.
///
/// The eigenpairs are followed along each row of points, by [`Following`]: points with a spacing small enough for this take
/// about ten products instead of some tens. Points that are not [`checked`](Self::checked) have the residuals of the others,
/// but an eigenvalue that is farther out may have been missed there.
///
/// # Shapes
/// As in [`Plane`](super::Plane): one row per β, one column per α.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w², whose Hessian is diag(2, 8) everywhere.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let (d1, d2, grid) = ([1.0, 0.0], [0.0, 1.0], Grid::square(1.0, 3)?);
/// let plane = Plane::on_grid(&objective, &d1, &d2, &grid)?;
/// let plane = plane.with_eigenvalues(&objective, &d1, &d2, &grid)?;
/// let extremes = plane.eigenvalues.unwrap();
/// assert!(extremes.smallest.iter().all(|low| (low - 2.0).abs() < 1e-9));
/// assert!(
///     extremes
///         .largest
///         .iter()
///         .all(|high| (high - 8.0).abs() < 1e-9)
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtremeEigenvalues {
    /// Smallest eigenvalue.
    #[serde(with = "nan_as_null")]
    pub smallest: Array2<f64>,
    /// Largest eigenvalue.
    #[serde(with = "nan_as_null")]
    pub largest: Array2<f64>,
    /// Larger of the two eigenvalues' errors. An error is the residual ‖Hv − λv‖, plus the error of the rank where it was
    /// checked; infinite if the iteration did not converge.
    #[serde(with = "nan_as_null")]
    #[serde(alias = "residuals")]
    pub errors: Array2<f64>,
    /// Whether the point was checked for missed eigenvalues; empty if read from a file of an earlier version.
    #[serde(default)]
    pub checked: Array2<bool>,
}

impl ExtremeEigenvalues {
    /// Computes the eigenvalues without the losses. See [`Plane::with_eigenvalues`](super::Plane::with_eigenvalues).
    ///
    /// # Errors
    /// As [`Plane::on_grid`](super::Plane::on_grid).
    pub fn on_grid(objective: &Objective, d1: &[f64], d2: &[f64], grid: &Grid) -> Result<Self> {
        let (theta, points) = (origin(objective, d1, d2)?, grid.points());
        let task = "rows of eigenvalues";
        let parts = grid.parts(task, EIGENVALUES, objective, [&theta, d1, d2])?;
        let items = Items {
            task,
            count: grid.betas.len(),
            numbers: NUMBERS * grid.alphas.len(),
            chunk: 1,
        };
        let found = compute_in_parts(items, parts.as_ref(), &grid.share, |range| {
            let row = points.chunks_exact(grid.alphas.len()).nth(range.start);
            eigenvalues_of_row(objective, [&theta, d1, d2], row.unwrap_or_default())
        })?;
        let (found, _) = found.as_chunks::<NUMBERS>();
        warn_of_non_finite("eigenvalues", &points, |i| found[i][0].is_nan());
        Ok(Self {
            smallest: grid.to_array(|i| found[i][0]),
            largest: grid.to_array(|i| found[i][1]),
            errors: grid.to_array(|i| found[i][2]),
            checked: grid
                .to_array(|i| found[i][3])
                .mapv(|is_checked| is_checked == 1.0),
        })
    }
}

/// Numbers of a point: smallest and largest eigenvalue, error, and 1 if it was checked.
const NUMBERS: usize = 4;

/// Returns the numbers of each of the points (α, β) of a row.
fn eigenvalues_of_row(
    objective: &Objective,
    [theta, d1, d2]: [&[f64]; 3],
    row: &[[f64; 2]],
) -> Result<Vec<f64>> {
    let lanczos = Lanczos::default()
        .with_which(Which::BothEnds)
        .with_tolerance(1e-3);
    let mut following = Following::new(lanczos, 2.min(objective.dim()));
    let mut numbers = Vec::with_capacity(NUMBERS * row.len());
    for [alpha, beta] in row {
        let mut moved = theta.to_vec();
        axpy(*alpha, d1, &mut moved);
        axpy(*beta, d2, &mut moved);
        let hessian = objective.hessian().at(moved);
        let found = match hessian.and_then(|hessian| following.next(&hessian)) {
            Err(Error::NotFinite(_)) => {
                numbers.extend([f64::NAN; NUMBERS]);
                continue;
            }
            found => found?,
        };
        let (pairs, is_checked) = (&found.spectrum.pairs, found.points_since_check == 0);
        let errors = pairs.iter().map(|pair| match is_checked {
            true => pair.error(),
            false => pair.residual,
        });
        let error = errors.fold(0.0, f64::max);
        let [largest, smallest] = [&pairs[0], &pairs[pairs.len() - 1]].map(|pair| pair.value);
        numbers.extend([smallest, largest, error, f64::from(u8::from(is_checked))]);
    }
    Ok(numbers)
}
