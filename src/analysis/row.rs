//! [`Row`]: a quantity, its value, how uncertain it is, and what it means.

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

    pub(super) fn give_or_take(mut self, error: f64) -> Self {
        self.uncertainty = Some(error);
        self
    }

    pub(super) fn sampled(mut self, sampling: Option<SamplingError>) -> Self {
        self.sampling = sampling;
        self
    }

    pub(super) fn verdict(mut self, words: impl Into<String>) -> Self {
        self.verdict = words.into();
        self
    }

    /// As uncertain as the further of the bounds is away.
    pub(super) fn between(quantity: &str, found: Option<Bracket>) -> Self {
        Self {
            uncertainty: found.as_ref().map(Bracket::error),
            ..Self::new(quantity, found.map(|b| b.value))
        }
    }

    /// With its standard error.
    pub(super) fn estimate(quantity: &str, found: Option<Estimate>) -> Self {
        Self {
            uncertainty: found.map(|e| e.standard_error),
            ..Self::new(quantity, found.map(|e| e.value))
        }
    }
}

/// The bounds of a number on the measured samples, or those of its 95 % interval for all samples where they are further.
pub(super) fn widened(number: Bracket, sampling: Option<SamplingError>) -> Bracket {
    Bracket {
        low: sampling.map_or(number.low, |s| number.low.min(s.low)),
        high: sampling.map_or(number.high, |s| number.high.max(s.high)),
        ..number
    }
}
