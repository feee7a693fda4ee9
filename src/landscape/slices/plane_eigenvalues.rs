//! [`ExtremeEigenvalues`]: the Hessian's smallest and largest eigenvalue at each point of a plane.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::grid::EIGENVALUES;
use super::loss_at_points::{origin, warn_of_non_finite};
use super::{Grid, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::partial_results::compute_in_parts;
use crate::spectral::{Eigenpair, Lanczos, Which};
use crate::vector::axpy;

/// The Hessian's smallest and largest eigenvalue at each point of a plane; NaN where the loss or a derivative is not finite.
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
    /// Larger of the two eigenvalues' errors. An error is the residual ‖Hv − λv‖ plus the error of the rank; infinite if the
    /// iteration did not converge.
    #[serde(with = "nan_as_null")]
    #[serde(alias = "residuals")]
    pub errors: Array2<f64>,
}

impl ExtremeEigenvalues {
    /// Computes the eigenvalues without the losses. See [`Plane::with_eigenvalues`](super::Plane::with_eigenvalues).
    ///
    /// # Errors
    /// As [`Plane::on_grid`](super::Plane::on_grid).
    pub fn on_grid(objective: &Objective, d1: &[f64], d2: &[f64], grid: &Grid) -> Result<Self> {
        let (theta, points) = (origin(objective, d1, d2)?, grid.points());
        let parts = grid.parts("eigenvalues", EIGENVALUES, objective, [&theta, d1, d2])?;
        let lanczos = Lanczos::default()
            .with_which(Which::BothEnds)
            .with_tolerance(1e-3);
        let work = |range: std::ops::Range<usize>| {
            let [alpha, beta] = points[range.start];
            let mut moved = theta.clone();
            axpy(alpha, d1, &mut moved);
            axpy(beta, d2, &mut moved);
            let hessian = objective.hessian().at(moved);
            let found = hessian.and_then(|h| lanczos.run(&h, 2.min(objective.dim())));
            let spectrum = match found {
                Err(Error::NotFinite(_)) => return Ok(vec![[f64::NAN; 3]]),
                spectrum => spectrum?,
            };
            let values = spectrum.values();
            let error = spectrum
                .pairs
                .iter()
                .map(Eigenpair::error)
                .fold(0.0, f64::max);
            Ok(vec![[values[values.len() - 1], values[0], error]])
        };
        let found = compute_in_parts(
            "eigenvalues",
            points.len(),
            1,
            parts.as_ref(),
            &grid.share,
            work,
        )?;
        warn_of_non_finite("eigenvalues", &points, |i| found[i][0].is_nan());
        Ok(Self {
            smallest: grid.to_array(|i| found[i][0]),
            largest: grid.to_array(|i| found[i][1]),
            errors: grid.to_array(|i| found[i][2]),
        })
    }
}
