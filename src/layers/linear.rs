//! [`Linear`]: y = x Wᵀ + b over the last axis.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::row_product::{RowLayout, RowProduct};
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Window, Write};
use super::sparse_linear::SparseLinear;
use super::{Layer, LayerInit, LayerKind, Misfit, Pass, Shape, UnitGraph, param, var};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::elementwise::{add_rows, repeat};
use crate::kernels::matrix::{Matrix, multiply};
use crate::parameters::Parameters;

/// A fully connected layer: y = x Wᵀ + b, over the last axis.
///
/// Layers may share a parameter: a language model whose output weights are tied to its token embedding ends in
/// `Linear::without_bias` with the name of the [`Embedding`](super::Embedding)'s table.
///
/// # Shapes
/// Samples of shape (…, inputs) to (…, outputs). Put a [`Flatten`](super::Flatten) before it to take a sample as one
/// vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linear {
    /// Name of W, shape (outputs, inputs).
    pub weight: String,
    /// Name of b, shape (outputs,); optional.
    pub bias: Option<String>,
}

impl Linear {
    /// A layer whose parameters have these names.
    pub fn new(weight: impl Into<String>, bias: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
            bias: Some(bias.into()),
        }
    }

    /// A layer y = x Wᵀ.
    pub fn without_bias(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
            bias: None,
        }
    }

    /// The layer of a block with parameters `<block>.<part>.weight` and `<block>.<part>.bias`.
    pub(crate) fn named(block: &str, part: &str) -> Self {
        Self::new(
            format!("{block}.{part}.weight"),
            format!("{block}.{part}.bias"),
        )
    }

    /// Draws W from a normal distribution of this standard deviation; b is 0.
    pub(crate) fn init_normal(
        &self,
        init: &mut LayerInit,
        [inputs, outputs]: [usize; 2],
        deviation: f64,
    ) -> Result<()> {
        init.normal(self.weight.clone(), &[outputs, inputs], deviation)?;
        if let Some(bias) = &self.bias {
            init.constant(bias.clone(), 0.0, outputs)?;
        }
        Ok(())
    }

    /// Draws W and b uniformly from ±1/√inputs; W is scaled by the gain of hidden layers.
    pub(crate) fn init(
        init: &mut LayerInit,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<LayerKind> {
        let gain = init.gain();
        Self::init_with(init, name, [inputs, outputs], gain)
    }

    /// Initialises the last layer of a network: no gain.
    pub(crate) fn init_readout(
        init: &mut LayerInit,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<LayerKind> {
        Self::init_with(init, name, [inputs, outputs], 1.0)
    }

    fn init_with(
        init: &mut LayerInit,
        name: &str,
        [inputs, outputs]: [usize; 2],
        gain: f64,
    ) -> Result<LayerKind> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = init.uniform(format!("{name}.weight"), &[outputs, inputs], gain * bound)?;
        let bias = init.uniform(format!("{name}.bias"), &[outputs], bound)?;
        Ok(Self::new(weight, bias).into())
    }
}

impl Layer for Linear {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        let weight = param(self, input, parameters, &self.weight)?;
        let &[outputs, inputs] = weight.dims() else {
            return Err(misfit(format!(
                "a weight of two axes, not shape {:?}",
                weight.dims()
            )));
        };
        if let Some(bias) = &self.bias {
            let bias = param(self, input, parameters, bias)?.dims();
            if bias != [outputs] {
                return Err(misfit(format!(
                    "a bias of shape ({outputs},), not {bias:?}, for a weight of shape ({outputs}, {inputs})"
                )));
            }
        }
        match input.dims().split_last() {
            Some((last, leading)) if *last == inputs => {
                Ok(Shape::new([leading, &[outputs]].concat()))
            }
            _ if input.len() == inputs => Err(misfit(format!(
                "a last axis of {inputs}: put a Flatten layer before it"
            ))),
            _ => Err(misfit(format!("a last axis of {inputs}"))),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let weight = var(parameters, &self.weight)?;
        let bias = self.bias.as_ref().map(|bias| var(parameters, bias));
        let bias = bias.transpose()?;
        let shifted = |y: Tensor| match &bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        };
        let inputs = weight.dim(1)?;
        let leading = match x.dims() {
            [leading @ .., last] if *last == inputs => leading,
            dims => candle_core::bail!(
                "Linear takes a last axis of {inputs}, not inputs of shape {dims:?}"
            ),
        };
        pass.record((&self.weight, 1), x, leading.len())?;
        let y = match leading {
            [_] => shifted(x.matmul(&weight.t()?)?)?,
            _ => {
                let y = shifted(x.reshape(((), inputs))?.matmul(&weight.t()?)?)?;
                y.reshape([leading, &[weight.dim(0)?]].concat())?
            }
        };
        pass.record((&self.weight, 0), &y, leading.len())?;
        Ok(y)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        Self::add_stacked([self], network)
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let axis = shape.last_axis();
        let read = graph.read(self, axis);
        graph.name_axis(&self.weight, 1, &read);
        let written = graph.begin(shape.last());
        graph.write(&self.weight, self.bias.as_deref(), &written);
        graph.output(shape, axis, written);
        Ok(())
    }
}

impl Linear {
    /// Adds layers that read the same input as one layer, whose output is theirs along the last axis: one matrix product
    /// is faster than several.
    ///
    /// # Errors
    /// A layer that does not fit; layers of which only some have a bias.
    pub(super) fn add_stacked<T: Scalar, const N: usize>(
        layers: [&Self; N],
        network: &mut GraphBuilder<T>,
    ) -> Result<(), Misfit> {
        let (input, parameters) = (network.shape().clone(), network.parameters());
        let mut outputs = 0;
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for layer in layers {
            outputs += layer.output_shape(&input, parameters)?.last();
            weights.push(network.range(layer, &layer.weight)?);
            if let Some(bias) = &layer.bias {
                biases.push(network.range(layer, bias)?);
            }
            if !biases.is_empty() && biases.len() < weights.len() {
                let wanted = "a bias if the layers beside it have one, and none otherwise".into();
                return Err(Misfit::new(layer, &input, wanted));
            }
        }
        let (inputs, mut dims) = (input.last(), input.dims().to_vec());
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        let rules = LinearRules {
            positions: input.len() / inputs,
            inputs,
            outputs,
            weights,
            biases,
        };
        match N == 1 && network.reads_sparse_inputs() {
            true => network.push(SparseLinear { dense: rules }, Shape::new(dims)),
            false => network.push(rules, Shape::new(dims)),
        }
        Ok(())
    }
}

/// One or several layers with the same input, stacked along the outputs: W is all weights one below the other. The
/// gradient holds W for every direction, then b for every direction.
pub(super) struct LinearRules {
    /// Number of rows of `inputs` values in a sample.
    pub(super) positions: usize,
    pub(super) inputs: usize,
    /// Number of outputs of all layers.
    pub(super) outputs: usize,
    pub(super) weights: Vec<Range<usize>>,
    /// One for each weight, or none.
    pub(super) biases: Vec<Range<usize>>,
}

impl LinearRules {
    pub(super) fn has_bias(&self) -> bool {
        !self.biases.is_empty()
    }

    /// Number of values of W.
    pub(super) fn weight_len(&self) -> usize {
        self.outputs * self.inputs
    }

    /// How to multiply a tangent tile. With one direction, or one position per sample, the rows of all positions are
    /// contiguous, and a single product suffices.
    fn rows(&self, samples: usize, k: usize) -> Rows {
        match self.positions == 1 || k == 1 {
            true => Rows::Together(samples * self.positions),
            false => Rows::BySample,
        }
    }

    /// Range of sample `s` in x, or of its direction `j` in a tangent with `k` rows per sample; each row has `width`
    /// values per position.
    fn range(&self, s: usize, j: usize, k: usize, width: usize) -> Range<usize> {
        let size = self.positions * width;
        (s * k + j) * size..(s * k + j + 1) * size
    }
}

/// How the products of a tangent tile are computed.
enum Rows {
    /// All rows at once; holds their number.
    Together(usize),
    /// Sample by sample and direction by direction.
    BySample,
}

impl<T: Scalar> Rules<T> for LinearRules {
    fn output_len(&self) -> usize {
        self.positions * self.outputs
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn multiplies_directions_apart(&self) -> bool {
        self.positions > 1
    }

    fn reads_zero_directions(&self) -> bool {
        false
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        [&self.weights[..], &self.biases].concat()
    }

    fn row_products(&self) -> Vec<RowProduct> {
        vec![RowProduct {
            positions: self.positions,
            inputs: self.inputs,
            outputs: self.outputs,
            weights: self.weights.clone(),
            biases: self.biases.clone(),
            layout: RowLayout::Rows,
        }]
    }

    /// V₁, V₂, …, each outputs × inputs, then the biases b₁, b₂, ….
    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut packed = Vec::with_capacity(vectors.len() * (self.inputs + 1) * self.outputs);
        for ranges in [&self.weights, &self.biases] {
            for vector in vectors {
                for range in ranges {
                    packed.extend_from_slice(&vector[range.clone()]);
                }
            }
        }
        packed
    }

    /// [V₁ V₂ …], outputs × (k · inputs).
    fn pack_backward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut packed = Vec::with_capacity(vectors.len() * self.weight_len());
        for start in self
            .weights
            .iter()
            .cloned()
            .flat_map(|w| w.step_by(self.inputs))
        {
            for vector in vectors {
                packed.extend_from_slice(&vector[start..start + self.inputs]);
            }
        }
        packed
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        let (weights, bias) = theta.forward.split_at(self.inputs * self.outputs);
        let rows = y.len() / self.outputs;
        if self.has_bias() {
            repeat(bias, y);
        }
        let weights = Matrix::new(weights, self.outputs, self.inputs).t();
        let x = Matrix::new(x, rows, self.inputs);
        multiply(y, x, weights, self.has_bias());
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let (inputs, outputs, k) = (self.inputs, self.outputs, tangent.count());
        let directions = tangent.directions;
        if !directions.is_zero {
            let (weights, biases) = directions.forward.split_at(k * inputs * outputs);
            match self.rows(primal.samples, k) {
                Rows::Together(rows) => {
                    if self.has_bias() {
                        repeat(biases, ry);
                    }
                    let weights = Matrix::new(weights, k * outputs, inputs).t();
                    let x = Matrix::new(primal.x, rows, inputs);
                    multiply(ry, x, weights, self.has_bias());
                }
                Rows::BySample => {
                    for s in 0..primal.samples {
                        let x = &primal.x[self.range(s, 0, 1, inputs)];
                        let x = Matrix::new(x, self.positions, inputs);
                        for (j, v) in weights.chunks_exact(inputs * outputs).enumerate() {
                            let ry = &mut ry[self.range(s, j, k, outputs)];
                            if self.has_bias() {
                                repeat(&biases[j * outputs..][..outputs], ry);
                            }
                            let v = Matrix::new(v, outputs, inputs).t();
                            multiply(ry, x, v, self.has_bias());
                        }
                    }
                }
            }
        }
        match tangent.rx {
            Some(rx) => {
                let rows = primal.samples * k * self.positions;
                let weights = Matrix::new(&primal.theta.forward, outputs, inputs).t();
                let rx = Matrix::new(rx, rows, inputs);
                multiply(ry, rx, weights, !directions.is_zero);
            }
            None if directions.is_zero => ry.fill(T::ZERO),
            None => {}
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let (inputs, outputs, k) = (self.inputs, self.outputs, tangent.count());
        let weights = Matrix::new(&primal.theta.backward, outputs, inputs);
        let rows = primal.samples * k * self.positions;
        let rdy = Matrix::new(tangent.rdy, rows, outputs);
        multiply(rdx, rdy, weights, false);
        if mode == Mode::GaussNewton || tangent.directions.is_zero {
            return;
        }
        let directions = &tangent.directions.backward;
        match self.rows(primal.samples, k) {
            Rows::Together(rows) => {
                let directions = Matrix::new(directions, outputs, k * inputs);
                multiply(rdx, Matrix::new(primal.dy, rows, outputs), directions, true);
            }
            Rows::BySample => {
                for s in 0..primal.samples {
                    let dy = &primal.dy[self.range(s, 0, 1, outputs)];
                    let dy = Matrix::new(dy, self.positions, outputs);
                    for j in 0..k {
                        let v = &directions[j * inputs..];
                        let v = Matrix::strided(v, outputs, inputs, k * inputs);
                        multiply(&mut rdx[self.range(s, j, k, inputs)], dy, v, true);
                    }
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
        let (inputs, outputs, k) = (self.inputs, self.outputs, tangent.count());
        let (weights, biases) = gradient.split_at_mut(k * self.weight_len());
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        write.prepare(biases);
        match self.rows(primal.samples, k) {
            Rows::Together(rows) => {
                let x = Matrix::new(primal.x, rows, inputs);
                let rdy = Matrix::new(tangent.rdy, rows, k * outputs);
                multiply(weights, rdy.t(), x, write == Write::Add);
                if self.has_bias() {
                    add_rows(tangent.rdy, biases);
                }
                if let Some(rx) = rx {
                    let dy = Matrix::new(primal.dy, rows, outputs);
                    for (j, weight) in weights.chunks_exact_mut(self.weight_len()).enumerate() {
                        let rx = Matrix::strided(&rx[j * inputs..], rows, inputs, k * inputs);
                        multiply(weight, dy.t(), rx, true);
                    }
                }
            }
            Rows::BySample => {
                write.prepare(weights);
                for s in 0..primal.samples {
                    let x = &primal.x[self.range(s, 0, 1, inputs)];
                    let x = Matrix::new(x, self.positions, inputs);
                    let dy = &primal.dy[self.range(s, 0, 1, outputs)];
                    let dy = Matrix::new(dy, self.positions, outputs);
                    for (j, w) in weights.chunks_exact_mut(self.weight_len()).enumerate() {
                        let rdy = &tangent.rdy[self.range(s, j, k, outputs)];
                        multiply(w, Matrix::new(rdy, self.positions, outputs).t(), x, true);
                        if self.has_bias() {
                            add_rows(rdy, &mut biases[j * outputs..][..outputs]);
                        }
                        if let Some(rx) = rx {
                            let rx = &rx[self.range(s, j, k, inputs)];
                            multiply(w, dy.t(), Matrix::new(rx, self.positions, inputs), true);
                        }
                    }
                }
            }
        }
    }

    fn add_gradient(&self, gradient: &[T], window: &mut Window) {
        let k = window.vectors.len();
        let (weights, biases) = gradient.split_at(k * self.weight_len());
        for j in 0..k {
            for (parts, len, ranges) in [
                (weights, self.weight_len(), &self.weights),
                (biases, self.outputs, &self.biases),
            ] {
                let mut start = j * len;
                for range in ranges {
                    window.add(j, range.clone(), &parts[start..start + range.len()]);
                    start += range.len();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check};

    /// With a bias, without one, and as two layers whose parameters are apart.
    #[test]
    fn derivatives_match_differences_at_every_number_of_positions() {
        for (positions, inputs, outputs, samples, k) in [
            (1, 3, 4, 3, 2),
            (5, 3, 4, 3, 2),
            (4, 2, 3, 2, 1),
            (1, 1, 1, 1, 1),
            (3, 4, 1, 1, 3),
        ] {
            let n = outputs * inputs;
            let (weight, bias) = (1..n + 1, n + 1..n + 1 + outputs);
            let (below, last) = (n + outputs + 2, bias.end + 2 * inputs + 1);
            let second = (below..below + 2 * inputs, last..last + 2);
            for (weights, biases) in [
                (vec![weight.clone()], vec![bias.clone()]),
                (vec![weight.clone()], vec![]),
                (vec![second.0, weight], vec![second.1, bias]),
            ] {
                let outputs = weights.iter().map(Range::len).sum::<usize>() / inputs;
                let rules = LinearRules {
                    positions,
                    inputs,
                    outputs,
                    weights,
                    biases,
                };
                let sizes = [positions * inputs, positions * outputs, last + 3];
                let tile = Tile::random(sizes, samples, k, 3);
                check(&rules, &tile, 1e-10);
                check(&rules, &Tile { rx: None, ..tile }, 1e-10);
            }
        }
    }
}
