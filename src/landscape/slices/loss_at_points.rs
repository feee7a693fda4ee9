//! Loss at many points of a line or plane.

use super::Grid;
use crate::data::Targets;
use crate::error::{Error, Result};
use crate::objective::{Objective, Score};
use crate::partial_results::{Items, compute_in_parts};
use crate::progress::warn;
use crate::ranks::Share;

/// Returns loss and accuracy at θ + αd₁ + βd₂ for `vectors` θ, d₁, d₂ and each of the `points` (α, β). With a `grid`, work
/// resumes from its checkpoint and is shared as it says. Both values are NaN where the loss is not finite; a warning names
/// these points.
pub(super) fn scores(
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
    let items = Items {
        task,
        count: points.len(),
        numbers: 2,
        chunk: points_per_pass(objective),
    };
    let numbers = compute_in_parts(items, parts.as_ref(), share, |range| {
        let scores = objective.scores_or_nan(vectors, &points[range])?;
        let numbers = scores
            .iter()
            .flat_map(|s| [s.loss, s.accuracy.unwrap_or(f64::NAN)]);
        Ok(numbers.collect())
    })?;
    let (numbers, _) = numbers.as_chunks::<2>();
    warn_of_non_finite("the loss", points, |i| numbers[i][0].is_nan());
    let has_labels = matches!(objective.data().targets(), Targets::Labels(_));
    let score = |[loss, accuracy]: &[f64; 2]| Score {
        loss: *loss,
        accuracy: has_labels.then_some(*accuracy),
    };
    Ok(numbers.iter().map(score).collect())
}

/// Warns about the points at which `what` is not finite.
pub(super) fn warn_of_non_finite(
    what: &str,
    points: &[[f64; 2]],
    is_missing: impl Fn(usize) -> bool,
) {
    const MAX_NAMED: usize = 3;
    let missing: Vec<usize> = (0..points.len()).filter(|i| is_missing(*i)).collect();
    let is_line = points.iter().all(|[_, beta]| *beta == 0.0);
    let named = missing.iter().take(MAX_NAMED).map(|i| match points[*i] {
        [alpha, _] if is_line => format!("α = {alpha:?}"),
        [alpha, beta] => format!("(α, β) = ({alpha:?}, {beta:?})"),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if missing.len() > MAX_NAMED {
        ", …"
    } else {
        ""
    };
    if !missing.is_empty() {
        warn(&format!(
            "{what}: not finite at {} of {} points, which are stored as NaN: {named}{more}",
            missing.len(),
            points.len()
        ));
    }
}

/// Returns the number of points evaluated in one pass. With hand-derived derivatives, the matrix products that do not depend
/// on the point are then computed once for all of them.
pub(in crate::landscape) fn points_per_pass(objective: &Objective) -> usize {
    if objective.is_hand_derived() { 64 } else { 1 }
}

/// Checks two directions and returns the model's current θ.
pub(super) fn origin(objective: &Objective, d1: &[f64], d2: &[f64]) -> Result<Vec<f64>> {
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
