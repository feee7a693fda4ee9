//! [`Plane`]: loss on a plane spanned by two directions.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::fingerprint::{check_fingerprint, fingerprint_at};
use super::loss_at_points::{origin, scores};
use super::{ExtremeEigenvalues, Grid, StatisticsSource, direction, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::Spectrum;

/// Loss L(θ + αd₁ + βd₂) on a grid of α and β.
///
/// # Shapes
/// Arrays have one row per β and one column per α: `(betas, alphas)`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² around its minimum.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let plane = Plane::spanned(&objective, &[1.0, 0.0], &[0.0, 1.0], 1.0, 3)?;
/// assert_eq!(plane.alphas, [-1.0, 0.0, 1.0]);
/// assert_eq!(plane.losses.row(2).to_vec(), [5.0, 4.0, 5.0]); // α² + 4β² for β = 1
/// assert_eq!(plane.table()?.height(), 9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// α, the coordinate along d₁ in units of its norm.
    pub alphas: Vec<f64>,
    /// β, the coordinate along d₂ in units of its norm.
    pub betas: Vec<f64>,
    /// Loss; NaN where it is not finite.
    #[serde(with = "nan_as_null")]
    pub losses: Array2<f64>,
    /// Fraction of samples classified correctly, for data with labels; NaN where the loss is.
    #[serde(with = "nan_as_null")]
    pub accuracies: Option<Array2<f64>>,
    /// The Hessian's extreme eigenvalues, after [`Plane::with_eigenvalues`].
    pub eigenvalues: Option<ExtremeEigenvalues>,
    /// L(θ).
    pub center: f64,
    /// Source of the batch-normalisation statistics.
    #[serde(default)]
    pub statistics: StatisticsSource,
    /// Hash of θ, the running statistics and the two directions. [`Plane::with_eigenvalues`] checks it.
    #[serde(default)]
    pub fingerprint: u64,
}

impl Plane {
    /// Computes the loss on `points` × `points` values of α and β from `-radius` to `radius`. `d1` and `d2` need not be
    /// orthogonal.
    ///
    /// # Errors
    /// A direction is zero, has the wrong length or entries that are not finite; `radius` is not positive; `points` is below 2;
    /// the loss at θ is not finite.
    pub fn spanned(
        objective: &Objective,
        d1: &[f64],
        d2: &[f64],
        radius: f64,
        points: usize,
    ) -> Result<Self> {
        Self::on_grid(objective, d1, d2, &Grid::square(radius, points)?)
    }

    /// Computes the loss on a plane spanned by two random
    /// [filter-normalised directions](direction::filter_normalized_pair).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let plane = Plane::random(&objective, 0, 1.0, 5)?;
    /// assert!((plane.losses[[2, 2]] - plane.center).abs() < 1e-12);
    /// assert_eq!(plane.center, objective.loss()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Plane::spanned`].
    pub fn random(objective: &Objective, seed: u64, radius: f64, points: usize) -> Result<Self> {
        let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), seed)?;
        Self::spanned(objective, &d1, &d2, radius, points)
    }

    /// Computes the loss on the plane spanned by the first two eigenvectors of a `spectrum`, which have norm 1.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let plane = Plane::eigen(&objective, &objective.hessian().top(2)?, 1e-3, 3)?;
    /// let sharpest = Line::along(&objective, &objective.hessian().top(1)?.vector(0)?, 1e-3, 3)?;
    /// let rise = plane.losses[[1, 0]] + plane.losses[[1, 2]] - 2.0 * plane.center;
    /// assert!((rise / 1e-6 - sharpest.curvature).abs() < 1e-3); // the curvature along d₁ is λ₁
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `spectrum` has fewer than two eigenpairs; as [`Plane::spanned`].
    pub fn eigen(
        objective: &Objective,
        spectrum: &Spectrum,
        radius: f64,
        points: usize,
    ) -> Result<Self> {
        let [first, second, ..] = &spectrum.pairs[..] else {
            return Err(Error::invalid(format!(
                "a plane needs 2 eigenvectors, found {}: compute at least 2",
                spectrum.pairs.len()
            )));
        };
        Self::spanned(objective, &first.vector, &second.vector, radius, points)
    }

    /// Computes the loss at the points of a `grid`. Where the loss is not finite, the result is NaN and a warning names (α, β).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w² overflows for w = 1e200.
    /// # let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// # let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// # let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// # model.parameters().set_flat(&[0.0, 0.0])?;
    /// # let objective = Objective::of(&model, &data, Loss::Mse)?;
    /// let grid = Grid::new(vec![0.0, 1.0], vec![0.0, 1e200])?;
    /// let plane = Plane::on_grid(&objective, &[1.0, 0.0], &[0.0, 1.0], &grid)?;
    /// assert_eq!(plane.losses.row(0).to_vec(), [0.0, 1.0]);
    /// assert!(plane.losses.row(1).iter().all(|loss| loss.is_nan()));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// Running statistics of batch normalisation are the same at all points and fit only the neighbourhood of θ. For a plane
    /// that reaches other models or earlier snapshots, use an objective
    /// [with batch statistics](Objective::with_batch_statistics).
    ///
    /// # Errors
    /// A direction is zero, has the wrong length or entries that are not finite; the loss at θ is not finite; the grid's
    /// checkpoint belongs to other work.
    pub fn on_grid(objective: &Objective, d1: &[f64], d2: &[f64], grid: &Grid) -> Result<Self> {
        let theta = origin(objective, d1, d2)?;
        let vectors = [&theta[..], d1, d2];
        let center = objective.loss()?;
        let scores = scores("plane", objective, vectors, &grid.points(), Some(grid))?;
        let accuracies: Option<Vec<f64>> = scores.iter().map(|score| score.accuracy).collect();
        Ok(Self {
            alphas: grid.alphas.clone(),
            betas: grid.betas.clone(),
            losses: grid.to_array(|i| scores[i].loss),
            accuracies: accuracies.map(|a| grid.to_array(|i| a[i])),
            eigenvalues: None,
            center,
            statistics: StatisticsSource::from_objective(objective),
            fingerprint: fingerprint_at(objective, &theta, &[d1, d2])?,
        })
    }

    /// Adds the Hessian's smallest and largest eigenvalue at each point, to a residual of 10⁻³ of the largest. See
    /// [`ExtremeEigenvalues`]. `d1`, `d2` and `grid` are those the plane was computed with. The checkpoint is a second file,
    /// whose name ends in `.eigenvalues`; work is shared and resumed by rows of points.
    ///
    /// # Errors
    /// As [`Plane::on_grid`]; another grid or other directions, or the model's parameters have changed.
    pub fn with_eigenvalues(
        mut self,
        objective: &Objective,
        d1: &[f64],
        d2: &[f64],
        grid: &Grid,
    ) -> Result<Self> {
        if (&self.alphas, &self.betas) != (&grid.alphas, &grid.betas) {
            return Err(Error::invalid(
                "this plane was computed on another grid: pass the same grid",
            ));
        }
        let theta = origin(objective, d1, d2)?;
        let fingerprint = fingerprint_at(objective, &theta, &[d1, d2])?;
        check_fingerprint(fingerprint, self.fingerprint, "plane")?;
        self.eigenvalues = Some(ExtremeEigenvalues::on_grid(objective, d1, d2, grid)?);
        Ok(self)
    }
}
