//! [`Projection`]: a training seen from a plane.

use serde::{Deserialize, Serialize};

use super::loss_at_points::{origin, scores};
use super::statistics_source::needs_statistics_everywhere;
use super::{Grid, StatisticsSource, direction, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::train::Trajectory;
use crate::vector::{axpy, dot, minus, norm};

/// The snapshots of a training, each at the point of a plane that is closest to it.
///
/// A plane is a thin slice: the loss at a snapshot can be far from the loss on the plane below it,
/// so both are here.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: gradient descent from (1, 1) with η = 0.1 makes b ← 0.8b, w ← 0.2w.
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
/// assert!(path.distances.iter().all(|d| *d < 1e-9)); // the plane is all of θ-space here
/// let seen = Plane::on_grid(&objective, &[1.0, 0.0], &[0.0, 1.0], &path.grid(5)?)?;
/// assert!(seen.alphas[0] < 0.0 && seen.alphas[4] > 1.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Steps of training made at each snapshot.
    pub steps: Vec<usize>,
    /// α of the closest point on the plane.
    pub alphas: Vec<f64>,
    /// β of the closest point on the plane.
    pub betas: Vec<f64>,
    /// The loss at the snapshot itself.
    pub losses: Vec<f64>,
    /// The loss at the closest point on the plane; NaN where it is not finite.
    #[serde(with = "nan_as_null", alias = "on_plane")]
    pub plane_losses: Vec<f64>,
    /// How far the snapshot is from the plane.
    pub distances: Vec<f64>,
    /// How batch normalisation was computed for the losses.
    #[serde(default)]
    pub statistics: StatisticsSource,
}

impl Projection {
    /// The snapshots of `trajectory` onto the plane through θ, where the model stands, along `d1`
    /// and `d2`, which need not be orthogonal.
    ///
    /// # Errors
    /// A trajectory without snapshots or of another model; directions that are not in θ-space or
    /// parallel; a loss that is not finite; a model with running statistics of batch normalisation, which fit no point of the
    /// plane but its own: give an objective [with batch statistics](Objective::with_batch_statistics), here and to the plane.
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
        let mut places = Vec::with_capacity(steps.len());
        let (mut losses, mut distances) = (Vec::new(), Vec::new());
        for i in 0..steps.len() {
            let snapshot = trajectory.snapshot(i)?;
            losses.push(objective.loss_at(&snapshot)?);
            let mut away = minus(&snapshot, &theta);
            let (a, b) = (dot(&away, d1), dot(&away, d2));
            let place = [d22 * a - d12 * b, d11 * b - d12 * a].map(|x| x / determinant);
            axpy(-place[0], d1, &mut away);
            axpy(-place[1], d2, &mut away);
            distances.push(norm(&away));
            places.push(place);
        }
        let on_plane = scores("projection", objective, [&theta, d1, d2], &places, None)?;
        Ok(Self {
            steps,
            alphas: places.iter().map(|place| place[0]).collect(),
            betas: places.iter().map(|place| place[1]).collect(),
            losses,
            statistics: StatisticsSource::of(objective),
            plane_losses: on_plane.iter().map(|score| score.loss).collect(),
            distances,
        })
    }

    /// A grid of `points` × `points` places that holds θ and the whole path, with a margin.
    ///
    /// # Errors
    /// Fewer than 2 points; a path that has no extent.
    pub fn grid(&self, points: usize) -> Result<Grid> {
        let extent = |places: &[f64]| {
            let low = places.iter().copied().fold(0.0, f64::min);
            let high = places.iter().copied().fold(0.0, f64::max);
            (low, high)
        };
        let sides = [extent(&self.alphas), extent(&self.betas)];
        // A path along one direction still gets a plane.
        let widest = sides.iter().map(|(low, high)| high - low);
        let widest = widest.fold(0.0, f64::max);
        let places = |(low, high): (f64, f64)| -> Vec<f64> {
            let margin = (0.15 * (high - low)).max(0.1 * widest);
            let (low, high) = (low - margin, high + margin);
            let share = |i: usize| i as f64 / (points as f64 - 1.0);
            (0..points).map(|i| low + share(i) * (high - low)).collect()
        };
        Grid::new(places(sides[0]), places(sides[1]))
    }
}
