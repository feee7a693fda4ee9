//! [`ClassToken`]: learned positions before those of a sample.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::{Layer, Misfit, Pass, Shape, UnitGraph, param, var};
use crate::kernels::Scalar;
use crate::kernels::elementwise::add;
use crate::parameters::Parameters;

/// Learned tokens before the positions of a sample: the class token of a vision transformer (Dosovitskiy et al., "An Image is Worth
/// 16x16 Words", 2021). [`SelectPosition`](super::SelectPosition) reads it out.
///
/// ```
/// use loss_landscape::layers::{ClassToken, SelectPosition};
/// use loss_landscape::prelude::*;
///
/// let token = Var::new(&[[7.0, 8.0]], &Device::Cpu)?;
/// let parameters = Parameters::new([("token".to_owned(), token)])?;
/// let sequence = Tensor::new(&[[[1.0, 2.0]]], &Device::Cpu)?;
/// let model = Layered::new(vec![ClassToken::new("token").into()], parameters.clone());
/// assert_eq!(model.forward(&sequence)?.to_vec3::<f64>()?, [[[7.0, 8.0], [1.0, 2.0]]]);
/// let layers = vec![ClassToken::new("token").into(), SelectPosition::new(0).into()];
/// let model = Layered::new(layers, parameters);
/// assert_eq!(model.forward(&sequence)?.to_vec2::<f64>()?, [[7.0, 8.0]]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Shapes
/// Samples of shape (positions, features) to (tokens + positions, features).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassToken {
    /// Name of the weight, shape (tokens, features).
    pub weight: String,
}

impl ClassToken {
    /// A layer whose weight has this name.
    pub fn new(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
        }
    }
}

impl Layer for ClassToken {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let weight = param(self, input, parameters, &self.weight)?;
        match (weight.dims(), input.dims()) {
            (&[tokens, width], &[positions, features]) if width == features => {
                Ok(Shape::new([tokens + positions, features]))
            }
            (&[_, width], _) => {
                let wanted = format!("shape (positions, {width})");
                Err(Misfit::new(self, input, wanted))
            }
            (dims, _) => {
                let wanted = format!("a weight of shape (tokens, features), not {dims:?}");
                Err(Misfit::new(self, input, wanted))
            }
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let (n, _, features) = x.dims3()?;
        let weight = var(parameters, &self.weight)?;
        let tokens = weight.broadcast_as((n, weight.dim(0)?, features))?;
        Tensor::cat(&[&tokens.contiguous()?, x], 1)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let input = network.shape().len();
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let rules = TokenRules {
            input,
            weight: network.range(self, &self.weight)?,
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = graph.read(self, 1);
        graph.name_axis(&self.weight, 1, &units);
        graph.output(shape, 1, units);
        Ok(())
    }
}

/// y = (weight, x) for x of `input` values.
struct TokenRules {
    input: usize,
    weight: Range<usize>,
}

impl TokenRules {
    fn output(&self) -> usize {
        self.weight.len() + self.input
    }

    /// Writes rows of y with `k` rows per sample, one for each vector; `None` stands for zeros.
    fn join<T: Scalar>(&self, vectors: &Packed<T>, x: Option<&[T]>, y: &mut [T]) {
        let tokens = self.weight.len();
        for (i, y) in y.chunks_exact_mut(self.output()).enumerate() {
            let vector = i % vectors.count;
            let (own, rest) = y.split_at_mut(tokens);
            own.copy_from_slice(&vectors.forward[vector * tokens..][..tokens]);
            match x {
                Some(x) => rest.copy_from_slice(&x[i * self.input..][..self.input]),
                None => rest.fill(T::ZERO),
            }
        }
    }
}

impl<T: Scalar> Rules<T> for TokenRules {
    fn output_len(&self) -> usize {
        self.output()
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone()]
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let tokens = vectors.iter().flat_map(|v| &v[self.weight.clone()]);
        tokens.copied().collect()
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.join(theta, Some(x), y);
    }

    fn forward_tangent(&self, _primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        self.join(tangent.directions, tangent.rx, ry);
    }

    fn backward_tangent(
        &self,
        _primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        let rows = tangent.rdy.chunks_exact(self.output());
        for (rdx, rdy) in rdx.chunks_exact_mut(self.input).zip(rows) {
            rdx.copy_from_slice(&rdy[self.weight.len()..]);
        }
    }

    fn gradient_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        _mode: Mode,
    ) {
        write.prepare(gradient);
        let k = tangent.rdy.len() / (primal.samples * self.output());
        let tokens = self.weight.len();
        for (i, rdy) in tangent.rdy.chunks_exact(self.output()).enumerate() {
            let gradient = &mut gradient[i % k * tokens..][..tokens];
            add(&rdy[..tokens], gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, evaluate};

    #[test]
    fn tokens_come_first_and_derivatives_match_differences() {
        for (input, tokens, samples, k) in [(6, 2, 3, 2), (1, 1, 1, 1), (4, 8, 2, 3)] {
            let rules = TokenRules {
                input,
                weight: 1..1 + tokens,
            };
            let tile = Tile::random([input, tokens + input, tokens + 2], samples, k, 4);
            let rows = tile.x.chunks(input);
            let y: Vec<f64> = rows
                .flat_map(|x| [&tile.theta[1..=tokens], x].concat())
                .collect();
            assert_eq!(evaluate::<f64>(&rules, &tile).y, y);
            check(&rules, &tile, 1e-10);
            check(&rules, &Tile { rx: None, ..tile }, 1e-10);
        }
    }
}
