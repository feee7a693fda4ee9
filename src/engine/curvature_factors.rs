//! Kronecker factors of the Gauss–Newton matrix, and what corrects their eigenvalues.
//!
//! With the Jacobian Jᵢ of a sample's outputs and a root Hᵢ = SᵢSᵢᵀ of the loss's curvature, the matrix is (1/n) Σ JᵢᵀSᵢSᵢᵀJᵢ. A
//! backward pass that starts with a column of Sᵢ in place of the loss's gradient gives the derivatives g of that column in each
//! layer's outputs. For a layer y_t = W a_t + b, the rows of JᵢᵀSᵢ that belong to [W b] are Σ_t g_t [a_t 1]ᵀ.

use std::ops::Range;

use super::network::{Buffers, CachedTile, Network, Purpose, Samples};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::matrix::{Matrix, multiply};
use crate::kernels::tiles::{Tile, over_tiles};
use crate::layers::graph::Node;
use crate::layers::row_product::RowProduct;
use crate::layers::rules::{Primal, Rules, Window, Write};
use crate::progress;
use crate::random::{Purpose as Stream, generator};

/// Which columns of the roots Sᵢ start backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootColumns {
    /// Each column: as many passes as a sample has outputs.
    All,
    /// `passes` sums of all columns with random signs over √`passes`. The mean of their outer products is that of the columns.
    Signs { passes: usize, seed: u64 },
}

impl RootColumns {
    /// Number of backward passes for samples with this number of outputs.
    pub(crate) fn passes(self, outputs: usize) -> usize {
        match self {
            Self::All => outputs,
            Self::Signs { passes, .. } => passes,
        }
    }

    /// Writes the weights w of a pass for the samples of a tile; the pass starts with Sᵢw.
    fn weights(self, pass: usize, tile: Tile, outputs: usize, weights: &mut Vec<f64>) {
        weights.clear();
        weights.resize(tile.len * outputs, 0.0);
        match self {
            Self::All => {
                let first = weights.iter_mut().skip(pass).step_by(outputs);
                first.for_each(|w| *w = 1.0);
            }
            Self::Signs { passes, seed } => {
                let size = 1.0 / (passes as f64).sqrt();
                for (s, weights) in weights.chunks_exact_mut(outputs).enumerate() {
                    let stream = ((tile.start + s) * passes + pass) as u64;
                    let mut generator = generator(Stream::Kfac, seed, stream);
                    for w in weights {
                        *w = if rand::Rng::random(&mut generator) {
                            size
                        } else {
                            -size
                        };
                    }
                }
            }
        }
    }
}

/// The Gauss–Newton matrix by its Kronecker factors where layers have them, and by its diagonal elsewhere. Without the L2 term.
pub(crate) struct CurvatureFactors {
    pub(crate) blocks: Vec<FactorBlock>,
    /// The diagonal at the other parameters, and zeros elsewhere. Length of θ.
    pub(crate) diagonal: Vec<f64>,
    /// Number of backward passes for each sample.
    pub(crate) passes: usize,
}

/// The block of [W b], in row-major order, approximated by B ⊗ A.
pub(crate) struct FactorBlock {
    /// Ranges in θ of the rows of W, one below the other.
    pub(crate) weights: Vec<Range<usize>>,
    /// Ranges in θ of b, or none.
    pub(crate) biases: Vec<Range<usize>>,
    /// Number of columns of [W b].
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// A: the mean of a aᵀ over samples and positions.
    pub(crate) input_factor: Vec<f64>,
    /// B: the mean over the samples of Σ_t Σ g_t g_tᵀ, with the inner sum over the columns of the root.
    pub(crate) output_factor: Vec<f64>,
}

/// A node's products with their number.
struct Product {
    node: usize,
    product: RowProduct,
}

/// A thread's sums over the samples of a group.
struct Sums {
    /// Two matrices for each product.
    matrices: Vec<[Vec<f64>; 2]>,
    diagonal: Vec<f64>,
    rows: [Vec<f64>; 2],
}

impl<T: Scalar> Network<T> {
    /// For each node how many nodes, at most, use one of its parameters.
    fn uses(&self) -> Vec<usize> {
        let ranges = |node: &Node<T>| node.rules().map_or_else(Vec::new, Rules::param_ranges);
        let all: Vec<_> = self.nodes.iter().map(ranges).collect();
        let count = |range: &Range<usize>| {
            let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
            all.iter().flatten().filter(|other| meets(other)).count()
        };
        let uses = all.iter();
        uses.map(|ranges| ranges.iter().map(count).max().unwrap_or(0))
            .collect()
    }

    /// The products of all layers whose parameters no other layer uses.
    fn products_of_rows(&self) -> Vec<Product> {
        let nodes = self.nodes.iter().zip(self.uses()).enumerate();
        let products = nodes.filter(|(_, (_, uses))| *uses == 1);
        let products = products.flat_map(|(l, (node, _))| {
            let products = node.rules().map_or_else(Vec::new, Rules::row_products);
            products
                .into_iter()
                .map(move |product| Product { node: l, product })
        });
        products.collect()
    }

    /// Kronecker factors of the Gauss–Newton matrix.
    pub(super) fn curvature_factors(
        &self,
        theta: &[T],
        samples: Samples<T>,
        columns: RootColumns,
    ) -> Result<CurvatureFactors> {
        let products = self.products_of_rows();
        let has_factors = |l: usize| products.iter().any(|product| product.node == l);
        let diagonal: Vec<bool> = (0..self.nodes.len())
            .map(|l| self.nodes[l].rules().is_some_and(|r| r.num_params() > 0) && !has_factors(l))
            .collect();
        let state = || Sums {
            matrices: products
                .iter()
                .map(|Product { product, .. }| {
                    [product.columns(), product.outputs].map(|n| vec![0.0; n * n])
                })
                .collect(),
            diagonal: match diagonal.contains(&true) {
                true => vec![0.0; self.num_params],
                false => Vec::new(),
            },
            rows: Default::default(),
        };
        let mut total = state();
        self.over_root_columns(
            theta,
            samples,
            columns,
            || (state(), SampleGradient::default()),
            |(sums, gradient), pass, l, primal| {
                let matrices = products.iter().zip(&mut sums.matrices);
                for (Product { product, .. }, [a, b]) in matrices.filter(|(p, _)| p.node == l) {
                    if pass == 0 {
                        product.input_rows(primal.x, &mut sums.rows[0]);
                        add_squares(&sums.rows[0], product.columns(), a);
                    }
                    product.output_rows(primal.dy, &mut sums.rows[1]);
                    add_squares(&sums.rows[1], product.outputs, b);
                }
                if diagonal[l]
                    && let Some(rules) = self.nodes[l].rules()
                {
                    for s in 0..primal.samples {
                        gradient.compute(rules, &sample(primal, s), self.num_params);
                        for range in rules.param_ranges() {
                            let squares = sums.diagonal[range.clone()].iter_mut();
                            for (sum, g) in squares.zip(&mut gradient.theta[range]) {
                                *sum += *g * *g;
                                *g = 0.0;
                            }
                        }
                    }
                }
            },
            |(sums, _)| {
                for (total, sums) in total.matrices.iter_mut().zip(&mut sums.matrices) {
                    for (total, sums) in total.iter_mut().zip(sums) {
                        add_and_clear(total, sums);
                    }
                }
                add_and_clear(&mut total.diagonal, &mut sums.diagonal);
            },
        )?;
        let n = samples.count as f64;
        let over = |mut sums: Vec<f64>, count: f64| {
            sums.iter_mut().for_each(|sum| *sum /= count);
            sums
        };
        if total.diagonal.is_empty() {
            total.diagonal = vec![0.0; self.num_params];
        }
        for (l, node) in self.nodes.iter().enumerate() {
            if let Some(rules) = node.rules().filter(|_| diagonal[l]) {
                rules.order(&mut total.diagonal);
            }
        }
        let blocks = products.into_iter().zip(total.matrices);
        let blocks = blocks.map(|(Product { product, .. }, [a, b])| FactorBlock {
            inputs: product.columns(),
            outputs: product.outputs,
            input_factor: over(a, n * product.positions as f64),
            output_factor: over(b, n),
            weights: product.weights,
            biases: product.biases,
        });
        Ok(CurvatureFactors {
            blocks: blocks.collect(),
            diagonal: over(total.diagonal, n),
            passes: columns.passes(self.loss.size()),
        })
    }

    /// For each block of [`curvature_factors`](Self::curvature_factors) the diagonal of the matrix in a basis: the mean over the
    /// samples of the squared entries of U (Σ_t g_t a_tᵀ) Vᵀ, summed over the columns of the root. `bases` holds V and U, whose
    /// rows are the vectors of the basis. Shape (outputs, inputs).
    pub(super) fn diagonal_in_bases(
        &self,
        theta: &[T],
        samples: Samples<T>,
        columns: RootColumns,
        bases: &[[Vec<f64>; 2]],
    ) -> Result<Vec<Vec<f64>>> {
        struct Squares {
            sums: Vec<Vec<f64>>,
            /// For each product the rows of inputs in the basis.
            inputs: Vec<Vec<f64>>,
            rows: Vec<f64>,
            outputs: Vec<f64>,
            gradient: Vec<f64>,
        }
        let products = self.products_of_rows();
        let len = |product: &RowProduct| product.outputs * product.columns();
        let zeros = || -> Vec<Vec<f64>> {
            let all = products.iter();
            all.map(|p| vec![0.0; len(&p.product)]).collect()
        };
        let mut total = zeros();
        self.over_root_columns(
            theta,
            samples,
            columns,
            || Squares {
                sums: zeros(),
                inputs: vec![Vec::new(); products.len()],
                rows: Vec::new(),
                outputs: Vec::new(),
                gradient: Vec::new(),
            },
            |state, pass, l, primal| {
                let of_node = products.iter().enumerate().filter(|(_, p)| p.node == l);
                for (i, Product { product, .. }) in of_node {
                    let (inputs, outputs) = (product.columns(), product.outputs);
                    if pass == 0 {
                        product.input_rows(primal.x, &mut state.rows);
                        rotate(&state.rows, &bases[i][0], inputs, &mut state.inputs[i]);
                    }
                    product.output_rows(primal.dy, &mut state.rows);
                    rotate(&state.rows, &bases[i][1], outputs, &mut state.outputs);
                    let (a, g, sums) = (&state.inputs[i], &mut state.outputs, &mut state.sums[i]);
                    let positions = product.positions;
                    if positions == 1 {
                        g.iter_mut().for_each(|g| *g *= *g);
                        state.rows.clear();
                        state.rows.extend(a.iter().map(|a| a * a));
                        let rows = primal.samples;
                        let a = Matrix::new(&state.rows, rows, inputs);
                        multiply(sums, Matrix::new(g, rows, outputs).t(), a, true);
                        continue;
                    }
                    state.gradient.resize(len(product), 0.0);
                    let samples = a.chunks_exact(positions * inputs);
                    for (a, g) in samples.zip(g.chunks_exact(positions * outputs)) {
                        let a = Matrix::new(a, positions, inputs);
                        let g = Matrix::new(g, positions, outputs).t();
                        multiply(&mut state.gradient, g, a, false);
                        for (sum, g) in sums.iter_mut().zip(&state.gradient) {
                            *sum += g * g;
                        }
                    }
                }
            },
            |state| {
                for (total, sums) in total.iter_mut().zip(&mut state.sums) {
                    add_and_clear(total, sums);
                }
            },
        )?;
        let n = samples.count as f64;
        for sum in total.iter_mut().flatten() {
            *sum /= n;
        }
        Ok(total)
    }

    /// An upper bound on the norm of each sample's gradient: the norm itself, unless layers share parameters.
    pub(super) fn sample_gradient_norms(
        &self,
        theta: &[T],
        samples: Samples<T>,
    ) -> Result<Vec<f64>> {
        // ‖Σ g‖² ≤ m Σ ‖g‖² for the gradients g of m uses.
        let uses = self.uses();
        let mut norms = Vec::with_capacity(samples.count);
        self.over_layers(
            theta,
            samples,
            || (Vec::new(), Vec::new()),
            |(tiles, buffer): &mut (Vec<(Tile, Vec<f64>)>, Vec<T>), tile, _, l, primal| {
                if tiles
                    .last()
                    .is_none_or(|(last, _)| last.start != tile.start)
                {
                    tiles.push((tile, vec![0.0; tile.len]));
                }
                let (Some((_, squares)), Some(rules)) = (tiles.last_mut(), self.nodes[l].rules())
                else {
                    return;
                };
                buffer.resize(rules.num_params(), T::ZERO);
                if buffer.is_empty() {
                    return;
                }
                for (s, square) in squares.iter_mut().enumerate() {
                    rules.gradient(&sample(&primal, s), buffer, Write::Replace);
                    let sum: f64 = buffer.iter().map(|g| g.f64() * g.f64()).sum();
                    *square += uses[l] as f64 * sum;
                }
            },
            [|(tiles, _): &mut (Vec<(Tile, Vec<f64>)>, Vec<T>), _| {
                for (_, squares) in tiles.drain(..) {
                    norms.extend(squares.iter().map(|square| square.sqrt()));
                }
            }],
        )?;
        Ok(norms)
    }

    /// One forward pass of every tile and its backward passes, on all threads. `work` is called for each pass and layer, the last
    /// layer first, with a per-thread state; `finish` for each group in order.
    fn over_root_columns<S: Send>(
        &self,
        theta: &[T],
        samples: Samples<T>,
        columns: RootColumns,
        state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize, usize, &Primal<T>) + Sync,
        mut finish: impl FnMut(&mut S) + Send,
    ) -> Result<()> {
        let packed = self.pack(0, &[theta]);
        let (depth, outputs) = (self.nodes.len(), self.loss.size());
        over_tiles(
            samples.count,
            self.split(samples.count),
            || {
                (
                    CachedTile::default(),
                    Buffers::default(),
                    Vec::new(),
                    state(),
                )
            },
            |_, tile, (cached, buffers, weights, state)| {
                let x = samples.tile(tile, self);
                self.forward_from(0, &packed, &x, Purpose::Derivatives, cached);
                let targets = samples.targets(tile, self);
                for pass in 0..columns.passes(outputs) {
                    progress::check()?;
                    columns.weights(pass, tile, outputs, weights);
                    self.start_backward(tile.len, cached, buffers, |z, dz| {
                        self.loss.curvature_root(z, targets, weights, dz);
                    });
                    for l in (0..depth).rev() {
                        if self.nodes[l].rules().is_some() {
                            work(state, pass, l, &self.primal(l, &packed[l], &x, cached));
                        }
                        self.backward_from(l, &packed[l], &x, cached, buffers);
                    }
                }
                Ok(())
            },
            [|(_, _, _, state): &mut (_, _, _, S)| finish(state)],
        )
    }
}

/// A sample's gradient with respect to one layer's parameters.
struct SampleGradient<T> {
    packed: Vec<T>,
    /// In the order of θ.
    theta: Vec<f64>,
}

impl<T> Default for SampleGradient<T> {
    fn default() -> Self {
        Self {
            packed: Vec::new(),
            theta: Vec::new(),
        }
    }
}

impl<T: Scalar> SampleGradient<T> {
    /// Adds the gradient to `theta`.
    fn compute(&mut self, rules: &dyn Rules<T>, primal: &Primal<T>, num_params: usize) {
        self.packed.resize(rules.num_params(), T::ZERO);
        self.theta.resize(num_params, 0.0);
        rules.gradient(primal, &mut self.packed, Write::Replace);
        let mut window = Window {
            start: 0,
            vectors: vec![&mut self.theta],
        };
        rules.add_gradient(&self.packed, &mut window);
    }
}

/// One sample of a tile. All values of a sample are contiguous, the cached ones too in layers with parameters.
fn sample<'a, T>(primal: &Primal<'a, T>, s: usize) -> Primal<'a, T> {
    let row = |values: &'a [T]| {
        let len = values.len() / primal.samples;
        &values[s * len..(s + 1) * len]
    };
    Primal {
        theta: primal.theta,
        samples: 1,
        x: row(primal.x),
        sparse: None,
        y: row(primal.y),
        cached: row(primal.cached),
        dy: row(primal.dy),
    }
}

/// Adds RᵀR for rows of n values.
fn add_squares(rows: &[f64], n: usize, sum: &mut [f64]) {
    let rows = Matrix::new(rows, rows.len() / n, n);
    multiply(sum, rows.t(), rows, true);
}

/// Writes the rows in a basis, whose n vectors are the rows of `basis`.
fn rotate(rows: &[f64], basis: &[f64], n: usize, rotated: &mut Vec<f64>) {
    rotated.resize(rows.len(), 0.0);
    let rows = Matrix::new(rows, rows.len() / n, n);
    multiply(rotated, rows, Matrix::new(basis, n, n).t(), false);
}

fn add_and_clear(total: &mut [f64], sums: &mut [f64]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total += *sum;
        *sum = 0.0;
    }
}
