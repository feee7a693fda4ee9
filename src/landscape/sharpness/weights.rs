//! [`WeightMatrix`]: a layer's weights as a matrix with one row for each unit, and lists of results by layer.

use std::fmt::Formatter;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::Estimate;
use crate::vector::dot;

/// A parameter with two or more axes. The first numbers the units.
pub(super) struct WeightMatrix {
    pub(super) name: String,
    /// Its range in θ.
    pub(super) range: Range<usize>,
    pub(super) units: usize,
    /// Number of weights of a unit.
    pub(super) inputs: usize,
    /// The weights, unit by unit.
    pub(super) values: Vec<f64>,
}

impl WeightMatrix {
    /// ⟨wₛ, wₜ⟩
    pub(super) fn gram(&self, s: usize, t: usize) -> f64 {
        let row = |i: usize| &self.values[i * self.inputs..][..self.inputs];
        dot(row(s), row(t))
    }
}

/// Returns the weight matrices at the model's θ, in order.
///
/// # Errors
/// There are none.
pub(super) fn weight_matrices(objective: &Objective) -> Result<Vec<WeightMatrix>> {
    let parameters = objective.parameters();
    let theta = parameters.to_flat()?;
    let named = parameters.shapes().into_iter().zip(parameters.ranges());
    let matrices = named.filter(|((_, shape), _)| shape.len() >= 2);
    let matrices = matrices.map(|((name, shape), range)| WeightMatrix {
        name,
        units: shape[0],
        inputs: shape[1..].iter().product(),
        values: theta[range.clone()].to_vec(),
        range,
    });
    let matrices: Vec<WeightMatrix> = matrices.collect();
    match matrices.is_empty() {
        true => Err(Error::invalid(
            "the model has no parameter with two or more axes, and this measure is defined by layers' weight matrices",
        )),
        false => Ok(matrices),
    }
}

/// Writes a line for each layer's name and estimate.
pub(super) fn write_layers(
    f: &mut Formatter<'_>,
    measure: &str,
    layers: &[(String, Estimate)],
) -> std::fmt::Result {
    write!(f, "{measure}:")?;
    layers
        .iter()
        .try_for_each(|(name, estimate)| write!(f, "\n  {name}: {estimate}"))
}
