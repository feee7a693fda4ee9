//! [`PositionMean`]: the mean over the positions of a sequence.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::elementwise::{add_rows, repeat};
use crate::parameters::Parameters;

/// The mean over the positions of a sample.
///
/// # Shapes
/// Samples of shape (positions, features) to (features,).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionMean;

impl Layer for PositionMean {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        match input.dims() {
            [positions, features] if *positions > 0 && *features > 0 => Ok(Shape::new([*features])),
            _ => Err(Misfit::new(
                self,
                input,
                "shape (positions, features)".into(),
            )),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        x.mean(1)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let output = self.output_shape(network.shape(), network.parameters())?;
        let rules = MeanRules {
            positions: network.shape().dims()[0],
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

struct MeanRules {
    positions: usize,
    features: usize,
}

impl MeanRules {
    fn share<T: Scalar>(&self) -> T {
        T::from_f64(1.0 / self.positions as f64)
    }

    fn mean<T: Scalar>(&self, x: &[T], y: &mut [T]) {
        let samples = x.chunks_exact(self.positions * self.features);
        for (x, y) in samples.zip(y.chunks_exact_mut(self.features)) {
            y.fill(T::ZERO);
            add_rows(x, y);
            y.iter_mut().for_each(|y| *y = self.share::<T>() * *y);
        }
    }
}

impl<T: Scalar> Rules<T> for MeanRules {
    fn output_len(&self) -> usize {
        self.features
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.mean(x, y);
    }

    fn forward_tangent(&self, _primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        match tangent.rx {
            Some(rx) => self.mean(rx, ry),
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
        let mut row = vec![T::ZERO; self.features];
        let samples = tangent.rdy.chunks_exact(self.features);
        for (rdy, rdx) in samples.zip(rdx.chunks_exact_mut(self.positions * self.features)) {
            for (row, rdy) in row.iter_mut().zip(rdy) {
                *row = self.share::<T>() * *rdy;
            }
            repeat(&row, rdx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn features_are_averaged_and_derivatives_match_differences() {
        for (positions, features, samples, k) in [(5, 3, 4, 2), (1, 4, 2, 1), (7, 1, 1, 3)] {
            let rules = MeanRules {
                positions,
                features,
            };
            let size = positions * features;
            let tile = Tile::random([size, features, 2], samples, k, 3);
            let mean = |x: &[f64], i: usize| {
                x.iter().skip(i).step_by(features).sum::<f64>() / positions as f64
            };
            let rows = tile.x.chunks(size);
            let y = rows.flat_map(|x| (0..features).map(move |i| mean(x, i)));
            let y: Vec<f64> = y.collect();
            close("y", &evaluate::<f64>(&rules, &tile).y, &y, 1e-14);
            check(&rules, &tile, 1e-10);
            check(&rules, &Tile { rx: None, ..tile }, 1e-10);
        }
    }
}
