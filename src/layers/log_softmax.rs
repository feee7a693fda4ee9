//! [`LogSoftmax`]: y = x − ln Σ eˣ over the last axis.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::parameters::Parameters;

/// Logarithms of the softmax over the last axis: y = x − ln Σ eˣ.
///
/// Cross-entropy of these outputs is that of x: a network that ends in this layer does not need it. It is for networks from elsewhere.
///
/// # Shapes
/// Samples of shape (…, features); the output has the shape of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSoftmax;

impl Layer for LogSoftmax {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        match input.len() > 0 && !input.dims().is_empty() {
            true => Ok(input.clone()),
            false => Err(Misfit::new(self, input, "at least one feature".into())),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
        let total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        shifted.broadcast_sub(&total)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let rules = LogSoftmaxRules {
            positions: shape.len() / shape.last(),
            features: shape.last(),
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, _graph: &mut UnitGraph) -> Result<(), Misfit> {
        Ok(())
    }
}

/// With p = eʸ,
///
/// ry = rx − p·rx, dx = dy − p Σ dy and rdx = rdy − p Σ rdy − p ∘ (rx − p·rx) Σ dy.
struct LogSoftmaxRules {
    positions: usize,
    features: usize,
}

impl LogSoftmaxRules {
    /// For each row of `features` values in a tile with `k` rows per sample: its range, and that of its position at the point.
    fn rows(
        &self,
        samples: usize,
        k: usize,
    ) -> impl Iterator<Item = [std::ops::Range<usize>; 2]> + use<> {
        let (positions, n) = (self.positions, self.features);
        (0..samples * k * positions).map(move |i| {
            let position = i / (k * positions) * positions + i % positions;
            [i, position].map(|row| row * n..(row + 1) * n)
        })
    }
}

impl<T: Scalar> Rules<T> for LogSoftmaxRules {
    fn output_len(&self) -> usize {
        self.positions * self.features
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn needs_output(&self) -> bool {
        true
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        let rows = x.chunks_exact(self.features);
        for (x, y) in rows.zip(y.chunks_exact_mut(self.features)) {
            log_softmax(x, y);
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let Some(rx) = tangent.rx else {
            return ry.fill(T::ZERO);
        };
        for [row, at] in self.rows(primal.samples, tangent.count()) {
            tangent_of_row(&primal.y[at], &rx[row.clone()], &mut ry[row]);
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        let mut ry = vec![T::ZERO; self.features];
        for [row, at] in self.rows(primal.samples, tangent.count()) {
            let (y, dy) = (&primal.y[at.clone()], &primal.dy[at]);
            if let Some(rx) = rx {
                tangent_of_row(y, &rx[row.clone()], &mut ry);
            }
            gradient_of_row([y, dy, &ry], &tangent.rdy[row.clone()], &mut rdx[row]);
        }
    }
}

vectorised! {
    fn log_softmax<T: Scalar>(x: &[T], y: &mut [T]) {
        let largest = x.iter().fold(x[0], |a, b| a.max(*b));
        for (y, x) in y.iter_mut().zip(x) {
            *y = (*x - largest).exp();
        }
        let total: f64 = y.iter().map(|e| e.f64()).sum();
        let shift = T::from_f64(largest.f64() + total.ln());
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x - shift;
        }
    }

    /// ry = rx − p·rx
    fn tangent_of_row<T: Scalar>(y: &[T], rx: &[T], ry: &mut [T]) {
        for ((ry, y), rx) in ry.iter_mut().zip(y).zip(rx) {
            *ry = y.exp() * *rx;
        }
        let mean = T::from_f64(ry.iter().map(|r| r.f64()).sum());
        for (ry, rx) in ry.iter_mut().zip(rx) {
            *ry = *rx - mean;
        }
    }

    /// rdx = rdy − p ∘ (Σ rdy + ry Σ dy); `at` holds y, dy and ry.
    fn gradient_of_row<T: Scalar>(at: [&[T]; 3], rdy: &[T], rdx: &mut [T]) {
        let total = |values: &[T]| T::from_f64(values.iter().map(|v| v.f64()).sum());
        let [y, dy, ry] = at;
        let (along, own) = (total(rdy), total(dy));
        for (((rdx, y), ry), rdy) in rdx.iter_mut().zip(y).zip(ry).zip(rdy) {
            *rdx = *rdy - y.exp() * (along + *ry * own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn values_match_the_formula_and_derivatives_differences() {
        for (positions, features, samples, k) in [(1, 10, 3, 2), (4, 5, 2, 3), (2, 1, 1, 1)] {
            let rules = LogSoftmaxRules {
                positions,
                features,
            };
            let size = positions * features;
            let tile = Tile::random([size, size, 1], samples, k, 5);
            let rows = tile.x.chunks(features).flat_map(|x| {
                let total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
                x.iter().map(move |x| x - total)
            });
            let rows: Vec<f64> = rows.collect();
            close("y", &evaluate::<f64>(&rules, &tile).y, &rows, 1e-14);
            check(&rules, &tile, 1e-9);
            check(
                &rules,
                &Tile {
                    rx: None,
                    ..tile.clone()
                },
                1e-9,
            );
            let far = tile.x.iter().map(|x| x + 1000.0).collect();
            let far = evaluate::<f64>(&rules, &Tile { x: far, ..tile });
            close("y of large x", &far.y, &rows, 1e-12);
        }
    }
}
