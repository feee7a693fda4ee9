//! How far one can go before the loss has risen by so much.

use serde::{Deserialize, Serialize};

use super::trace;
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::{Estimate, Trace};
use crate::vector::{norm, scale};

/// Spread of the curvature up to which the quadratic model's distance is about the mean one: 3/8 of its square is 9 %.
const LARGEST_SPREAD: f64 = 0.5;

/// Distances that are looked at in one go, and how often the interval between two is looked at again.
const PLACES: usize = 16;
const ROUNDS: usize = 3;

/// How flatness is measured: the distance from θ, in random directions, at which the loss has first
/// risen by `tolerance`. Hochreiter and Schmidhuber ("Flat Minima", 1997) call a minimum flat if it lies in a large region
/// in which the loss stays about the same.
///
/// The first distance is found among distances that double and then among ever closer ones, so a rise that is narrower than
/// a factor of 2 in distance can be missed.
///
/// See [`FlatnessReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Flatness {
    /// The rise of the loss that counts as none.
    pub tolerance: f64,
    /// Random directions.
    pub directions: usize,
    /// Of the directions.
    pub seed: u64,
}

/// What [`Flatness`] finds.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + w² has risen by 0.09 at the distance 0.3.
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
    /// The mean distance at which the loss has risen by the tolerance, over those directions in
    /// which it does.
    pub radius: Estimate,
    /// √(2 n tolerance / tr H), the distance on a quadratic at its minimum in a direction u with the mean curvature
    /// uᵀHu = tr H/n; infinite where the trace is not positive. The mean distance is this only if `spread` is small: it is
    /// larger by the share 3/8 `spread`² to leading order.
    pub quadratic: f64,
    /// The standard deviation of uᵀHu over random directions u of length 1, in units of its mean,
    /// √(2 (n/r − 1)/(n + 2)) with r = (tr H)²/‖H‖²_F. It is small if many eigenvalues share the trace, so that r is
    /// large; that n is large is not enough. Infinite where the trace is not positive.
    pub spread: f64,
    /// Directions in which the loss has not risen so far within 10⁴ (1 + ‖θ‖).
    pub unbounded: usize,
    /// The tolerance.
    pub tolerance: f64,
}

impl Flatness {
    /// For this rise of the loss, in 10 directions.
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

    /// Measures it where the model stands.
    ///
    /// # Errors
    /// A tolerance that is not positive, fewer than 2 directions, a loss that is not finite before it
    /// has risen by the tolerance, one that rises in fewer than 2 directions.
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
            // Of estimates it can come out below 0, where it is 0.
            let excess = (n * squares / trace.powi(2) - 1.0).max(0.0);
            spread = (2.0 * excess / (n + 2.0)).sqrt();
        }
        Ok(FlatnessReport {
            radius: Estimate::of(&radii),
            quadratic,
            spread,
            unbounded: self.directions - radii.len(),
            tolerance: self.tolerance,
        })
    }

    /// The distances, at least two, each with its direction of length 1.
    pub(crate) fn crossings(&self, objective: &Objective) -> Result<Vec<(f64, Vec<f64>)>> {
        self.crossings_at(objective, &objective.parameters().to_flat()?)
    }

    fn crossings_at(&self, objective: &Objective, theta: &[f64]) -> Result<Vec<(f64, Vec<f64>)>> {
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::invalid(format!(
                "a tolerance of {} is none: give a finite number above 0",
                self.tolerance
            )));
        }
        if self.directions < 2 {
            return Err(Error::invalid(format!(
                "{} directions say nothing of their spread: ask for at least 2",
                self.directions
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
                "in {} of {} directions the loss never rises by {}: the model is flat, or give a \
                 smaller tolerance",
                self.directions - found.len(),
                self.directions,
                self.tolerance
            )));
        }
        Ok(found)
    }
}

/// The smallest distance along `direction` at which the loss is `level`, among places a factor of 2
/// apart and then ever closer ones.
fn first_crossing(
    objective: &Objective,
    theta: &[f64],
    direction: &[f64],
    level: f64,
) -> Result<Option<f64>> {
    let vectors = [theta, direction, direction];
    let losses = |places: &[f64]| -> Result<Vec<f64>> {
        let points: Vec<[f64; 2]> = places.iter().map(|r| [*r, 0.0]).collect();
        let scores = objective.scores_on_plane(vectors, &points)?;
        Ok(scores.iter().map(|score| score.loss).collect())
    };
    let size = 1.0 + norm(theta);
    let mut below = (0.0, objective.loss_at(theta)?);
    let mut place = 1e-4 * size;
    let mut above = loop {
        if place > 1e4 * size {
            return Ok(None);
        }
        let loss = losses(&[place])?[0];
        if loss >= level {
            break (place, loss);
        }
        below = (place, loss);
        place *= 2.0;
    };
    for _ in 0..ROUNDS {
        let width = (above.0 - below.0) / (PLACES as f64 + 1.0);
        let places: Vec<f64> = (1..=PLACES).map(|i| below.0 + i as f64 * width).collect();
        for (place, loss) in places.iter().zip(losses(&places)?) {
            if loss >= level {
                above = (*place, loss);
                break;
            }
            below = (*place, loss);
        }
    }
    let share = (level - below.1) / (above.1 - below.1);
    Ok(Some(below.0 + share * (above.0 - below.0)))
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
            n => write!(f, "; in {n} more directions it has not"),
        }
    }
}
