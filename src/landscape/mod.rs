//! Slices of the loss: [`Line`]s and [`Plane`]s through the point where a model stands, along
//! [`direction`]s in θ-space; [`Curve`]s from one model to another, and [what brings them together](align).
//! The model is the same afterwards, to the bit.

pub mod align;
pub mod direction;

mod connect;
mod connectivity;
mod curve;
mod line;
mod plane;
mod profile;
mod statistics;

pub use align::{Alignment, HiddenUnits, UnitAxis};
pub use connect::{PathShape, PathTrainer};
pub use connectivity::Connectivity;
pub use curve::Curve;
pub use line::Line;
pub use plane::Plane;
pub use profile::PathProfile;
pub use statistics::{NormStatistics, RunningStatistics};

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::progress::Progress;

/// L(θ + αd₁ + βd₂) for `vectors` θ, d₁, d₂ and each of some points α, β.
fn losses(
    task: &'static str,
    objective: &Objective,
    vectors: [&[f64]; 3],
    points: &[[f64; 2]],
) -> Result<Vec<f64>> {
    // Hand-derived rules make the products that do not depend on the point once for all of them.
    let together = if objective.is_hand_derived() { 64 } else { 1 };
    let mut progress = Progress::start(task);
    let mut losses = Vec::with_capacity(points.len());
    for some in points.chunks(together) {
        losses.extend(
            objective
                .scores_on_plane(vectors, some)?
                .iter()
                .map(|s| s.loss),
        );
        progress.part(losses.len(), points.len());
    }
    Ok(losses)
}

fn check_grid(radius: f64, points: usize) -> Result<()> {
    if !(radius > 0.0 && radius.is_finite()) {
        return Err(Error::invalid(format!(
            "a radius of {radius} spans nothing: give a finite number above 0"
        )));
    }
    if points < 2 {
        return Err(Error::invalid(format!(
            "{points} points make no line: ask for at least 2, an odd number to have the centre \
             among them"
        )));
    }
    Ok(())
}
