//! [`RmsNorm`]: division by the root mean square over the last axis.

use std::ops::Range;

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::scale_shift::check_last_axis;
use super::{Layer, Misfit, Pass, Shape, UnitGraph, var};
use crate::kernels::Scalar;
use crate::kernels::channels::sums;
use crate::kernels::simd::vectorised;
use crate::parameters::Parameters;

/// Root mean square normalisation (Zhang and Sennrich, 2019): y = γ x/√(M(x²) + ε) with the mean M over the last axis.
///
/// # Shapes
/// Samples of shape (…, features); the output has the shape of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// Name of γ, shape (features,).
    pub weight: String,
    /// ε, at least 0.
    pub epsilon: f64,
}

impl RmsNorm {
    /// A layer with ε = 10⁻⁵.
    pub fn new(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
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

impl Layer for RmsNorm {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        check_last_axis(self, input, parameters, self.epsilon, &[&self.weight])?;
        Ok(input.clone())
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let size = (x.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?;
        x.broadcast_div(&size)?
            .broadcast_mul(&var(parameters, &self.weight)?)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = self.output_shape(network.shape(), network.parameters())?;
        let rules = RmsNormRules {
            positions: shape.len() / shape.last(),
            features: shape.last(),
            epsilon: self.epsilon,
            weight: network.range(self, &self.weight)?,
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let axis = shape.last_axis();
        let units = graph.read(self, axis);
        graph.name_axis(&self.weight, 0, &units);
        graph.output(shape, axis, units);
        Ok(())
    }
}

/// With r = 1/√(M(x²) + ε), x̂ = r x and g = γ dy,
///
/// rx̂ = r rx − r³ M(x rx) x, dx = r g − r³ M(x g) x and dγ = Σ dy x̂.
///
/// r of each position is cached.
struct RmsNormRules {
    positions: usize,
    features: usize,
    epsilon: f64,
    weight: Range<usize>,
}

/// A position of a tile.
struct Position<T> {
    /// Range of its values in x, y and dy.
    row: Range<usize>,
    sample: usize,
    /// Index of the position in its sample.
    index: usize,
    r: T,
}

impl RmsNormRules {
    fn positions<T: Scalar>(&self, cached: &[T]) -> impl Iterator<Item = Position<T>> {
        let n = self.features;
        cached.iter().enumerate().map(move |(i, r)| Position {
            row: i * n..(i + 1) * n,
            sample: i / self.positions,
            index: i % self.positions,
            r: *r,
        })
    }

    /// Range of a position in row `j` of a tile with `k` rows per sample.
    fn tangent<T>(&self, position: &Position<T>, j: usize, k: usize) -> Range<usize> {
        let row = (position.sample * k + j) * self.positions + position.index;
        row * self.features..(row + 1) * self.features
    }

    /// γ of vector `j`.
    fn weight<'a, T>(&self, packed: &'a Packed<T>, j: usize) -> &'a [T] {
        &packed.forward[j * self.features..][..self.features]
    }
}

/// M(a b)
fn mean<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    let mut sum = [0.0];
    sums([a, b], &mut sum, |a, b| a * b);
    sum[0] / a.len() as f64
}

/// Writes rx̂.
fn normal_tangent<T: Scalar>(x: &[T], rx: &[T], r: T, target: &mut [T]) {
    let slope = -r.f64().powi(3) * mean(x, rx);
    combine([rx, x], [r, T::from_f64(slope)], target);
}

impl<T: Scalar> Rules<T> for RmsNormRules {
    fn output_len(&self) -> usize {
        self.positions * self.features
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn cached_len(&self) -> usize {
        self.positions
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone()]
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let weights = vectors.iter().flat_map(|v| &v[self.weight.clone()]);
        weights.copied().collect()
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        let n = self.features;
        for (i, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
            let r = T::from_f64(1.0 / (mean(x, x) + self.epsilon).sqrt());
            if !cached.is_empty() {
                cached[i] = r;
            }
            multiply([&theta.forward, x], r, y);
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let (theta, directions, k) = (primal.theta, tangent.directions, tangent.count());
        let mut normal = vec![T::ZERO; self.features];
        for position in self.positions(primal.cached) {
            let (x, r) = (&primal.x[position.row.clone()], position.r);
            for j in 0..k {
                let row = self.tangent(&position, j, k);
                let ry = &mut ry[row.clone()];
                multiply([self.weight(directions, j), x], r, ry);
                if let Some(rx) = tangent.rx {
                    normal_tangent(x, &rx[row], r, &mut normal);
                    add_product([self.weight(theta, 0), &normal], T::ONE, ry);
                }
            }
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let (directions, k) = (tangent.directions, tangent.count());
        let weight = self.weight(primal.theta, 0);
        let [mut g, mut rg] = [(); 2].map(|()| vec![T::ZERO; self.features]);
        for position in self.positions(primal.cached) {
            let (x, dy) = (
                &primal.x[position.row.clone()],
                &primal.dy[position.row.clone()],
            );
            let r = position.r.f64();
            multiply([weight, dy], T::ONE, &mut g);
            for j in 0..k {
                let row = self.tangent(&position, j, k);
                let rdx = &mut rdx[row.clone()];
                multiply([weight, &tangent.rdy[row.clone()]], T::ONE, &mut rg);
                if mode == Mode::Hessian {
                    add_product([self.weight(directions, j), dy], T::ONE, &mut rg);
                }
                let mut along = -r.powi(3) * mean(x, &rg);
                let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
                if let Some(rx) = rx {
                    let (of_g, of_rx) = (mean(x, &g), mean(x, &rx[row.clone()]));
                    along +=
                        3.0 * r.powi(5) * of_g * of_rx - r.powi(3) * mean(&rx[row.clone()], &g);
                    let factors = [-r.powi(3) * of_g, -r.powi(3) * of_rx].map(T::from_f64);
                    combine([&rx[row], &g], factors, rdx);
                    add_scaled(&rg, position.r, rdx);
                    add_scaled(x, T::from_f64(along), rdx);
                } else {
                    combine([&rg, x], [position.r, T::from_f64(along)], rdx);
                }
            }
        }
    }

    fn gradient_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        mode: Mode,
    ) {
        write.prepare(gradient);
        let (n, k) = (self.features, tangent.count());
        let mut normal = vec![T::ZERO; n];
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        for position in self.positions(primal.cached) {
            let (x, dy) = (
                &primal.x[position.row.clone()],
                &primal.dy[position.row.clone()],
            );
            for (j, gradient) in gradient.chunks_exact_mut(n).enumerate() {
                let row = self.tangent(&position, j, k);
                add_product([x, &tangent.rdy[row.clone()]], position.r, gradient);
                if let Some(rx) = rx {
                    normal_tangent(x, &rx[row], position.r, &mut normal);
                    add_product([&normal, dy], T::ONE, gradient);
                }
            }
        }
    }
}

vectorised! {
    /// target ← s a b
    fn multiply<T: Scalar>(rows: [&[T]; 2], s: T, target: &mut [T]) {
        for ((t, a), b) in target.iter_mut().zip(rows[0]).zip(rows[1]) {
            *t = s * *a * *b;
        }
    }

    /// target ← target + s a b
    fn add_product<T: Scalar>(rows: [&[T]; 2], s: T, target: &mut [T]) {
        for ((t, a), b) in target.iter_mut().zip(rows[0]).zip(rows[1]) {
            *t += s * *a * *b;
        }
    }

    /// target ← s a + t b
    fn combine<T: Scalar>(rows: [&[T]; 2], factors: [T; 2], target: &mut [T]) {
        for ((t, a), b) in target.iter_mut().zip(rows[0]).zip(rows[1]) {
            *t = factors[0] * *a + factors[1] * *b;
        }
    }

    /// target ← target + s a
    fn add_scaled<T: Scalar>(a: &[T], s: T, target: &mut [T]) {
        for (t, a) in target.iter_mut().zip(a) {
            *t += s * *a;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn output_matches_the_formula_and_derivatives_match_differences() {
        for (positions, features, samples, k) in [(1, 7, 3, 2), (5, 4, 2, 3), (3, 37, 2, 1)] {
            for epsilon in [1e-5, 0.3] {
                let rules = RmsNormRules {
                    positions,
                    features,
                    epsilon,
                    weight: 1..features + 1,
                };
                let size = positions * features;
                let tile = Tile::random([size, size, features + 2], samples, k, 5);
                let rows = tile.x.chunks(features).flat_map(|x| {
                    let square = x.iter().map(|x| x * x).sum::<f64>() / features as f64;
                    let weight = &tile.theta[1..=features];
                    let row = x.iter().zip(weight);
                    row.map(move |(x, w)| w * x / (square + epsilon).sqrt())
                });
                let rows: Vec<f64> = rows.collect();
                close("y", &evaluate::<f64>(&rules, &tile).y, &rows, 1e-13);
                check(&rules, &tile, 1e-9);
                check(&rules, &Tile { rx: None, ..tile }, 1e-9);
            }
        }
    }
}
