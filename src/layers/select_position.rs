//! [`SelectPosition`]: one position of a sequence.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// One position of a sample, such as its [class token](super::ClassToken).
///
/// # Shapes
/// Samples of shape (positions, features) to (features,).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectPosition {
    /// The position, from 0.
    pub position: usize,
}

impl SelectPosition {
    /// Selects this position.
    pub fn new(position: usize) -> Self {
        Self { position }
    }
}

impl Layer for SelectPosition {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        match input.dims() {
            [positions, features] if self.position < *positions => Ok(Shape::new([*features])),
            _ => {
                let wanted = format!(
                    "shape (positions, features) with at least {} positions",
                    self.position + 1
                );
                Err(Misfit::new(self, input, wanted))
            }
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        x.narrow(1, self.position, 1)?.squeeze(1)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let input = network.shape().len();
        let output = self.output_shape(network.shape(), network.parameters())?;
        let rules = SelectRules {
            input,
            start: self.position * output.len(),
            features: output.len(),
        };
        network.push(rules, output);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = graph.read(self, 1);
        graph.output(shape, 0, units);
        Ok(())
    }
}

/// y = the `features` values of x from `start` on; x has `input` values.
struct SelectRules {
    input: usize,
    start: usize,
    features: usize,
}

impl SelectRules {
    fn select<T: Scalar>(&self, x: &[T], y: &mut [T]) {
        let rows = x.chunks_exact(self.input);
        for (x, y) in rows.zip(y.chunks_exact_mut(self.features)) {
            y.copy_from_slice(&x[self.start..][..self.features]);
        }
    }
}

impl<T: Scalar> Rules<T> for SelectRules {
    fn output_len(&self) -> usize {
        self.features
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.select(x, y);
    }

    fn forward_tangent(&self, _primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        match tangent.rx {
            Some(rx) => self.select(rx, ry),
            None => ry.fill(T::ZERO),
        }
    }

    fn backward_tangent(
        &self,
        _primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        rdx.fill(T::ZERO);
        let rows = tangent.rdy.chunks_exact(self.features);
        for (rdx, rdy) in rdx.chunks_exact_mut(self.input).zip(rows) {
            rdx[self.start..][..self.features].copy_from_slice(rdy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, evaluate};

    #[test]
    fn a_position_is_selected_and_derivatives_match_differences() {
        for (positions, features, position) in [(4, 3, 0), (4, 3, 3), (1, 5, 0), (6, 1, 2)] {
            for (samples, k) in [(3, 2), (1, 1)] {
                let rules = SelectRules {
                    input: positions * features,
                    start: position * features,
                    features,
                };
                let tile = Tile::random([positions * features, features, 1], samples, k, 6);
                let samples = tile.x.chunks(positions * features);
                let y: Vec<f64> = samples
                    .flat_map(|x| x[position * features..][..features].to_vec())
                    .collect();
                assert_eq!(evaluate::<f64>(&rules, &tile).y, y);
                check(&rules, &tile, 1e-10);
                check(&rules, &Tile { rx: None, ..tile }, 1e-10);
            }
        }
    }
}
