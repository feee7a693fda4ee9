//! Hashes that tie a line or plane to its point and directions.

use crate::checkpoint::fingerprint;
use crate::error::{Error, Result};
use crate::objective::Objective;

/// A hash of the point θ with its running statistics and of some directions.
pub(super) fn fingerprint_at(
    objective: &Objective,
    theta: &[f64],
    directions: &[&[f64]],
) -> Result<u64> {
    let point = objective.point(Some(theta))?;
    Ok(fingerprint(&[&[&point[..]], directions].concat()))
}

/// Refuses to add to a result that was computed at another point or along other directions.
pub(super) fn check_fingerprint(found: u64, expected: u64, what: &str) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the model has moved since this {what} was computed, or the directions are others: give those of the {what}, \
             with the model where it was"
        ))),
    }
}
