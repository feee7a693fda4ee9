//! [`Flatness`]: distance at which the loss has increased by a tolerance.

use serde::{Deserialize, Serialize};

use super::trace;
use crate::error::{Error, Result, check_positive, counted};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::{Estimate, Trace};
use crate::vector::{norm, scale};

/// Largest spread of the curvature for which the quadratic prediction is reported: 3/8 of its square is 9 %.
const LARGEST_SPREAD: f64 = 0.5;

/// Number of distances evaluated at once, and number of refinements of the interval that holds the crossing.
const POINTS: usize = 16;
const REFINEMENTS: usize = 3;

/// Settings of a flatness measurement: the distance from θ, in random directions, at which the loss has first risen by
/// `tolerance`. Hochreiter and Schmidhuber ("Flat Minima", 1997) call a minimum flat if it lies in a large region in which
/// the loss stays about the same.
///
/// The crossing is bracketed by doubling the distance and then refined, so a rise narrower than a factor of 2 in distance
/// can be missed.
///
/// See [`FlatnessReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Flatness {
    /// Rise of the loss to find.
    pub tolerance: f64,
    /// Number of random directions.
    pub directions: usize,
    /// Seed of the directions.
    pub seed: u64,
}

/// Result of [`Flatness`].
///
/// ```
/// use loss_landscape::landscape::Flatness;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + w² has risen by 0.09 at a distance of 0.3.
/// let x = Tensor::new(&[[-1.0], [1.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let found = Flatness::new(0.09).run(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert!((found.radius.value - 0.3).abs() < 1e-6);
/// assert!((found.quadratic - 0.3).abs() < 1e-6 && found.spread < 1e-6);
/// assert_eq!(found.unbounded, 0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FlatnessReport {
    /// Mean distance at which the loss has risen by the tolerance, over the directions in which it does.
    pub radius: Estimate,
    /// √(2n·tolerance / tr H): for a quadratic loss at its minimum, the distance along a direction of mean curvature tr H/n.
    /// Infinite if the trace is not positive. It approximates the mean distance only if `spread` is small: to leading order, the
    /// mean is larger by the fraction 3/8 `spread`².
    pub quadratic: f64,
    /// Standard deviation of the curvature uᵀHu over random unit vectors u, relative to its mean: √(2 (n/r − 1)/(n + 2)) with
    /// r = (tr H)²/‖H‖²_F. It is small if many eigenvalues contribute to the trace; a large n is not enough. Infinite if the
    /// trace is not positive.
    pub spread: f64,
    /// Number of directions in which the loss does not rise by the tolerance within 10⁴ (1 + ‖θ‖).
    pub unbounded: usize,
    /// Rise of the loss.
    pub tolerance: f64,
}

impl Flatness {
    /// Creates settings for this rise of the loss: 10 directions, seed 0.
    pub fn new(tolerance: f64) -> Self {
        Self {
            tolerance,
            directions: 10,
            seed: 0,
        }
    }

    /// Sets the number of random directions.
    #[must_use]
    pub fn with_directions(mut self, directions: usize) -> Self {
        self.directions = directions;
        self
    }
    /// Sets the seed of the directions.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Measures the flatness at the model's current parameters.
    ///
    /// # Errors
    /// The tolerance is not positive; there are fewer than 2 directions; the loss becomes not finite before it has risen by the
    /// tolerance, or rises by it in fewer than 2 directions.
    pub fn run(&self, objective: &Objective) -> Result<FlatnessReport> {
        let theta = objective.parameters().to_flat()?;
        let crossings = self.crossings_at(objective, &theta)?;
        let radii: Vec<f64> = crossings.iter().map(|(radius, _)| *radius).collect();
        let hessian = objective.hessian().at(theta)?;
        let trace = trace(&hessian, self.seed)?.value;
        let (mut quadratic, mut spread) = (f64::INFINITY, f64::INFINITY);
        if trace > 0.0 {
            let n = hessian.dim() as f64;
            let settings = Trace::default()
                .with_relative_error(0.1)
                .with_seed(self.seed);
            let squares = settings.frobenius_squared(&hessian)?.value;
            quadratic = (2.0 * n * self.tolerance / trace).sqrt();
            // Estimates can give a negative value.
            let excess = (n * squares / trace.powi(2) - 1.0).max(0.0);
            spread = (2.0 * excess / (n + 2.0)).sqrt();
        }
        Ok(FlatnessReport {
            radius: Estimate::from_samples(&radii),
            quadratic,
            spread,
            unbounded: self.directions - radii.len(),
            tolerance: self.tolerance,
        })
    }

    /// Returns the distances, at least two, each with its unit direction.
    pub(crate) fn crossings(&self, objective: &Objective) -> Result<Vec<(f64, Vec<f64>)>> {
        self.crossings_at(objective, &objective.parameters().to_flat()?)
    }

    fn crossings_at(&self, objective: &Objective, theta: &[f64]) -> Result<Vec<(f64, Vec<f64>)>> {
        check_positive(self.tolerance, "the tolerance")?;
        if self.directions < 2 {
            return Err(Error::invalid(format!(
                "no standard error from {}: use at least 2",
                counted(self.directions, "direction")
            )));
        }
        let level = objective.loss_at(theta)? + self.tolerance;
        let mut progress = Progress::start("flatness");
        let mut found = Vec::new();
        for i in 0..self.directions {
            let mut direction = normal(theta.len(), Purpose::Flatness, self.seed, i as u64);
            let length = norm(&direction);
            scale(&mut direction, 1.0 / length);
            if let Some(radius) = first_crossing(objective, theta, &direction, level)? {
                found.push((radius, direction));
            }
            progress.part(i + 1, self.directions);
        }
        if found.len() < 2 {
            return Err(Error::invalid(format!(
                "in {} of {} the loss never rises by {}: the model is flat; use a \
                 smaller tolerance",
                self.directions - found.len(),
                counted(self.directions, "direction"),
                self.tolerance
            )));
        }
        Ok(found)
    }
}

/// Returns the smallest distance along `direction` at which the loss reaches `level`: bracketed by doubling, then refined.
fn first_crossing(
    objective: &Objective,
    theta: &[f64],
    direction: &[f64],
    level: f64,
) -> Result<Option<f64>> {
    let vectors = [theta, direction, direction];
    let losses = |radii: &[f64]| -> Result<Vec<f64>> {
        let points: Vec<[f64; 2]> = radii.iter().map(|r| [*r, 0.0]).collect();
        let scores = objective.scores_on_plane(vectors, &points)?;
        Ok(scores.iter().map(|score| score.loss).collect())
    };
    let size = 1.0 + norm(theta);
    let mut below = (0.0, objective.loss_at(theta)?);
    let mut radius = 1e-4 * size;
    let mut above = loop {
        if radius > 1e4 * size {
            return Ok(None);
        }
        let loss = losses(&[radius])?[0];
        if loss >= level {
            break (radius, loss);
        }
        below = (radius, loss);
        radius *= 2.0;
    };
    for _ in 0..REFINEMENTS {
        let width = (above.0 - below.0) / (POINTS as f64 + 1.0);
        let radii: Vec<f64> = (1..=POINTS).map(|i| below.0 + i as f64 * width).collect();
        for (radius, loss) in radii.iter().zip(losses(&radii)?) {
            if loss >= level {
                above = (*radius, loss);
                break;
            }
            below = (*radius, loss);
        }
    }
    let fraction = (level - below.1) / (above.1 - below.1);
    Ok(Some(below.0 + fraction * (above.0 - below.0)))
}

impl std::fmt::Display for FlatnessReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the loss has risen by {} at a distance of {:.5} ± {:.2} in random directions",
            self.tolerance, self.radius.value, self.radius.standard_error
        )?;
        if self.spread <= LARGEST_SPREAD {
            write!(f, "; by the quadratic model {:.5}", self.quadratic)?;
        } else if self.spread.is_finite() {
            write!(
                f,
                "; the quadratic model's {:.5} does not apply: the curvature of random directions varies by {:.0} %",
                self.quadratic,
                100.0 * self.spread
            )?;
        }
        match self.unbounded {
            0 => Ok(()),
            n => write!(f, "; it has not in {}", counted(n, "more direction")),
        }
    }
}
