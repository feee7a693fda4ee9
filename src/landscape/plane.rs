//! [`Plane`]: the loss over two directions.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{check_grid, direction, losses};
use crate::error::Result;
use crate::objective::Objective;
use crate::vector::symmetric_grid;

/// L(θ + αd₁ + βd₂) on a square grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// α, the coordinate along d₁, in units of its length.
    pub alphas: Vec<f64>,
    /// β, the coordinate along d₂, in units of its length.
    pub betas: Vec<f64>,
    /// The loss, a row for each β and a column for each α.
    pub losses: Array2<f64>,
    /// L(θ)
    pub center: f64,
}

impl Plane {
    /// The plane through θ along `d1` and `d2`, which need not be orthogonal: `points` × `points`
    /// values with α and β from `-radius` to `radius`.
    ///
    /// # Errors
    /// Directions that are not in θ-space, a radius that is not positive, fewer than 2 points, a
    /// loss that is not finite somewhere on the plane.
    pub fn spanned(
        objective: &Objective,
        d1: &[f64],
        d2: &[f64],
        radius: f64,
        points: usize,
    ) -> Result<Self> {
        check_grid(radius, points)?;
        let parameters = objective.parameters();
        parameters.check_vector(d1, "first direction")?;
        parameters.check_vector(d2, "second direction")?;
        let theta = parameters.to_flat()?;
        let center = objective.loss()?;

        let grid = symmetric_grid(radius, points);
        let rows = grid
            .iter()
            .flat_map(|beta| grid.iter().map(|alpha| [*alpha, *beta]));
        let places: Vec<[f64; 2]> = rows.collect();
        let values = losses("plane", objective, [&theta, d1, d2], &places)?;
        Ok(Self {
            alphas: grid.clone(),
            betas: grid,
            losses: Array2::from_shape_fn((points, points), |(i, j)| values[i * points + j]),
            center,
        })
    }

    /// The plane along two random [filter-normalised](direction::filter_normalized) directions,
    /// the second made orthogonal to the first.
    ///
    /// # Errors
    /// As [`Plane::spanned`].
    pub fn random(objective: &Objective, seed: u64, radius: f64, points: usize) -> Result<Self> {
        let parameters = objective.parameters();
        let d1 = direction::filter_normalized(parameters, seed)?;
        let d2 = direction::filter_normalized(parameters, seed.wrapping_add(1 << 32))?;
        let d2 = direction::orthogonalized(&d2, &d1)?;
        Self::spanned(objective, &d1, &d2, radius, points)
    }
}
