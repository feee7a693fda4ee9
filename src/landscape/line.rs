//! [`Line`]: the loss along a direction.

use serde::{Deserialize, Serialize};

use super::{check_grid, losses};
use crate::error::Result;
use crate::objective::Objective;
use crate::vector::{dot, symmetric_grid};

/// L(θ + αd) for evenly spaced α.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// α, in units of the direction's length as it was given.
    pub alphas: Vec<f64>,
    /// L(θ + αd), one for each α.
    pub losses: Vec<f64>,
    /// L(θ)
    pub center: f64,
    /// dL/dα at α = 0, which is gᵀd.
    pub slope: f64,
    /// d²L/dα² at α = 0, which is dᵀHd.
    pub curvature: f64,
}

impl Line {
    /// The loss at `points` values of α from `-radius` to `radius` along `direction`, with the
    /// slope and curvature at the centre from one gradient and one Hessian-vector product.
    ///
    /// # Errors
    /// A direction that is not in θ-space, a radius that is not positive, fewer than 2 points, a
    /// loss that is not finite somewhere on the line.
    pub fn along(
        objective: &Objective,
        direction: &[f64],
        radius: f64,
        points: usize,
    ) -> Result<Self> {
        check_grid(radius, points)?;
        objective
            .parameters()
            .check_vector(direction, "direction")?;
        let theta = objective.parameters().to_flat()?;
        let center = objective.loss()?;
        let slope = dot(&objective.gradient()?, direction);
        let curvature = dot(&objective.hvp(direction)?, direction);

        let alphas = symmetric_grid(radius, points);
        let places: Vec<[f64; 2]> = alphas.iter().map(|alpha| [*alpha, 0.0]).collect();
        let losses = losses("line", objective, [&theta, direction, direction], &places)?;
        Ok(Self {
            alphas,
            losses,
            center,
            slope,
            curvature,
        })
    }

    /// Taylor's quadratic L(θ) + αgᵀd + ½α²dᵀHd at each α.
    pub fn quadratic(&self) -> Vec<f64> {
        let at = |a: &f64| self.center + a * self.slope + 0.5 * a * a * self.curvature;
        self.alphas.iter().map(at).collect()
    }
}
