//! [`GroupNorm`]: normalisation of groups of channels.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::normalization::{GroupedNorm, Sharing};
use super::scale_shift::{ScaleShift, check_epsilon, check_len, scaled};
use super::{Layer, LayerInit, LayerKind, Misfit, Pass, Shape, UnitGraph, var};
use crate::error::{Result, counted};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// Group normalisation (Wu and He, "Group normalization", 2018): y = γ (x − μ)/√(σ² + ε) + β with the mean μ and the biased
/// variance σ² of each group of neighbouring channels of each sample, γ and β per channel.
///
/// # Shapes
/// Samples of shape (channels, …); the output has the shape of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupNorm {
    /// Name of γ, shape (channels,).
    pub weight: String,
    /// Name of β, shape (channels,).
    pub bias: String,
    /// Number of groups; it divides the channels.
    pub groups: usize,
    /// ε, at least 0.
    pub epsilon: f64,
}

impl GroupNorm {
    /// A layer with ε = 10⁻⁵.
    pub fn new(weight: impl Into<String>, bias: impl Into<String>, groups: usize) -> Self {
        Self {
            weight: weight.into(),
            bias: bias.into(),
            groups,
            epsilon: 1e-5,
        }
    }

    /// Sets ε.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Initialises γ = 1 and β = 0.
    pub(crate) fn init(
        init: &mut LayerInit,
        name: &str,
        channels: usize,
        groups: usize,
    ) -> Result<LayerKind> {
        let [weight, bias] = ScaleShift::init(init, name, channels)?;
        Ok(Self::new(weight, bias, groups).into())
    }
}

impl Layer for GroupNorm {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let [channels, _] = input.channels();
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        if self.groups == 0 || !channels.is_multiple_of(self.groups) || input.len() == 0 {
            return Err(misfit(format!(
                "channels that can be divided into {}, not {channels}",
                counted(self.groups, "group")
            )));
        }
        check_epsilon(self, input, self.epsilon)?;
        for name in [&self.weight, &self.bias] {
            check_len(self, input, parameters, name, channels)?;
        }
        Ok(input.clone())
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let grouped = x.reshape((x.dim(0)?, self.groups, ()))?;
        let centered = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
        let deviation = (centered.sqr()?.mean_keepdim(2)? + self.epsilon)?.sqrt()?;
        let normal = centered.broadcast_div(&deviation)?.reshape(x.shape())?;
        let (weight, bias) = (var(parameters, &self.weight)?, var(parameters, &self.bias)?);
        scaled(&normal, &weight, &bias)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let [channels, pixels] = shape.channels();
        let [weight, bias] = [&self.weight, &self.bias].map(|name| network.range(self, name));
        let rules = GroupedNorm {
            groups: self.groups,
            channels: channels / self.groups,
            pixels,
            epsilon: self.epsilon,
            scales: ScaleShift::new(weight?, bias?),
            sharing: Sharing::ByGroup,
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = graph.read(self, 0);
        for name in [&self.weight, &self.bias] {
            graph.name_axis(name, 0, &units);
        }
        graph.divide(&[&units], self.groups);
        graph.output(shape, 0, units);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    /// γ starts at index 1 of θ, followed by β, with other layers' values around them.
    fn rules(image: [usize; 3], groups: usize, epsilon: f64) -> GroupedNorm {
        let c = image[0];
        GroupedNorm {
            groups,
            channels: c / groups,
            pixels: image[1] * image[2],
            epsilon,
            scales: ScaleShift::new(1..c + 1, c + 1..2 * c + 1),
            sharing: Sharing::ByGroup,
        }
    }

    fn tile([c, h, w]: [usize; 3], samples: usize, k: usize) -> Tile {
        Tile::random([c * h * w, c * h * w, 2 * c + 2], samples, k, 5)
    }

    /// Each value minus the mean of its group, divided by the group's standard deviation, then scaled and shifted per
    /// channel.
    fn by_definition(tile: &Tile, [c, h, w]: [usize; 3], groups: usize, epsilon: f64) -> Vec<f64> {
        let size = c / groups * h * w;
        let normal = tile.x.chunks(size).flat_map(|x| {
            let n = size as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            x.iter()
                .map(move |x| (x - mean) / (variance + epsilon).sqrt())
        });
        let scaled = normal.enumerate().map(|(i, x)| {
            let channel = i / (h * w) % c;
            tile.theta[1 + channel] * x + tile.theta[1 + c + channel]
        });
        scaled.collect()
    }

    #[test]
    fn output_matches_the_formula_and_derivatives_match_differences() {
        let shapes = [
            ([6, 3, 5], 2, 3, 2),
            ([4, 2, 2], 4, 2, 1),
            ([5, 4, 3], 1, 1, 3),
            ([1, 5, 7], 1, 2, 2),
            ([7, 1, 1], 1, 3, 2),
            ([8, 1, 1], 2, 1, 2),
            // Longer than the vector lanes, and than a block of their sums.
            ([3, 33, 35], 1, 1, 1),
            ([37, 1, 1], 1, 2, 1),
            ([18, 2, 3], 1, 1, 2),
            ([2, 6, 3], 2, 2, 2),
        ];
        for (image, groups, samples, k) in shapes {
            for epsilon in [1e-5, 0.3] {
                let (rules, tile) = (rules(image, groups, epsilon), tile(image, samples, k));
                let y = evaluate::<f64>(&rules, &tile).y;
                close(
                    "y",
                    &y,
                    &by_definition(&tile, image, groups, epsilon),
                    1e-13,
                );
                check(&rules, &tile, 1e-9);
                check(&rules, &Tile { rx: None, ..tile }, 1e-9);
            }
        }
    }

    #[test]
    fn a_constant_group_has_derivatives() {
        let image = [4, 2, 3];
        let mut tile = tile(image, 2, 2);
        tile.x.fill(0.7);
        check(&rules(image, 2, 0.5), &tile, 1e-9);
        let found = evaluate::<f64>(&rules(image, 2, 1e-5), &tile);
        close("y", &found.y, &by_definition(&tile, image, 2, 1e-5), 1e-10);
        assert!(found.rdx.iter().flatten().all(|v| v.is_finite()));
        // A group of one value has that value as its mean.
        let (one, image) = (rules([3, 1, 1], 3, 1e-5), [3, 1, 1]);
        let tile = self::tile(image, 2, 2);
        let found = evaluate::<f64>(&one, &tile);
        close("y", &found.y, &by_definition(&tile, image, 3, 1e-5), 1e-13);
        close("dx", &found.dx, &[0.0; 6], 1e-12);
        check(&rules(image, 3, 0.5), &tile, 1e-9);
    }

    /// Rounding would be 1/√ε = 300 times as large as that of dy.
    #[test]
    fn a_group_of_one_value_passes_no_derivative_to_its_input() {
        let image = [3, 1, 1];
        let tile = tile(image, 2, 2);
        let found = evaluate::<f64>(&rules(image, 3, 1e-5), &tile);
        assert!(
            found
                .dx
                .iter()
                .chain(found.rdx.iter().flatten())
                .all(|v| *v == 0.0)
        );
    }

    #[test]
    fn a_mean_far_from_zero_costs_only_its_rounding() {
        let image = [4, 8, 8];
        let mut tile = tile(image, 2, 1);
        tile.x
            .iter_mut()
            .for_each(|x| *x = f64::from((*x + 1000.0) as f32));
        let rules = rules(image, 2, 1e-5);
        let (single, double) = (
            evaluate::<f32>(&rules, &tile),
            evaluate::<f64>(&rules, &tile),
        );
        // Half a unit in the last place of 1000 is 3·10⁻⁵.
        close("y", &single.y, &double.y, 4e-5);
        close("dx", &single.dx, &double.dx, 1e-4);
        close("rdx", &single.rdx[0], &double.rdx[0], 2e-4);
    }

    #[test]
    fn a_large_constant_is_its_own_mean_in_single_precision() {
        let image = [3, 33, 35];
        let mut tile = tile(image, 1, 1);
        tile.x.fill(f64::from(12_345.678_f32));
        let rules = rules(image, 1, 1e-5);
        let (single, double) = (
            evaluate::<f32>(&rules, &tile),
            evaluate::<f64>(&rules, &tile),
        );
        close("y", &single.y, &double.y, 1e-6);
        close("dx", &single.dx, &double.dx, 1e-5);
    }
}
