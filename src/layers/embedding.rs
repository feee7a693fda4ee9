//! [`Embedding`]: a row of a table for each token.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::units::FIXED;
use super::{Layer, Misfit, Pass, Shape, UnitGraph, param, var};
use crate::kernels::Scalar;
use crate::kernels::elementwise::add;
use crate::parameters::Parameters;

/// An embedding table: token t becomes row t of the weight.
///
/// It must be the first layer, on `u32` tokens, which have no derivative. A token that is not in the table is an
/// error in the forward pass.
///
/// # Shapes
/// Samples of tokens of shape (…) to (…, features).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedding {
    /// Name of the table, shape (tokens, features).
    pub weight: String,
}

impl Embedding {
    /// An embedding whose table has this name.
    pub fn new(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
        }
    }
}

impl Layer for Embedding {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let weight = param(self, input, parameters, &self.weight)?;
        match weight.dims() {
            [_, features] => Ok(Shape::new([input.dims(), &[*features]].concat())),
            dims => Err(Misfit::new(
                self,
                input,
                format!("a weight of shape (tokens, features), not {dims:?}"),
            )),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        if !x.dtype().is_int() {
            candle_core::bail!("Embedding takes tokens of type u32, not {:?}", x.dtype());
        }
        let weight = var(parameters, &self.weight)?;
        let rows = weight.index_select(&x.flatten_all()?, 0)?;
        rows.reshape([x.dims(), &[weight.dim(1)?]].concat())
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let (input, parameters) = (network.shape().clone(), network.parameters());
        let output = self.output_shape(&input, parameters)?;
        let table = param(self, &input, parameters, &self.weight)?;
        if !network.take_tokens(table.dims()[0]) {
            let wanted = "tokens: it must be the first layer".into();
            return Err(Misfit::new(self, &input, wanted));
        }
        let rules = EmbeddingRules {
            positions: input.len(),
            features: output.last(),
            weight: network.range(self, &self.weight)?,
        };
        network.push(rules, output);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let (input, parameters) = (graph.shape().clone(), graph.parameters());
        let shape = self.output_shape(&input, parameters)?;
        let tokens = param(self, &input, parameters, &self.weight)?.dims()[0];
        graph.name_axis(&self.weight, 0, &vec![FIXED; tokens]);
        let written = graph.begin(shape.last());
        graph.name_axis(&self.weight, 1, &written);
        let axis = shape.last_axis();
        graph.output(shape, axis, written);
        Ok(())
    }
}

/// Rows of x hold tokens as floating-point numbers.
struct EmbeddingRules {
    positions: usize,
    features: usize,
    weight: Range<usize>,
}

impl EmbeddingRules {
    /// The row of each token in a table.
    fn rows<T: Scalar>(&self, tokens: &[T]) -> impl Iterator<Item = Range<usize>> {
        let features = self.features;
        tokens.iter().map(move |token| {
            let start = token.f64() as usize * features;
            start..start + features
        })
    }

    /// Looks the tokens up in each of `k` tables.
    fn look_up<T: Scalar>(&self, tables: &[T], k: usize, tokens: &[T], y: &mut [T]) {
        let size = self.positions * self.features;
        let samples = tokens.chunks_exact(self.positions);
        for (tokens, y) in samples.zip(y.chunks_exact_mut(k * size)) {
            let tables = tables.chunks_exact(self.weight.len());
            for (table, y) in tables.zip(y.chunks_exact_mut(size)) {
                for (row, y) in self.rows(tokens).zip(y.chunks_exact_mut(self.features)) {
                    y.copy_from_slice(&table[row]);
                }
            }
        }
    }
}

impl<T: Scalar> Rules<T> for EmbeddingRules {
    fn output_len(&self) -> usize {
        self.positions * self.features
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone()]
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let tables = vectors.iter().flat_map(|v| &v[self.weight.clone()]);
        tables.copied().collect()
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.look_up(&theta.forward, 1, x, y);
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        self.look_up(&tangent.directions.forward, tangent.count(), primal.x, ry);
    }

    /// Tokens have no derivative.
    fn backward_tangent(
        &self,
        _primal: &Primal<T>,
        _tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        rdx.fill(T::ZERO);
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
        let (size, k) = (self.positions * self.features, tangent.count());
        let samples = primal.x.chunks_exact(self.positions);
        for (tokens, rdy) in samples.zip(tangent.rdy.chunks_exact(k * size)) {
            let tables = gradient.chunks_exact_mut(self.weight.len());
            for (table, rdy) in tables.zip(rdy.chunks_exact(size)) {
                for (row, rdy) in self.rows(tokens).zip(rdy.chunks_exact(self.features)) {
                    add(rdy, &mut table[row]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check};

    #[test]
    fn derivatives_match_differences() {
        for (positions, features, samples, k) in [(4, 3, 3, 2), (1, 2, 2, 1)] {
            let tokens = 5;
            let rules = EmbeddingRules {
                positions,
                features,
                weight: 1..1 + tokens * features,
            };
            let sizes = [positions, positions * features, tokens * features + 2];
            let mut tile = Tile::random(sizes, samples, k, 3);
            for (i, x) in tile.x.iter_mut().enumerate() {
                *x = (i * 7 % tokens) as f64;
            }
            check(&rules, &Tile { rx: None, ..tile }, 1e-10);
        }
    }
}
