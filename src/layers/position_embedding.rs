//! [`PositionEmbedding`]: adds a row of a table to each position.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::{Layer, Misfit, Pass, Shape, UnitGraph, param, var};
use crate::kernels::Scalar;
use crate::kernels::elementwise::{add, sum};
use crate::parameters::Parameters;

/// Learned position embedding: adds row t of the weight to position t of a sample. Samples can be shorter than the
/// table.
///
/// # Shapes
/// Samples of shape (positions, features); the output has the shape of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionEmbedding {
    /// Name of the table, shape (context, features) with context ≥ positions.
    pub weight: String,
}

impl PositionEmbedding {
    /// A position embedding whose table has this name.
    pub fn new(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
        }
    }
}

impl Layer for PositionEmbedding {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        match (
            param(self, input, parameters, &self.weight)?.dims(),
            input.dims(),
        ) {
            (&[context, width], &[positions, features]) if width == features => {
                match positions <= context {
                    true => Ok(input.clone()),
                    false => Err(misfit(format!(
                        "at most {context} positions, the rows of `{}`",
                        self.weight
                    ))),
                }
            }
            (&[_, width], _) => Err(misfit(format!("shape (positions, {width})"))),
            (dims, _) => Err(misfit(format!(
                "a weight of shape (context, features), not {dims:?}"
            ))),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        x.broadcast_add(&var(parameters, &self.weight)?.narrow(0, 0, x.dim(1)?)?)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let rules = PositionRules {
            size: shape.len(),
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

/// y = x + the first `size` values of the weight.
struct PositionRules {
    size: usize,
    weight: Range<usize>,
}

impl<T: Scalar> Rules<T> for PositionRules {
    fn output_len(&self) -> usize {
        self.size
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone()]
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let rows = vectors.iter();
        let rows = rows.flat_map(|v| &v[self.weight.clone()][..self.size]);
        rows.copied().collect()
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        for (x, y) in x.chunks_exact(self.size).zip(y.chunks_exact_mut(self.size)) {
            sum(x, &theta.forward, y);
        }
    }

    fn forward_tangent(&self, _primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let rows = &tangent.directions.forward;
        for (s, ry) in ry.chunks_exact_mut(rows.len()).enumerate() {
            match tangent.rx {
                Some(rx) => sum(&rx[s * rows.len()..][..rows.len()], rows, ry),
                None => ry.copy_from_slice(rows),
            }
        }
    }

    fn backward_tangent(
        &self,
        _primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        rdx.copy_from_slice(tangent.rdy);
    }

    fn gradient_tangent(
        &self,
        _primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        _mode: Mode,
    ) {
        write.prepare(gradient);
        for rdy in tangent.rdy.chunks_exact(tangent.count() * self.size) {
            let tables = gradient.chunks_exact_mut(self.weight.len());
            for (rdy, table) in rdy.chunks_exact(self.size).zip(tables) {
                add(rdy, &mut table[..self.size]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn each_position_gets_its_row_and_derivatives_match_differences() {
        for (positions, context, features, samples, k) in [(3, 5, 2, 4, 2), (1, 1, 1, 1, 1)] {
            let size = positions * features;
            let rules = PositionRules {
                size,
                weight: 1..1 + context * features,
            };
            let sizes = [size, size, context * features + 2];
            let tile = Tile::random(sizes, samples, k, 3);
            let y = tile.x.iter().enumerate();
            let y: Vec<f64> = y.map(|(i, x)| x + tile.theta[1 + i % size]).collect();
            close("y", &evaluate::<f64>(&rules, &tile).y, &y, 1e-15);
            check(&rules, &tile, 1e-10);
            check(&rules, &Tile { rx: None, ..tile }, 1e-10);
        }
    }
}
