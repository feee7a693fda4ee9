//! [`Row`]: a quantity with value, uncertainty and verdict.

use super::sampling::SamplingError;
use crate::spectral::{Bracket, Estimate};

pub(super) struct Row {
    pub(super) quantity: String,
    pub(super) value: Option<f64>,
    pub(super) uncertainty: Option<f64>,
    pub(super) sampling: Option<SamplingError>,
    pub(super) verdict: String,
}

impl Row {
    pub(super) fn new(quantity: impl Into<String>, value: impl Into<Option<f64>>) -> Self {
        Self {
            quantity: quantity.into(),
            value: value.into(),
            uncertainty: None,
            sampling: None,
            verdict: String::new(),
        }
    }

    pub(super) fn with_uncertainty(mut self, error: f64) -> Self {
        self.uncertainty = Some(error);
        self
    }

    pub(super) fn with_sampling(mut self, sampling: Option<SamplingError>) -> Self {
        self.sampling = sampling;
        self
    }

    pub(super) fn with_verdict(mut self, words: impl Into<String>) -> Self {
        self.verdict = words.into();
        self
    }

    /// A row whose uncertainty is the distance to the further bound.
    pub(super) fn from_bracket(quantity: &str, found: Option<Bracket>) -> Self {
        Self {
            uncertainty: found.as_ref().map(Bracket::error),
            ..Self::new(quantity, found.map(|b| b.value))
        }
    }

    /// A row with the standard error of an estimate.
    pub(super) fn from_estimate(quantity: &str, found: Option<Estimate>) -> Self {
        Self {
            uncertainty: found.map(|e| e.standard_error),
            ..Self::new(quantity, found.map(|e| e.value))
        }
    }
}

/// Widens the bounds of a number on the measured samples to its 95 % interval for all samples.
pub(super) fn widened(number: Bracket, sampling: Option<SamplingError>) -> Bracket {
    Bracket {
        low: sampling.map_or(number.low, |s| number.low.min(s.low)),
        high: sampling.map_or(number.high, |s| number.high.max(s.high)),
        ..number
    }
}
