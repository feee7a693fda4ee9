//! [`GatedMlp`]: a multilayer perceptron whose hidden values are multiplied by a gate.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Activation, Layer, Linear, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::parameters::Parameters;

/// A gated multilayer perceptron over the last axis (Shazeer, "GLU Variants Improve Transformer", 2020):
/// y = down(φ(gate(x)) ∘ up(x)) with three linear layers. With φ = SiLU, the default, it is SwiGLU; with GELU, GEGLU.
///
/// Hand-derived rules compute the gate and the hidden values in one matrix product.
///
/// ```
/// use loss_landscape::layers::GatedMlp;
/// use loss_landscape::prelude::*;
///
/// // silu(1 · x) · 2x with the weights 1, 2 and 1.
/// let vars = [("gate", 1.0), ("up", 2.0), ("down", 1.0)].map(|(part, weight)| {
///     let var = Var::new(&[[weight]], &Device::Cpu).unwrap();
///     (format!("mlp.{part}.weight"), var)
/// });
/// let layer = GatedMlp::new("mlp").without_biases();
/// let model = Layered::new(vec![layer.into()], Parameters::new(vars)?);
/// let y = model.forward(&Tensor::new(&[[3.0]], &Device::Cpu)?)?;
/// let expected = 3.0 / (1.0 + f64::exp(-3.0)) * 6.0;
/// assert!((y.to_vec2::<f64>()?[0][0] - expected).abs() < 1e-13);
/// # Ok::<(), Error>(())
/// ```
///
/// # Shapes
/// Samples of shape (…, features) to (…, outputs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatedMlp {
    /// The layer that computes the gate before the non-linearity.
    pub gate: Linear,
    /// The layer that computes the hidden values, with as many outputs as `gate`.
    pub up: Linear,
    /// The layer that reads the products.
    pub down: Linear,
    /// φ
    pub activation: Activation,
}

impl GatedMlp {
    /// A SwiGLU layer with parameters `<name>.gate.weight`, `<name>.gate.bias` and the same for `up` and `down`.
    pub fn new(name: &str) -> Self {
        let [gate, up, down] = ["gate", "up", "down"].map(|part| Linear::named(name, part));
        Self {
            gate,
            up,
            down,
            activation: Activation::Silu,
        }
    }

    /// Sets φ.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Removes the three biases.
    #[must_use]
    pub fn without_biases(mut self) -> Self {
        for layer in [&mut self.gate, &mut self.up, &mut self.down] {
            layer.bias = None;
        }
        self
    }

    /// The shape of the hidden values.
    fn hidden(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let [gate, up] = [&self.gate, &self.up].map(|layer| layer.output_shape(input, parameters));
        let (gate, up) = (gate?, up?);
        match gate == up {
            true => Ok(gate),
            false => Err(Misfit::new(
                self,
                input,
                format!(
                    "as many outputs of `{}` as of `{}`, not {} and {}",
                    self.gate.weight,
                    self.up.weight,
                    gate.last(),
                    up.last()
                ),
            )),
        }
    }
}

impl Layer for GatedMlp {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let hidden = self.hidden(input, parameters)?;
        self.down.output_shape(&hidden, parameters)
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let gate = self.gate.forward(x, parameters, pass)?;
        let hidden = self.activation.apply(&gate)? * self.up.forward(x, parameters, pass)?;
        self.down.forward(&hidden?, parameters, pass)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let hidden = self.hidden(network.shape(), network.parameters())?;
        Linear::add_stacked([&self.gate, &self.up], network)?;
        let rules = GateRules {
            positions: hidden.len() / hidden.last(),
            hidden: hidden.last(),
            activation: self.activation,
        };
        network.push(rules, hidden);
        self.down.add_rules(network)
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let (input, parameters) = (graph.shape().clone(), graph.parameters());
        let shape = self.output_shape(&input, parameters)?;
        let axis = shape.last_axis();
        let read = graph.read(self, axis);
        let hidden = graph.begin(self.hidden(&input, parameters)?.last());
        for layer in [&self.gate, &self.up] {
            graph.name_axis(&layer.weight, 1, &read);
            graph.write(&layer.weight, layer.bias.as_deref(), &hidden);
        }
        graph.name_axis(&self.down.weight, 1, &hidden);
        let written = graph.begin(shape.last());
        graph.write(&self.down.weight, self.down.bias.as_deref(), &written);
        graph.output(shape, axis, written);
        Ok(())
    }
}

/// y = φ(a) ∘ b, where a position of x holds a, then b.
///
/// φ, φ′ and φ″ are cached by position, one after another.
struct GateRules {
    positions: usize,
    hidden: usize,
    activation: Activation,
}

/// What derivatives at a position read.
struct At<'a, T> {
    b: &'a [T],
    value: &'a [T],
    first: &'a [T],
    second: &'a [T],
}

impl GateRules {
    /// For each row of position values in a tile with `k` rows per sample: the index of the position in the tile, for
    /// each row in order.
    fn rows(&self, samples: usize, k: usize) -> impl Iterator<Item = usize> {
        let positions = self.positions;
        (0..samples * k * positions).map(move |i| i / (k * positions) * positions + i % positions)
    }

    fn at<'a, T>(&self, primal: &Primal<'a, T>, position: usize) -> At<'a, T> {
        let n = self.hidden;
        let cached = &primal.cached[3 * n * position..][..3 * n];
        At {
            b: &primal.x[2 * n * position + n..][..n],
            value: &cached[..n],
            first: &cached[n..2 * n],
            second: &cached[2 * n..],
        }
    }
}

impl<T: Scalar> Rules<T> for GateRules {
    fn output_len(&self) -> usize {
        self.positions * self.hidden
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn cached_len(&self) -> usize {
        3 * self.positions * self.hidden
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        let n = self.hidden;
        for (i, (x, y)) in x.chunks_exact(2 * n).zip(y.chunks_exact_mut(n)).enumerate() {
            let (a, b) = x.split_at(n);
            if cached.is_empty() {
                self.activation.evaluate(a, y, &mut [], &mut []);
            } else {
                let cached = &mut cached[3 * n * i..][..3 * n];
                let (value, derivatives) = cached.split_at_mut(n);
                let (first, second) = derivatives.split_at_mut(n);
                self.activation.evaluate(a, value, first, second);
                y.copy_from_slice(value);
            }
            scale(b, y);
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let Some(rx) = tangent.rx else {
            return ry.fill(T::ZERO);
        };
        let n = self.hidden;
        let rows = self.rows(primal.samples, tangent.count());
        let tangents = rx.chunks_exact(2 * n).zip(ry.chunks_exact_mut(n));
        for (position, (rx, ry)) in rows.zip(tangents) {
            output_tangent(&self.at(primal, position), rx, ry);
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let n = self.hidden;
        let rows = self.rows(primal.samples, tangent.count());
        let tangents = tangent.rdy.chunks_exact(n).zip(rdx.chunks_exact_mut(2 * n));
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        for (i, (position, (rdy, rdx))) in rows.zip(tangents).enumerate() {
            let at = self.at(primal, position);
            pull_back(&at, rdy, rdx);
            if let Some(rx) = rx {
                let dy = &primal.dy[n * position..][..n];
                add_curvature(&at, dy, &rx[2 * n * i..][..2 * n], rdx);
            }
        }
    }
}

vectorised! {
    /// y ← b ∘ y
    fn scale<T: Scalar>(b: &[T], y: &mut [T]) {
        for (y, b) in y.iter_mut().zip(b) {
            *y = *b * *y;
        }
    }

    /// ry = φ′ ra b + φ rb
    fn output_tangent<T: Scalar>(at: &At<T>, rx: &[T], ry: &mut [T]) {
        let n = ry.len();
        let (ra, rb) = rx.split_at(n);
        let (b, value, first) = (&at.b[..n], &at.value[..n], &at.first[..n]);
        let rb = &rb[..n];
        for i in 0..n {
            ry[i] = first[i] * ra[i] * b[i] + value[i] * rb[i];
        }
    }

    /// rda = φ′ b rdy and rdb = φ rdy
    fn pull_back<T: Scalar>(at: &At<T>, rdy: &[T], rdx: &mut [T]) {
        let n = rdy.len();
        let (rda, rdb) = rdx.split_at_mut(n);
        let (b, value, first) = (&at.b[..n], &at.value[..n], &at.first[..n]);
        let rdb = &mut rdb[..n];
        for i in 0..n {
            rda[i] = first[i] * b[i] * rdy[i];
            rdb[i] = value[i] * rdy[i];
        }
    }

    /// Adds dy (φ″ ra b + φ′ rb) to rda and dy φ′ ra to rdb.
    fn add_curvature<T: Scalar>(at: &At<T>, dy: &[T], rx: &[T], rdx: &mut [T]) {
        let n = dy.len();
        let ((rda, rdb), (ra, rb)) = (rdx.split_at_mut(n), rx.split_at(n));
        let (b, first, second) = (&at.b[..n], &at.first[..n], &at.second[..n]);
        let (rdb, rb) = (&mut rdb[..n], &rb[..n]);
        for i in 0..n {
            rda[i] += dy[i] * (second[i] * ra[i] * b[i] + first[i] * rb[i]);
            rdb[i] += dy[i] * first[i] * ra[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check};

    #[test]
    fn derivatives_match_differences() {
        for activation in Activation::ALL {
            for (positions, hidden, samples, k) in [(1, 3, 3, 2), (4, 5, 2, 3), (1, 1, 1, 1)] {
                let rules = GateRules {
                    positions,
                    hidden,
                    activation,
                };
                let size = positions * hidden;
                let tile = Tile::random([2 * size, size, 1], samples, k, 5);
                check(&rules, &tile, 1e-9);
                check(&rules, &Tile { rx: None, ..tile }, 1e-9);
            }
        }
    }
}
