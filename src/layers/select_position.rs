//! [`SelectPosition`]: one position of a sequence.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::copied_rows::CopiedRows;
use super::graph::GraphBuilder;
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
        let output = self.output_shape(network.shape(), network.parameters())?;
        let rules = CopiedRows {
            input_len: network.shape().len(),
            width: output.len(),
            starts: vec![self.position * output.len()],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, evaluate};

    #[test]
    fn a_position_is_selected_and_derivatives_match_differences() {
        for (positions, features, position) in [(4, 3, 0), (4, 3, 3), (1, 5, 0), (6, 1, 2)] {
            for (samples, k) in [(3, 2), (1, 1)] {
                let rules = CopiedRows {
                    input_len: positions * features,
                    width: features,
                    starts: vec![position * features],
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
