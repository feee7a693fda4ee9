//! Checks of flags, before any work.

use loss_landscape::Error;

/// Rejects values that are not finite or not above 0.
pub fn positive(flag: &str, value: f64) -> Result<(), Error> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "--{flag} must be finite and above 0, found {value}"
        ))),
    }
}

/// Rejects values that are not finite or below 0.
pub fn not_negative(flag: &str, value: f64) -> Result<(), Error> {
    match value >= 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "--{flag} must be finite and at least 0, found {value}"
        ))),
    }
}

pub fn at_least(least: usize, flag: &str, value: usize) -> Result<(), Error> {
    match value >= least {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "--{flag} must be at least {least}, found {value}"
        ))),
    }
}
