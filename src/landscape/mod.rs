//! Slices of the loss and what they measure, by algorithms that see only an
//! [`Objective`]: the model is the same afterwards, to the bit.
//!
//! | question | answer |
//! | --- | --- |
//! | the loss along a direction, or between two models | [`Line`] |
//! | the loss over two [`direction`]s, and a training on that plane | [`Plane`], [`Projection`] |
//! | what stands between two models, and ways around it | [`Curve`], [`PathTrainer`], [`Connectivity`] |
//! | which hidden units of two models are the same | [`align`] |
//! | batch normalisation's statistics away from where the model was trained | [`RunningStatistics`] |
//! | how sharp a minimum is | [`Sharpness`], [`Flatness`], [`directional_sharpness`] |
//! | curvature during training | [`Evolution`] |
//! | the noise of the samples' gradients, and where it drives SGD | [`GradientNoise`], [`ImplicitBias`] |
//! | a bound on the error on other data, for weights drawn around the model's | [`PacBayes`] |
//! | what a step will do, which learning rates are stable | [`StepChange`], [`StableRate`] |

pub mod align;
pub mod direction;

mod connect;
mod connectivity;
mod curve;
mod evolution;
mod generalization;
mod grid;
mod holes;
mod implicit_bias;
mod line;
mod noise;
mod plane;
mod profile;
mod projection;
mod sharpness;
mod statistics;
mod step;

pub use align::{HiddenUnits, Matching, UnitAxis};
pub use connect::{PathShape, PathTrainer};
pub use connectivity::Connectivity;
pub use curve::Curve;
pub use evolution::{Evolution, Moment, Watch};
pub use generalization::{PacBayes, PacBayesBound, PacBayesRow};
pub use grid::Grid;
pub use implicit_bias::{ImplicitBias, ModifiedLoss};
pub use line::Line;
pub use noise::{GradientNoise, NoiseReport};
pub use plane::{Extremes, Plane};
pub use profile::PathProfile;
pub use projection::Projection;
pub use sharpness::{
    AverageSharpness, Flatness, FlatnessReport, KeskarSharpness, RandomSharpness, SamStep,
    Sharpness, WorstCase, directional_sharpness,
};
pub use statistics::{NormStatistics, RunningStatistics, StatisticsSource};
pub use step::{StableRate, StepChange};

use crate::checkpoint::fingerprint;
use crate::data::Targets;
use crate::error::{Error, Result};
use crate::objective::{Objective, Score};
use crate::parts::in_parts;
use crate::progress::warn;
use crate::ranks::Share;

/// Loss and accuracy at θ + αd₁ + βd₂ for `vectors` θ, d₁, d₂ and each of some points α, β; of a grid, where one is given,
/// resumed from its file and shared as it says. Both are NaN where the loss is not finite, which a warning says.
fn scores(
    task: &'static str,
    objective: &Objective,
    vectors: [&[f64]; 3],
    points: &[[f64; 2]],
    grid: Option<&Grid>,
) -> Result<Vec<Score>> {
    let (parts, share) = match grid {
        Some(grid) => (grid.parts(task, "", objective, vectors)?, &grid.share),
        None => (None, &Share::default()),
    };
    let numbers = in_parts(
        task,
        points.len(),
        together(objective),
        parts.as_ref(),
        share,
        |some| {
            let scores = objective.scores_with_holes(vectors, &points[some])?;
            let numbers = scores
                .iter()
                .map(|s| [s.loss, s.accuracy.unwrap_or(f64::NAN)]);
            Ok(numbers.collect())
        },
    )?;
    warn_of_holes("the loss", points, |i| numbers[i][0].is_nan());
    let has_labels = matches!(objective.data().targets(), Targets::Labels(_));
    let score = |[loss, accuracy]: &[f64; 2]| Score {
        loss: *loss,
        accuracy: has_labels.then_some(*accuracy),
    };
    Ok(numbers.iter().map(score).collect())
}

/// Says at which of some points `what` is not finite.
fn warn_of_holes(what: &str, points: &[[f64; 2]], is_hole: impl Fn(usize) -> bool) {
    const MOST: usize = 3;
    let holes: Vec<usize> = (0..points.len()).filter(|i| is_hole(*i)).collect();
    let is_line = points.iter().all(|[_, beta]| *beta == 0.0);
    let named = holes.iter().take(MOST).map(|i| match points[*i] {
        [alpha, _] if is_line => format!("α = {alpha:?}"),
        [alpha, beta] => format!("(α, β) = ({alpha:?}, {beta:?})"),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if holes.len() > MOST { ", …" } else { "" };
    if !holes.is_empty() {
        warn(&format!(
            "{what}: not finite at {} of {} points, which are left out as NaN: {named}{more}",
            holes.len(),
            points.len()
        ));
    }
}

/// How many points of a line or plane are asked for at once: hand-derived rules make the products that do not
/// depend on the point once for all of them.
fn together(objective: &Objective) -> usize {
    if objective.is_hand_derived() { 64 } else { 1 }
}

/// A hash of the point θ with its running statistics and of some directions.
fn fingerprint_at(objective: &Objective, theta: &[f64], directions: &[&[f64]]) -> Result<u64> {
    let point = objective.point(Some(theta))?;
    Ok(fingerprint(&[&[&point[..]], directions].concat()))
}

/// Refuses to add to a result that was computed at another point or along other directions.
fn check_fingerprint(found: u64, expected: u64, what: &str) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the model has moved since this {what} was computed, or the directions are others: give those of the {what}, \
             with the model where it was"
        ))),
    }
}

/// θ where the model stands, after a look at two directions from there.
fn origin(objective: &Objective, d1: &[f64], d2: &[f64]) -> Result<Vec<f64>> {
    let parameters = objective.parameters();
    for (direction, what) in [(d1, "first direction"), (d2, "second direction")] {
        parameters.check_vector(direction, what)?;
        if direction.iter().all(|d| *d == 0.0) {
            return Err(Error::invalid(format!(
                "the {what} is zero: the loss does not change along it"
            )));
        }
    }
    parameters.to_flat()
}
