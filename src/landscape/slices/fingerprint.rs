//! Hashes that tie a line or plane to its point and directions.

use crate::checkpoint::fingerprint;
use crate::error::{Error, Result};
use crate::objective::Objective;

/// Returns a hash of θ, its running statistics and some directions.
pub(super) fn fingerprint_at(
    objective: &Objective,
    theta: &[f64],
    directions: &[&[f64]],
) -> Result<u64> {
    let point = objective.point(Some(theta))?;
    Ok(fingerprint(&[&[&point[..]], directions].concat()))
}

/// Returns an error if a result belongs to another point or other directions.
pub(super) fn check_fingerprint(found: u64, expected: u64, what: &str) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the model has moved since this {what} was computed, or the directions differ: pass the directions of the {what} \
             and restore the model's parameters"
        ))),
    }
}
