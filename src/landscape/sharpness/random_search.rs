//! [`RandomSharpness`]: largest and mean increase of the loss at random points of a ball.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Sharpness, write_rounding};
use crate::error::Result;
use crate::objective::Objective;
use crate::random::{Purpose, generator, normal};
use crate::spectral::Estimate;
use crate::vector::{norm, scale};

/// Largest rise L(θ + δ) − L(θ) found at random points of the ball ‖δ‖ ≤ ρ.
/// [`KeskarSharpness`](super::KeskarSharpness) uses a box instead.
///
/// It is a lower bound of the largest rise in the ball. In many dimensions random perturbations miss the few sharp
/// directions, and it is far below [`WorstCase`](super::WorstCase).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let found = Sharpness::new(0.1).with_pairs(20).random(&objective)?;
/// assert!(found.maximum >= found.mean.value);
/// assert!(found.maximum <= Sharpness::new(0.1).worst_case(&objective)?.rise);
/// assert!((found.center - objective.loss()?).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RandomSharpness {
    /// Largest rise found; at least 0, because δ = 0 is in the ball.
    pub maximum: f64,
    /// With 95 % confidence, the rise is at most `maximum` on at least this fraction of the ball's volume: 0.05^(1/N) for N
    /// independent samples (Wilks, 1941).
    pub coverage: f64,
    /// Mean rise over the ball; each sample is the mean of a pair ±δ. Its error includes [`rounding`](Self::rounding).
    pub mean: Estimate,
    /// Rounding error of the loss in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Radius ρ of the ball.
    pub radius: f64,
    /// L(θ).
    pub center: f64,
}

impl Sharpness {
    /// Searches for the largest rise at random points of the ball.
    ///
    /// # Errors
    /// The radius is not positive; there are fewer than 2 pairs; a loss in the ball is not finite.
    pub fn random(&self, objective: &Objective) -> Result<RandomSharpness> {
        Ok(self.random_search(objective)?.0)
    }

    /// Returns the result and the perturbation with the largest rise.
    pub(crate) fn random_search(
        &self,
        objective: &Objective,
    ) -> Result<(RandomSharpness, Vec<f64>)> {
        let ball = self.ball(objective)?;
        let n = ball.theta.len() as f64;
        let mut radii = generator(Purpose::RandomSearchRadius, self.seed, 0);
        // Uniform in the ball: a uniform direction, and a radius whose n-th power is uniform.
        let mut factors = Vec::new();
        let rises = self.rises(
            ("random search", Purpose::RandomSearch),
            objective,
            &ball,
            |u| {
                let factor = self.radius * radii.random::<f64>().powf(1.0 / n) / norm(u);
                factors.push(factor);
                factor
            },
        )?;
        let all = rises.as_flattened();
        let best = (0..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b]));
        let mut perturbation = vec![0.0; ball.theta.len()];
        if let Some(best) = best.filter(|best| all[*best] > 0.0) {
            let mut u = normal(
                n as usize,
                Purpose::RandomSearch,
                self.seed,
                best as u64 / 2,
            );
            let sign = [1.0, -1.0][best % 2];
            scale(&mut u, sign * factors[best / 2]);
            perturbation = ball.perturbation(&u);
        }
        let found = RandomSharpness {
            maximum: all.iter().copied().fold(0.0, f64::max),
            coverage: 0.05f64.powf(1.0 / self.pairs as f64),
            mean: ball.mean(&rises),
            rounding: ball.rounding,
            radius: self.radius,
            center: ball.center,
        };
        Ok((found, perturbation))
    }
}

impl std::fmt::Display for RandomSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "largest rise {:.5e} of {} within {}; no larger on at least {:.0} % of the ball (95 % confidence); \
             mean rise {:.5e} ± {:.1e}",
            self.maximum,
            2 * self.mean.samples,
            self.radius,
            // Rounded down.
            (100.0 * self.coverage).floor(),
            self.mean.value,
            self.mean.standard_error
        )?;
        write_rounding(f, self.rounding, self.mean.standard_error)
    }
}
