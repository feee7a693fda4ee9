//! [`LayerNorm`]: normalisation over the last axis.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::normalization::{GroupedNorm, Sharing};
use super::scale_shift::{ScaleShift, check_last_axis};
use super::{Layer, Misfit, Pass, Shape, UnitGraph, var};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// Layer normalisation (Ba, Kiros and Hinton, "Layer normalization", 2016): y = γ (x − μ)/√(σ² + ε) + β with the mean μ and the
/// biased variance σ² over the last axis.
///
/// # Shapes
/// Samples of shape (…, features); the output has the shape of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm {
    /// Name of γ, shape (features,).
    pub weight: String,
    /// Name of β, shape (features,).
    pub bias: String,
    /// ε, at least 0.
    pub epsilon: f64,
}

impl LayerNorm {
    /// A layer with ε = 10⁻⁵.
    pub fn new(weight: impl Into<String>, bias: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
            bias: bias.into(),
            epsilon: 1e-5,
        }
    }

    /// Sets ε.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }
}

impl Layer for LayerNorm {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let names = [&self.weight, &self.bias];
        check_last_axis(self, input, parameters, self.epsilon, &names)?;
        Ok(input.clone())
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centered.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?;
        centered
            .broadcast_div(&deviation)?
            .broadcast_mul(&var(parameters, &self.weight)?)?
            .broadcast_add(&var(parameters, &self.bias)?)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let [weight, bias] = [&self.weight, &self.bias].map(|name| network.range(self, name));
        let rules = GroupedNorm {
            groups: shape.len() / shape.last(),
            channels: shape.last(),
            pixels: 1,
            epsilon: self.epsilon,
            scales: ScaleShift::new(weight?, bias?),
            sharing: Sharing::Shared,
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let axis = shape.last_axis();
        let units = graph.read(self, axis);
        for name in [&self.weight, &self.bias] {
            graph.name_axis(name, 0, &units);
        }
        graph.output(shape, axis, units);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn output_matches_the_formula_and_derivatives_match_differences() {
        for (positions, features, samples, k) in
            [(1, 7, 3, 2), (5, 4, 2, 3), (3, 37, 2, 1), (4, 1, 2, 2)]
        {
            for epsilon in [1e-5, 0.3] {
                let rules = GroupedNorm {
                    groups: positions,
                    channels: features,
                    pixels: 1,
                    epsilon,
                    scales: ScaleShift::new(1..features + 1, features + 1..2 * features + 1),
                    sharing: Sharing::Shared,
                };
                let size = positions * features;
                let tile = Tile::random([size, size, 2 * features + 2], samples, k, 5);
                let rows = tile.x.chunks(features).flat_map(|x| {
                    let n = features as f64;
                    let mean = x.iter().sum::<f64>() / n;
                    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                    let theta = &tile.theta;
                    x.iter().enumerate().map(move |(i, x)| {
                        let normal = (x - mean) / (variance + epsilon).sqrt();
                        theta[1 + i] * normal + theta[1 + features + i]
                    })
                });
                let rows: Vec<f64> = rows.collect();
                close("y", &evaluate::<f64>(&rules, &tile).y, &rows, 1e-12);
                // A single feature equals its mean: only ε keeps its derivatives finite.
                if features > 1 || epsilon > 0.1 {
                    check(&rules, &tile, 1e-9);
                    check(&rules, &Tile { rx: None, ..tile }, 1e-9);
                }
            }
        }
    }
}
