//! Normalisation of inputs as a flag.

use std::str::FromStr;

use loss_landscape::data::InputNormalization;
use loss_landscape::serde::{Serialize, Serializer};

pub const NORMALIZE_HELP: &str = "Normalise inputs by mean and deviation of the training samples, or by these: \
    means:deviations, such as 0.1307:0.3081 or 0.49,0.48,0.45:0.25,0.24,0.26. Images have a mean and deviation per channel, tables per \
    column, other inputs one";

/// Normalisation of inputs.
#[derive(Clone, Debug)]
pub enum Normalize {
    /// By mean and deviation of the training samples.
    Training,
    Given(InputNormalization),
}

impl FromStr for Normalize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "true" {
            return Ok(Self::Training);
        }
        let numbers = |text: &str| -> Result<Vec<f64>, String> {
            let number = |text: &str| {
                let number = text.trim().parse::<f64>();
                number.map_err(|_| format!("`{text}` is not a number"))
            };
            text.split(',').map(number).collect()
        };
        let (mean, deviation) = text
            .split_once(':')
            .ok_or("expected means:deviations, such as 0.1307:0.3081")?;
        let normalization = InputNormalization::new(numbers(mean)?, numbers(deviation)?);
        normalization.map(Self::Given).map_err(|e| e.to_string())
    }
}

impl Serialize for Normalize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Given(normalization) = self else {
            return serializer.serialize_bool(true);
        };
        let join = |values: &[f64]| {
            let values = values.iter().map(f64::to_string);
            values.collect::<Vec<_>>().join(",")
        };
        let (mean, deviation) = (&normalization.mean, &normalization.deviation);
        serializer.serialize_str(&format!("{}:{}", join(mean), join(deviation)))
    }
}
