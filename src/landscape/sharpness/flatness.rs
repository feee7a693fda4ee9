//! How far one can go before the loss has risen by so much.

use serde::{Deserialize, Serialize};

use super::trace;
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::Estimate;
use crate::vector::{norm, scale};

/// Distances that are looked at in one go, and how often the interval between two is looked at again.
const PLACES: usize = 16;
const ROUNDS: usize = 3;

/// How flatness is measured: the distance from θ, in random directions, at which the loss has first
/// risen by `tolerance` (Hochreiter and Schmidhuber, "Flat Minima", 1997).
///
/// See [`FlatnessReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
/// let found = Flatness::of(0.09).run(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert!((found.radius.value - 0.3).abs() < 1e-6);
/// assert!((found.quadratic - 0.3).abs() < 1e-6);
/// assert_eq!(found.unbounded, 0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlatnessReport {
    /// The mean distance at which the loss has risen by the tolerance, over those directions in
    /// which it does.
    pub radius: Estimate,
    /// √(2 n tolerance / tr H), what the distance is on a quadratic at its minimum when n is large;
    /// infinite where the trace is not positive.
    pub quadratic: f64,
    /// Directions in which the loss has not risen so far within 10⁴ (1 + ‖θ‖).
    pub unbounded: usize,
    /// The tolerance.
    pub tolerance: f64,
}

impl Flatness {
    /// For this rise of the loss, in 10 directions.
    pub fn of(tolerance: f64) -> Self {
        Self {
            tolerance,
            directions: 10,
            seed: 0,
        }
    }

    /// Measures it where the model stands.
    ///
    /// # Errors
    /// A tolerance that is not positive, fewer than 2 directions, a loss that is not finite before it
    /// has risen by the tolerance, one that rises in fewer than 2 directions.
    pub fn run(&self, objective: &Objective) -> Result<FlatnessReport> {
        let (radius, unbounded) = self.radius(objective)?;
        let trace = trace(&objective.hessian(), self.seed)?.value;
        let square = 2.0 * objective.dim() as f64 * self.tolerance / trace;
        Ok(FlatnessReport {
            radius,
            quadratic: if trace > 0.0 {
                square.sqrt()
            } else {
                f64::INFINITY
            },
            unbounded,
            tolerance: self.tolerance,
        })
    }

    /// The mean distance, and the number of directions without one.
    pub(crate) fn radius(&self, objective: &Objective) -> Result<(Estimate, usize)> {
        let found = self.crossings(objective)?;
        let radii: Vec<f64> = found.iter().map(|(radius, _)| *radius).collect();
        Ok((Estimate::of(&radii), self.directions - radii.len()))
    }

    /// The distances, at least two, each with its direction of length 1.
    pub(crate) fn crossings(&self, objective: &Objective) -> Result<Vec<(f64, Vec<f64>)>> {
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
        let (theta, level) = (
            objective.parameters().to_flat()?,
            objective.loss()? + self.tolerance,
        );
        let mut progress = Progress::start("flatness");
        let mut found = Vec::new();
        for i in 0..self.directions {
            let mut direction = normal(theta.len(), Purpose::Flatness, self.seed, i as u64);
            let length = norm(&direction);
            scale(&mut direction, 1.0 / length);
            if let Some(radius) = first_crossing(objective, &theta, &direction, level)? {
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
            "the loss has risen by {} at a distance of {:.5} ± {:.2} in random directions; by the \
             quadratic model {:.5}",
            self.tolerance, self.radius.value, self.radius.standard_error, self.quadratic
        )?;
        match self.unbounded {
            0 => Ok(()),
            n => write!(f, "; in {n} more directions it has not"),
        }
    }
}
