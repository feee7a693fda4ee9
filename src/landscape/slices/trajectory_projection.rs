//! [`Projection`]: a training trajectory projected onto a plane.

use serde::{Deserialize, Serialize};

use super::loss_at_points::{origin, scores};
use super::statistics_source::needs_statistics_everywhere;
use super::{Grid, StatisticsSource, direction, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::train::Trajectory;
use crate::vector::{axpy, dot, minus, norm};

/// A training trajectory projected orthogonally onto a plane.
///
/// The loss at a snapshot can be far from the loss at its projection, so both are recorded.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: gradient descent from (1, 1) with η = 0.1 iterates b ← 0.8b, w ← 0.2w.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 1.0])?;
/// let mut trajectory = Trajectory::every(1)?;
/// Trainer::sgd(0.1)
///     .with_epochs(20)
///     .fit_recorded(&model, &data, &data, &mut trajectory)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let path = Projection::onto(&objective, &[1.0, 0.0], &[0.0, 1.0], &trajectory)?;
/// assert!((path.alphas[2] - 0.64).abs() < 1e-12 && (path.betas[2] - 0.04).abs() < 1e-12);
/// assert!(path.distances.iter().all(|d| *d < 1e-9)); // the plane is all of parameter space here
/// let plane = Plane::on_grid(&objective, &[1.0, 0.0], &[0.0, 1.0], &path.grid(5)?)?;
/// assert!(plane.alphas[0] < 0.0 && plane.alphas[4] > 1.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Number of training steps before each snapshot.
    pub steps: Vec<usize>,
    /// α of each projection.
    pub alphas: Vec<f64>,
    /// β of each projection.
    pub betas: Vec<f64>,
    /// Loss at each snapshot.
    pub losses: Vec<f64>,
    /// Loss at each projection; NaN where it is not finite.
    #[serde(with = "nan_as_null", alias = "on_plane")]
    pub plane_losses: Vec<f64>,
    /// Distance of each snapshot from the plane.
    pub distances: Vec<f64>,
    /// Source of the batch-normalisation statistics.
    #[serde(default)]
    pub statistics: StatisticsSource,
}

impl Projection {
    /// Projects the snapshots of `trajectory` onto the plane through the model's current parameters spanned by `d1` and `d2`,
    /// which need not be orthogonal.
    ///
    /// # Errors
    /// The trajectory has no snapshots or belongs to another model; a direction is zero, has the wrong length or entries that
    /// are not finite; the directions are parallel; a loss is not finite; the model has running statistics of batch
    /// normalisation, which do not fit the snapshots: use an objective [with batch statistics](Objective::with_batch_statistics)
    /// here and for the plane.
    pub fn onto(
        objective: &Objective,
        d1: &[f64],
        d2: &[f64],
        trajectory: &Trajectory,
    ) -> Result<Self> {
        needs_statistics_everywhere(objective, "a projection onto a plane")?;
        let theta = origin(objective, d1, d2)?;
        let steps = trajectory.steps().to_vec();
        if steps.is_empty() {
            return Err(Error::invalid(
                "the trajectory has no snapshots: record some with Trainer::fit_recorded",
            ));
        }
        let [d11, d12, d22] = [dot(d1, d1), dot(d1, d2), dot(d2, d2)];
        let determinant = d11 * d22 - d12 * d12;
        if determinant <= 1e-12 * d11 * d22 {
            return Err(direction::parallel());
        }
        let mut projections = Vec::with_capacity(steps.len());
        let (mut losses, mut distances) = (Vec::new(), Vec::new());
        let mut progress = Progress::start("snapshots");
        for i in 0..steps.len() {
            let snapshot = trajectory.snapshot(i)?;
            losses.push(objective.loss_at(&snapshot)?);
            let mut offset = minus(&snapshot, &theta);
            let (a, b) = (dot(&offset, d1), dot(&offset, d2));
            let projection = [d22 * a - d12 * b, d11 * b - d12 * a].map(|x| x / determinant);
            axpy(-projection[0], d1, &mut offset);
            axpy(-projection[1], d2, &mut offset);
            distances.push(norm(&offset));
            projections.push(projection);
            progress.part(i + 1, steps.len());
        }
        drop(progress);
        let on_plane = scores(
            "projection",
            objective,
            [&theta, d1, d2],
            &projections,
            None,
        )?;
        Ok(Self {
            steps,
            alphas: projections.iter().map(|[alpha, _]| *alpha).collect(),
            betas: projections.iter().map(|[_, beta]| *beta).collect(),
            losses,
            statistics: StatisticsSource::from_objective(objective),
            plane_losses: on_plane.iter().map(|score| score.loss).collect(),
            distances,
        })
    }

    /// Returns a grid of `points` × `points` values that contains θ and all projections, with a margin.
    ///
    /// # Errors
    /// `points` is below 2; all projections coincide with θ.
    pub fn grid(&self, points: usize) -> Result<Grid> {
        let extent = |values: &[f64]| {
            let low = values.iter().copied().fold(0.0, f64::min);
            let high = values.iter().copied().fold(0.0, f64::max);
            (low, high)
        };
        let sides = [extent(&self.alphas), extent(&self.betas)];
        // The margin gives a trajectory along one direction a plane, too.
        let widest = sides.iter().map(|(low, high)| high - low);
        let widest = widest.fold(0.0, f64::max);
        let side = |(low, high): (f64, f64)| -> Vec<f64> {
            let margin = (0.15 * (high - low)).max(0.1 * widest);
            let (low, high) = (low - margin, high + margin);
            let fraction = |i: usize| i as f64 / (points as f64 - 1.0);
            (0..points)
                .map(|i| low + fraction(i) * (high - low))
                .collect()
        };
        Grid::new(side(sides[0]), side(sides[1]))
    }
}
