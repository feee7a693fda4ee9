//! [`SelfAttention`]: multi-head attention of the positions of a sample to each other.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Linear, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::attention::{
    ScoreRows, softmax, softmax_backward, softmax_backward_tangent, softmax_tangent,
};
use crate::kernels::matrix::{Matrix, multiply, multiply_strided};
use crate::nn;
use crate::parameters::Parameters;

/// Multi-head self-attention (Vaswani et al., "Attention Is All You Need", 2017).
///
/// Queries Q, keys K and values V are linear functions of the input. Each head has its own part of their features, and computes
/// softmax(QKᵀ/√d) V with the number of features d of its keys. A linear layer maps the heads' outputs, one after another, to the output.
/// Under a causal mask, a position attends to itself and to those before it.
///
/// Hand-derived rules compute the three projections in one matrix product, and attention in tiles of positions.
///
/// ```
/// use loss_landscape::layers::{self, SelfAttention, Shape};
/// use loss_landscape::prelude::*;
///
/// let attention = SelfAttention::new("attention", 2).with_causal(true);
/// let var = |shape: &[usize]| Var::zeros(shape, DType::F64, &Device::Cpu);
/// let names = ["query", "key", "value", "output"];
/// let vars = names.map(|part| {
///     [
///         (format!("attention.{part}.weight"), var(&[6, 6]).unwrap()),
///         (format!("attention.{part}.bias"), var(&[6]).unwrap()),
///     ]
/// });
/// let parameters = Parameters::new(vars.into_iter().flatten())?;
/// let tokens = Shape::new([5, 6]);
/// let output = layers::output_shape(&[attention.into()], &tokens, &parameters).unwrap();
/// assert_eq!(output.dims(), [5, 6]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Shapes
/// Samples of shape (positions, features) to (positions, outputs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfAttention {
    /// The layer that computes queries.
    pub query: Linear,
    /// The layer that computes keys, with as many outputs as `query`.
    pub key: Linear,
    /// The layer that computes values.
    pub value: Linear,
    /// The layer that reads the heads' outputs.
    pub output: Linear,
    /// Number of heads; it divides the outputs of `query` and `value`.
    pub heads: usize,
    /// Whether a position attends only to itself and to those before it.
    pub causal: bool,
}

impl SelfAttention {
    /// Attention of every position to all positions, with parameters `<name>.query.weight`, `<name>.query.bias` and the same for
    /// `key`, `value` and `output`.
    pub fn new(name: &str, heads: usize) -> Self {
        let parts = ["query", "key", "value", "output"];
        let [query, key, value, output] = parts.map(|part| Linear::named(name, part));
        Self {
            query,
            key,
            value,
            output,
            heads,
            causal: false,
        }
    }

    /// Sets whether a position attends only to itself and to those before it.
    #[must_use]
    pub fn with_causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Removes the four biases.
    #[must_use]
    pub fn without_biases(mut self) -> Self {
        for layer in [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.output,
        ] {
            layer.bias = None;
        }
        self
    }

    /// The sizes of attention, and the shape of the heads' outputs.
    fn heads(
        &self,
        input: &Shape,
        parameters: &Parameters,
    ) -> Result<(AttentionRules, Shape), Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        let &[positions, _] = input.dims() else {
            return Err(misfit("shape (positions, features)".into()));
        };
        let outputs = |layer: &Linear| Ok(layer.output_shape(input, parameters)?.last());
        let [query, key, value] = [
            outputs(&self.query)?,
            outputs(&self.key)?,
            outputs(&self.value)?,
        ];
        if query != key {
            return Err(misfit(format!(
                "as many outputs of `{}` as of `{}`, not {query} and {key}",
                self.query.weight, self.key.weight
            )));
        }
        let divides = |n: usize| self.heads > 0 && n > 0 && n.is_multiple_of(self.heads);
        if !(divides(key) && divides(value)) || positions == 0 {
            return Err(misfit(format!(
                "queries and values whose features can be divided among {} heads, not {query} and {value}",
                self.heads
            )));
        }
        let rules = AttentionRules {
            positions,
            heads: self.heads,
            key: key / self.heads,
            value: value / self.heads,
            causal: self.causal,
        };
        Ok((rules, Shape::new([positions, value])))
    }
}

impl Layer for SelfAttention {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let (_, heads) = self.heads(input, parameters)?;
        self.output.output_shape(&heads, parameters)
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let (n, positions, _) = x.dims3()?;
        let mut by_head = |layer: &Linear| -> candle_core::Result<Tensor> {
            let y = layer.forward(x, parameters, pass)?;
            y.reshape((n, positions, self.heads, ()))?.transpose(1, 2)
        };
        let [query, key, value] = [
            by_head(&self.query)?,
            by_head(&self.key)?,
            by_head(&self.value)?,
        ];
        let heads = nn::ops::attention(&query, &key, &value, self.causal)?.transpose(1, 2)?;
        let heads = heads.reshape((n, positions, ()))?;
        self.output.forward(&heads, parameters, pass)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        self.output_shape(network.shape(), network.parameters())?;
        let (rules, shape) = self.heads(network.shape(), network.parameters())?;
        Linear::add_stacked([&self.query, &self.key, &self.value], network)?;
        network.push(rules, shape);
        self.output.add_rules(network)
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let (input, parameters) = (graph.shape().clone(), graph.parameters());
        let shape = self.output_shape(&input, parameters)?;
        let (rules, _) = self.heads(&input, parameters)?;
        let read = graph.read(self, 1);
        let keys = graph.begin(self.heads * rules.key);
        let values = graph.begin(self.heads * rules.value);
        let parts = [
            (&self.query, &keys),
            (&self.key, &keys),
            (&self.value, &values),
        ];
        for (layer, units) in parts {
            graph.name_axis(&layer.weight, 1, &read);
            graph.write(&layer.weight, layer.bias.as_deref(), units);
        }
        graph.divide(&[&keys, &values], self.heads);
        graph.name_axis(&self.output.weight, 1, &values);
        let written = graph.begin(shape.last());
        graph.write(&self.output.weight, self.output.bias.as_deref(), &written);
        graph.output(shape, 1, written);
        Ok(())
    }
}

/// Attention itself, without parameters: a position of x holds the queries of all heads, then their keys, then their values; one of y holds
/// the heads' outputs.
///
/// With the scores S = QKᵀ, the scale c = 1/√d and P = softmax(cS), the output is y = PV. Its tangent, its derivatives and the tangent of
/// dS are
///
/// Ṡ = Q̇Kᵀ + QK̇ᵀ, Ṗ = cP∘(Ṡ − rowsum(P∘Ṡ)), ẏ = ṖV + PV̇;
/// dV = Pᵀdy, dP = dy Vᵀ, dS = cP∘(dP − rowsum(P∘dP)), dQ = dS K, dK = dSᵀQ;
/// dṠ = cṖ∘(dP − rowsum(P∘dP)) + cP∘(dṖ − rowsum(Ṗ∘dP + P∘dṖ)).
///
/// Queries are processed in blocks, so that the scores of a block stay in a core's cache. P is cached, by head and block.
struct AttentionRules {
    positions: usize,
    heads: usize,
    /// Number of features of a head's queries and keys.
    key: usize,
    /// Number of features of a head's values.
    value: usize,
    causal: bool,
}

/// Largest number of queries of a block.
const BLOCK: usize = 64;

/// Queries of a head in a sample, and the keys that they attend to: those before `keys`.
struct Block {
    sample: usize,
    head: usize,
    queries: Range<usize>,
    keys: usize,
    /// Range of the block's P in the cache.
    cached: Range<usize>,
}

impl Block {
    /// Scores of the block, or P, as a matrix.
    fn matrix<'a, T: Scalar>(&self, scores: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(scores, self.queries.len(), self.keys)
    }

    /// Range of row `j` of `k` of the block's sample, for rows of `len` values.
    fn row(&self, j: usize, k: usize, len: usize) -> Range<usize> {
        let row = self.sample * k + j;
        row * len..(row + 1) * len
    }
}

impl AttentionRules {
    /// Number of values of a sample in x and in y.
    fn lens(&self) -> [usize; 2] {
        [self.input_width(), self.output_width()].map(|width| self.positions * width)
    }

    /// Number of values of a position in x.
    fn input_width(&self) -> usize {
        self.heads * (2 * self.key + self.value)
    }

    /// Number of values of a position in y.
    fn output_width(&self) -> usize {
        self.heads * self.value
    }

    fn scale<T: Scalar>(&self) -> T {
        T::from_f64(1.0 / (self.key as f64).sqrt())
    }

    /// The queries and the number of keys of each block.
    fn blocks_of_head(&self) -> impl DoubleEndedIterator<Item = (Range<usize>, usize)> {
        let (positions, causal) = (self.positions, self.causal);
        (0..positions.div_ceil(BLOCK)).map(move |i| {
            let queries = i * BLOCK..((i + 1) * BLOCK).min(positions);
            let keys = if causal { queries.end } else { positions };
            (queries, keys)
        })
    }

    /// All blocks of a tile. The last block of a head, with the most keys, comes first.
    fn blocks(&self, samples: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for sample in 0..samples {
            for head in 0..self.heads {
                for (queries, keys) in self.blocks_of_head().rev() {
                    let end = start + queries.len() * keys;
                    blocks.push(Block {
                        sample,
                        head,
                        queries,
                        keys,
                        cached: start..end,
                    });
                    start = end;
                }
            }
        }
        blocks
    }

    /// Number of values of the largest block's scores.
    fn largest_block(&self) -> usize {
        self.positions.min(BLOCK) * self.positions
    }

    /// Offsets in a position of x of a head's query, key and value.
    fn offsets(&self, head: usize) -> [usize; 3] {
        let keys = self.heads * self.key;
        [
            head * self.key,
            keys + head * self.key,
            2 * keys + head * self.value,
        ]
    }

    /// The parts of a sample's row of x that a block reads.
    fn inputs<'a, T: Scalar>(&self, block: &Block, x: &'a [T]) -> Inputs<'a, T> {
        let width = self.input_width();
        let part = |offset: usize, rows: Range<usize>, size: usize| {
            Matrix::strided(&x[rows.start * width + offset..], rows.len(), size, width)
        };
        let [query, key, value] = self.offsets(block.head);
        Inputs {
            query: part(query, block.queries.clone(), self.key),
            key: part(key, 0..block.keys, self.key),
            value: part(value, 0..block.keys, self.value),
        }
    }

    /// A block's part of a sample's row of y.
    fn output<'a, T: Scalar>(&self, block: &Block, y: &'a [T]) -> Matrix<'a, T> {
        let width = self.output_width();
        let start = block.queries.start * width + block.head * self.value;
        Matrix::strided(&y[start..], block.queries.len(), self.value, width)
    }

    /// Writes or adds to a block's part of a row of y.
    fn write_output<T: Scalar>(
        &self,
        block: &Block,
        y: &mut [T],
        [p, value]: [Matrix<T>; 2],
        add: bool,
    ) {
        let width = self.output_width();
        let start = block.queries.start * width + block.head * self.value;
        multiply_strided(&mut y[start..], width, p, value, add);
    }

    /// Adds to the parts of a row of dx that belong to a block, or writes those that no earlier block wrote.
    fn write_input<T: Scalar>(&self, block: &Block, dx: &mut [T], parts: &[Part<T>]) {
        let width = self.input_width();
        let is_first = block.queries.end == self.positions;
        let [query, key, value] = self.offsets(block.head);
        let mut written = [false, !is_first, !is_first];
        for part in parts {
            let (i, start) = match part.of {
                Of::Query => (0, block.queries.start * width + query),
                Of::Key => (1, key),
                Of::Value => (2, value),
            };
            multiply_strided(&mut dx[start..], width, part.a, part.b, written[i]);
            written[i] = true;
        }
    }

    /// Writes Ṗ of a block.
    fn tangent_of_p<T: Scalar>(
        &self,
        block: &Block,
        p: &[T],
        [at, moved]: [&Inputs<T>; 2],
        rp: &mut [T],
    ) {
        multiply(rp, moved.query, at.key.t(), false);
        multiply(rp, at.query, moved.key.t(), true);
        softmax_tangent(block.keys, self.scale(), p, rp);
    }
}

/// The queries of a block, and the keys and values that they attend to.
struct Inputs<'a, T> {
    query: Matrix<'a, T>,
    key: Matrix<'a, T>,
    value: Matrix<'a, T>,
}

/// A matrix product that is part of dQ, dK or dV.
struct Part<'a, T> {
    of: Of,
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
}

#[derive(Clone, Copy)]
enum Of {
    Query,
    Key,
    Value,
}

impl<T: Scalar> Rules<T> for AttentionRules {
    fn output_len(&self) -> usize {
        self.lens()[1]
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn cached_len(&self) -> usize {
        let blocks = self.blocks_of_head();
        let values = blocks.map(|(queries, keys)| queries.len() * keys);
        self.heads * values.sum::<usize>()
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        let [inputs, outputs] = self.lens();
        let mut scratch = vec![T::ZERO; self.largest_block()];
        for block in self.blocks(x.len() / inputs) {
            let at = self.inputs(&block, &x[block.row(0, 1, inputs)]);
            let p = match cached.is_empty() {
                true => &mut scratch[..block.cached.len()],
                false => &mut cached[block.cached.clone()],
            };
            multiply(p, at.query, at.key.t(), false);
            let rows = ScoreRows {
                columns: block.keys,
                first_visible: self.causal.then_some(block.queries.start + 1),
            };
            softmax(rows, self.scale(), p);
            let p = block.matrix(p);
            let y = &mut y[block.row(0, 1, outputs)];
            self.write_output(&block, y, [p, at.value], false);
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangents: &Tangent<T>, ry: &mut [T]) {
        let Some(rx) = tangents.rx else {
            return ry.fill(T::ZERO);
        };
        let [inputs, outputs] = self.lens();
        let k = tangents.count();
        let mut scratch = vec![T::ZERO; self.largest_block()];
        for block in self.blocks(primal.samples) {
            let at = self.inputs(&block, &primal.x[block.row(0, 1, inputs)]);
            let p = &primal.cached[block.cached.clone()];
            let rp = &mut scratch[..p.len()];
            for j in 0..k {
                let moved = self.inputs(&block, &rx[block.row(j, k, inputs)]);
                self.tangent_of_p(&block, p, [&at, &moved], rp);
                let ry = &mut ry[block.row(j, k, outputs)];
                self.write_output(&block, ry, [block.matrix(rp), at.value], false);
                self.write_output(&block, ry, [block.matrix(p), moved.value], true);
            }
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangents: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let [inputs, outputs] = self.lens();
        let k = tangents.count();
        let rx = tangents.rx.filter(|_| mode == Mode::Hessian);
        let mut scratch = [(); 4].map(|()| vec![T::ZERO; self.largest_block()]);
        for block in self.blocks(primal.samples) {
            let at = self.inputs(&block, &primal.x[block.row(0, 1, inputs)]);
            let p = &primal.cached[block.cached.clone()];
            let [ds, dp, rp, rds] = scratch.each_mut().map(|buffer| &mut buffer[..p.len()]);
            let dy = self.output(&block, &primal.dy[block.row(0, 1, outputs)]);
            if rx.is_some() {
                multiply(dp, dy, at.value.t(), false);
                softmax_backward(block.keys, self.scale(), p, dp, ds);
            }
            for j in 0..k {
                let rdx = &mut rdx[block.row(j, k, inputs)];
                let rdy = &tangents.rdy[block.row(j, k, outputs)];
                let rdy = self.output(&block, rdy);
                multiply(rds, rdy, at.value.t(), false);
                let Some(rx) = rx else {
                    softmax_backward(block.keys, self.scale(), p, rds, rp);
                    let parts = [
                        (Of::Query, block.matrix(rp), at.key),
                        (Of::Key, block.matrix(rp).t(), at.query),
                        (Of::Value, block.matrix(p).t(), rdy),
                    ];
                    let parts = parts.map(|(of, a, b)| Part { of, a, b });
                    self.write_input(&block, rdx, &parts);
                    continue;
                };
                let moved = self.inputs(&block, &rx[block.row(j, k, inputs)]);
                self.tangent_of_p(&block, p, [&at, &moved], rp);
                multiply(rds, dy, moved.value.t(), true);
                softmax_backward_tangent(block.keys, self.scale(), [p, dp, rp], rds);
                let parts = [
                    (Of::Query, block.matrix(rds), at.key),
                    (Of::Query, block.matrix(ds), moved.key),
                    (Of::Key, block.matrix(rds).t(), at.query),
                    (Of::Key, block.matrix(ds).t(), moved.query),
                    (Of::Value, block.matrix(rp).t(), dy),
                    (Of::Value, block.matrix(p).t(), rdy),
                ];
                let parts = parts.map(|(of, a, b)| Part { of, a, b });
                self.write_input(&block, rdx, &parts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    /// softmax(QKᵀ/√d) V of one sample, entry by entry.
    fn attention(rules: &AttentionRules, x: &[f64]) -> Vec<f64> {
        let (n, width) = (rules.positions, rules.input_width());
        let mut y = Vec::new();
        for i in 0..n {
            for head in 0..rules.heads {
                let [query, key, value] = rules.offsets(head);
                let keys = if rules.causal { i + 1 } else { n };
                let entry = |t: usize, offset: usize| x[t * width + offset];
                let weights: Vec<f64> = (0..keys)
                    .map(|t| {
                        let products =
                            (0..rules.key).map(|f| entry(i, query + f) * entry(t, key + f));
                        (products.sum::<f64>() / (rules.key as f64).sqrt()).exp()
                    })
                    .collect();
                let sum = weights.iter().sum::<f64>();
                y.extend((0..rules.value).map(|f| {
                    let terms = weights.iter().enumerate();
                    terms.map(|(t, w)| w * entry(t, value + f)).sum::<f64>() / sum
                }));
            }
        }
        y
    }

    #[test]
    fn output_matches_the_formula_and_derivatives_match_differences() {
        for (positions, heads, key, value, samples, k) in [
            (1, 1, 1, 1, 1, 1),
            (1, 2, 3, 2, 2, 2),
            (5, 1, 2, 3, 2, 1),
            (6, 3, 2, 2, 1, 2),
            (BLOCK + 3, 1, 2, 1, 1, 2),
            (2 * BLOCK + 1, 2, 1, 1, 1, 1),
        ] {
            for causal in [false, true] {
                let rules = AttentionRules {
                    positions,
                    heads,
                    key,
                    value,
                    causal,
                };
                let [inputs, outputs] = rules.lens();
                let tile = Tile::random([inputs, outputs, 1], samples, k, 4);
                let expected = tile.x.chunks(inputs).flat_map(|x| attention(&rules, x));
                let expected: Vec<f64> = expected.collect();
                close("y", &evaluate::<f64>(&rules, &tile).y, &expected, 1e-13);
                check(&rules, &tile, 1e-9);
                check(&rules, &Tile { rx: None, ..tile }, 1e-9);
            }
        }
    }

    /// Every sample of a tile has the results that it has alone.
    #[test]
    fn large_scores_and_equal_positions_have_finite_derivatives() {
        let rules = AttentionRules {
            positions: 4,
            heads: 2,
            key: 3,
            value: 2,
            causal: true,
        };
        let [inputs, outputs] = rules.lens();
        let mut tile = Tile::random([inputs, outputs, 1], 2, 2, 4);
        let first: Vec<f64> = tile.x[..rules.input_width()].to_vec();
        for x in tile.x.chunks_mut(first.len()) {
            x.copy_from_slice(&first);
        }
        check(&rules, &tile, 1e-9);
        tile.x.iter_mut().for_each(|x| *x *= 300.0);
        let found = evaluate::<f32>(&rules, &tile);
        let all = [found.y, found.dx, found.ry, found.rdx.concat()].concat();
        assert!(all.iter().all(|x| x.is_finite()));
    }
}
