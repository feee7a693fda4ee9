//! [`Network`]: a graph of layers with a loss at the end, evaluated over the whole dataset, a tile of samples at a time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::compressed_inputs::CompressedInputs;
use super::plan::Plan;
use super::products::Scratch;
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::elementwise::add;
use crate::kernels::sparse::SparseTile;
use crate::kernels::tiles::{Split, Tile, over_tiles};
use crate::layers::graph::Node;
use crate::layers::rules::{Layouts, Packed, Primal, Tangent, Window, Write};
use crate::losses::{LossRules, TargetSlice};
use crate::pool::{Lent, Pool};
use crate::recycled::zeros;
use crate::vector::{PIECE, scale};

/// Largest number of windows of θ to which gradients are added at the same time, and their smallest size.
const WINDOWS: usize = 64;
const SMALLEST_WINDOW: usize = 1 << 15;

/// Layers and joins with a loss at the end.
pub(super) struct Network<T> {
    pub(super) nodes: Vec<Node<T>>,
    pub(super) plan: Plan,
    pub(super) loss: LossRules,
    /// Number of values of a sample's inputs.
    pub(super) inputs: usize,
    /// Length of θ.
    pub(super) num_params: usize,
    /// Number of tokens that the inputs may hold, if they are tokens.
    pub(super) num_tokens: Option<usize>,
    /// Names and ranges of the parameters.
    pub(super) params: Vec<(String, Range<usize>)>,
    /// Buffers of products.
    pub(super) scratch: Pool<Scratch<T>>,
    /// Each layer's gradient on one thread.
    pub(super) gradients: Pool<Vec<Vec<T>>>,
}

/// The dataset as slices.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a, T> {
    pub(super) inputs: &'a [T],
    pub(super) targets: TargetSlice<'a, T>,
    pub(super) count: usize,
    /// The inputs without zeros, if the first layer reads that.
    pub(super) compressed: Option<&'a CompressedInputs<T>>,
}

/// The inputs of a tile.
pub(super) struct TileInputs<'a, T> {
    /// Number of samples.
    pub(super) samples: usize,
    pub(super) values: &'a [T],
    /// The same without zeros, if the first layer reads that.
    pub(super) sparse: Option<Arc<SparseTile<T>>>,
}

/// The forward pass and the first backward pass of every sample, which derivatives at a point need, cached up to a
/// budget.
pub(super) struct CachedPoint<T> {
    pub(super) theta: Vec<T>,
    /// In bytes.
    pub(super) budget: usize,
    pub(super) packed: Vec<Packed<T>>,
    /// The tiles of each group; `None` once the budget is used up.
    pub(super) groups: Vec<Vec<Option<CachedTile<T>>>>,
}

impl<T: Scalar> CachedPoint<T> {
    /// Whether this is the point θ, rounded to the network's type.
    pub(super) fn is_at(&self, theta: &[f64]) -> bool {
        let pieces = self.theta.par_chunks(PIECE).zip(theta.par_chunks(PIECE));
        let is_equal = |(ours, theirs): (&[T], &[f64])| {
            let mut pairs = ours.iter().zip(theirs);
            pairs.all(|(ours, x)| *ours == T::from_f64(*x))
        };
        self.theta.len() == theta.len() && pieces.all(is_equal)
    }
}

/// The passes of a tile: at each boundary the values and the loss's derivatives with respect to them (none at the inputs), and the
/// extra values that each layer caches.
#[derive(Default)]
pub(super) struct CachedTile<T> {
    pub(super) values: Vec<Vec<T>>,
    pub(super) adjoints: Vec<Vec<T>>,
    pub(super) cached: Vec<Vec<T>>,
}

/// A thread's buffers for backward passes whose derivatives are not kept.
#[derive(Default)]
pub(super) struct Buffers<T> {
    spare: Vec<Vec<T>>,
    more: Vec<T>,
}

/// Whether a forward pass caches what derivatives need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Values,
    Derivatives,
}

impl<T: Scalar> Network<T> {
    pub(super) fn width(&self, boundary: usize) -> usize {
        match boundary {
            0 => self.inputs,
            _ => self.nodes[boundary - 1].output_len(),
        }
    }

    /// Number of values of a sample at the widest boundary above the inputs.
    pub(super) fn widest(&self) -> usize {
        let widths = self.nodes.iter().map(Node::output_len);
        widths.max().unwrap_or(1)
    }

    /// Number of values in a row of the inputs, if the first layer reads them compressed.
    pub(super) fn sparse_row(&self) -> Option<usize> {
        self.nodes[0].rules()?.sparse_row()
    }

    pub(super) fn split(&self, samples: usize) -> Split {
        let [row, parameters] = [self.widest(), self.num_params].map(|n| n * size_of::<T>());
        Split::new(samples, row, parameters)
    }

    /// Lengths of the buffers for the layers' gradients along `k` directions; 0 for layers that `needs_gradient` excludes.
    pub(super) fn gradient_lengths(
        &self,
        k: usize,
        needs_gradient: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.map(move |(l, node)| {
            let rules = node.rules().filter(|_| needs_gradient(l));
            k * rules.map_or(0, |rules| rules.num_params())
        })
    }

    /// Buffers for the layers' gradients.
    pub(super) fn gradient_buffers(&self) -> Vec<Vec<T>> {
        let lengths = self.gradient_lengths(1, |_| true);
        lengths.map(|length| vec![T::ZERO; length]).collect()
    }

    /// Splits vectors in θ-space into windows, to which threads add at the same time.
    pub(super) fn windows<'a>(&self, vectors: &'a mut [Vec<f64>]) -> Vec<Window<'a>> {
        Window::split(
            vectors,
            SMALLEST_WINDOW.max(self.num_params.div_ceil(WINDOWS)),
        )
    }

    pub(super) fn add_gradients(&self, gradients: &[Vec<T>], window: &mut Window) {
        for (node, gradient) in self.nodes.iter().zip(gradients) {
            if let Some(rules) = node.rules()
                && !gradient.is_empty()
            {
                rules.add_gradient(gradient, window);
            }
        }
    }

    /// Puts a sum of [gradients](Self::add_gradients) in the order of θ.
    pub(super) fn order(&self, sum: &mut [f64]) {
        for rules in self.nodes.iter().filter_map(Node::rules) {
            rules.order(sum);
        }
    }

    /// The parts of several points in θ-space that belong to each node, starting at node `from`.
    pub(super) fn pack(&self, from: usize, points: &[&[T]]) -> Vec<Packed<T>> {
        let nodes = self.nodes[from..].iter();
        nodes
            .map(|node| match node.rules() {
                Some(rules) => Packed::new(rules, points, layouts(node)),
                None => Packed::empty(points.len()),
            })
            .collect()
    }

    /// The parts of several directions in θ-space that belong to each node. With `block`, directions that are zero outside
    /// of these ranges.
    pub(super) fn pack_directions(
        &self,
        directions: &[&[T]],
        block: Option<&[Range<usize>]>,
    ) -> Vec<Packed<T>> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| match node.rules() {
                Some(rules) => Packed::of_directions(rules, directions, layouts(node), block),
                None => Packed::empty(directions.len()),
            })
            .collect()
    }

    /// All samples' outputs, one after another.
    pub(super) fn outputs(&self, theta: &[T], samples: Samples<T>) -> Result<Vec<T>> {
        let packed = self.pack(0, &[theta]);
        let mut outputs = Vec::with_capacity(samples.count * self.loss.size());
        over_tiles(
            samples.count,
            self.split(samples.count),
            || (CachedTile::default(), Vec::new()),
            |_, tile, (cached, group)| {
                let x = samples.tile(tile, self);
                self.forward(&packed, &x, Purpose::Values, cached);
                group.extend_from_slice(&cached.values[self.nodes.len()]);
                Ok(())
            },
            [|(_, group): &mut (_, Vec<T>)| outputs.append(group)],
        )?;
        Ok(outputs)
    }

    /// The sum of all samples' losses, and the number of correct labels.
    pub(super) fn loss(&self, theta: &[T], samples: Samples<T>) -> Result<(f64, usize)> {
        let packed = self.pack(0, &[theta]);
        let mut total = (0.0, 0);
        over_tiles(
            samples.count,
            self.split(samples.count),
            || (CachedTile::default(), (0.0, 0)),
            |_, tile, (cached, sum)| {
                let x = samples.tile(tile, self);
                self.forward(&packed, &x, Purpose::Values, cached);
                let targets = samples.targets(tile, self);
                let (loss, correct) = self.loss.score(&cached.values[self.nodes.len()], targets);
                *sum = (sum.0 + loss, sum.1 + correct);
                Ok(())
            },
            [|(_, sum): &mut (_, (f64, usize))| {
                let (loss, correct) = std::mem::take(sum);
                total = (total.0 + loss, total.1 + correct);
            }],
        )?;
        Ok(total)
    }

    /// The sum of all samples' losses, and the gradient of the mean loss.
    pub(super) fn gradient(&self, theta: &[T], samples: Samples<T>) -> Result<(f64, Vec<f64>)> {
        let mut gradient = [zeros(self.num_params)];
        let windows = self.windows(&mut gradient);
        // Every window adds up the losses, all to the same bits.
        let mut totals = vec![0.0; windows.len()];
        let finish = windows.into_iter().zip(&mut totals);
        let finish = finish.map(|(mut window, total)| {
            move |buffers: &mut Lent<Vec<Vec<T>>>, loss| {
                *total += loss;
                self.add_gradients(buffers, &mut window);
            }
        });
        let finish: Vec<_> = finish.collect();
        self.over_layers(
            theta,
            samples,
            || {
                let mut buffers = self.gradients.lend();
                fit(&mut buffers, self.gradient_lengths(1, |_| true));
                buffers
            },
            |buffers, _, write, l, primal| {
                if let Some(rules) = self.nodes[l].rules() {
                    rules.gradient(&primal, &mut buffers[l], write);
                }
            },
            finish,
        )?;
        let [mut gradient] = gradient;
        self.order(&mut gradient);
        scale(&mut gradient, 1.0 / samples.count as f64);
        Ok((totals[0], gradient))
    }

    /// The forward and backward pass of every tile, on all threads. `work` is called for each layer of a tile, the last
    /// one first, with a per-thread state, and [`Write::Replace`] for the first tile of a group; each `finish` for each group
    /// in order, with the sum of its samples' losses.
    pub(super) fn over_layers<S: Send, F: FnMut(&mut S, f64) + Send>(
        &self,
        theta: &[T],
        samples: Samples<T>,
        state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, Tile, Write, usize, Primal<T>) + Sync,
        finish: impl IntoIterator<Item = F>,
    ) -> Result<()> {
        let finish = finish
            .into_iter()
            .map(|mut finish| move |(_, _, state, sum): &mut (_, _, S, f64)| finish(state, *sum));
        let packed = self.pack(0, &[theta]);
        over_tiles(
            samples.count,
            self.split(samples.count),
            || (CachedTile::default(), Buffers::default(), state(), 0.0),
            |i, tile, (cached, buffers, state, sum)| {
                let x = samples.tile(tile, self);
                self.forward(&packed, &x, Purpose::Derivatives, cached);
                let targets = samples.targets(tile, self);
                let (loss, _) = self.loss.score(&cached.values[self.nodes.len()], targets);
                *sum = if i == 0 { loss } else { *sum + loss };
                self.start_backward(tile.len, cached, buffers, |z, dz| {
                    self.loss.gradient(z, targets, dz);
                });
                let write = if i == 0 { Write::Replace } else { Write::Add };
                for l in (0..self.nodes.len()).rev() {
                    if self.nodes[l].rules().is_some() {
                        let primal = self.primal(l, &packed[l], &x, cached);
                        work(state, tile, write, l, primal);
                    }
                    self.backward_from(l, &packed[l], &x, cached, buffers);
                }
                Ok(())
            },
            finish,
        )
    }

    /// The passes at θ, cached for products up to `budget` bytes.
    pub(super) fn cached_point(
        &self,
        theta: Vec<T>,
        samples: Samples<T>,
        budget: usize,
    ) -> Result<CachedPoint<T>> {
        let packed = self.pack(0, &[&theta]);
        let mut groups = Vec::new();
        let held = AtomicUsize::new(0);
        over_tiles(
            samples.count,
            self.split(samples.count),
            Vec::new,
            |_, tile, group| {
                if held.load(Ordering::Relaxed) >= budget {
                    group.push(None);
                    return Ok(());
                }
                let mut cached = CachedTile::default();
                self.first_passes(&packed, samples, tile, &mut cached);
                let cached = cached.thin(self);
                let before = held.fetch_add(cached.bytes(), Ordering::Relaxed);
                group.push((before + cached.bytes() <= budget).then_some(cached));
                Ok(())
            },
            [|group: &mut Vec<_>| groups.push(std::mem::take(group))],
        )?;
        Ok(CachedPoint {
            theta,
            budget,
            packed,
            groups,
        })
    }

    /// The forward pass and the first backward pass of a tile.
    pub(super) fn first_passes(
        &self,
        packed: &[Packed<T>],
        samples: Samples<T>,
        tile: Tile,
        cached: &mut CachedTile<T>,
    ) {
        let x = samples.tile(tile, self);
        self.forward(packed, &x, Purpose::Derivatives, cached);
        self.backward(packed, &x, samples.targets(tile, self), cached);
    }

    fn forward(
        &self,
        packed: &[Packed<T>],
        x: &TileInputs<T>,
        purpose: Purpose,
        cached: &mut CachedTile<T>,
    ) {
        self.forward_from(0, packed, x, purpose, cached);
    }

    /// The forward pass starting at a node, given the values below it.
    pub(super) fn forward_from(
        &self,
        from: usize,
        packed: &[Packed<T>],
        x: &TileInputs<T>,
        purpose: Purpose,
        cached: &mut CachedTile<T>,
    ) {
        for (l, packed) in (from..).zip(packed) {
            cached.fit(self, l, x.samples, purpose);
            let (below, above) = cached.values.split_at_mut(l + 1);
            let value = |b: usize| if b == 0 { x.values } else { &below[b] };
            match &self.nodes[l] {
                Node::Layer { rules, .. } if l == 0 && x.sparse.is_some() => {
                    let primal = x.first_layer(packed);
                    rules.forward_tangent(&primal, &Tangent::along(packed), &mut above[0]);
                }
                Node::Layer { rules, from } => {
                    rules.forward(packed, value(*from), &mut above[0], &mut cached.cached[l]);
                }
                Node::Join { join, from } => {
                    let sides: Vec<_> = from.iter().map(|from| Some(value(*from))).collect();
                    join.forward(&sides, &mut above[0]);
                }
            }
        }
    }

    fn backward(
        &self,
        packed: &[Packed<T>],
        x: &TileInputs<T>,
        targets: TargetSlice<T>,
        cached: &mut CachedTile<T>,
    ) {
        let (depth, samples) = (self.nodes.len(), x.samples);
        cached.adjoints.resize_with(depth + 1, Vec::new);
        for b in 1..=depth {
            cached.adjoints[b].resize(samples * self.width(b), T::ZERO);
        }
        self.loss
            .gradient(&cached.values[depth], targets, &mut cached.adjoints[depth]);
        let mut more = Vec::new();
        for l in (0..depth).rev() {
            self.backward_of(l, &packed[l], x, cached, &mut more);
        }
    }

    /// Calls `write` with the outputs, and with the buffer for what the backward pass starts with: the derivatives of the losses
    /// with respect to the outputs.
    pub(super) fn start_backward(
        &self,
        samples: usize,
        cached: &mut CachedTile<T>,
        buffers: &mut Buffers<T>,
        write: impl FnOnce(&[T], &mut [T]),
    ) {
        let depth = self.nodes.len();
        cached.adjoints.resize_with(depth + 1, Vec::new);
        let mut dz = buffers.spare.pop().unwrap_or_default();
        dz.resize(samples * self.width(depth), T::ZERO);
        write(&cached.values[depth], &mut dz);
        cached.adjoints[depth] = dz;
    }

    /// The backward pass of one node. Its buffers are taken from the free ones, and the one that it reads becomes free.
    pub(super) fn backward_from(
        &self,
        l: usize,
        packed: &Packed<T>,
        x: &TileInputs<T>,
        cached: &mut CachedTile<T>,
        buffers: &mut Buffers<T>,
    ) {
        for (side, from) in self.nodes[l].from().iter().enumerate() {
            if *from > 0 && self.plan.first[l][side] {
                let mut dx = buffers.spare.pop().unwrap_or_default();
                dx.resize(x.samples * self.width(*from), T::ZERO);
                cached.adjoints[*from] = dx;
            }
        }
        self.backward_of(l, packed, x, cached, &mut buffers.more);
        let read = std::mem::take(&mut cached.adjoints[l + 1]);
        buffers.spare.push(read);
    }

    /// The backward pass of one node, into buffers of the right size.
    fn backward_of(
        &self,
        l: usize,
        packed: &Packed<T>,
        x: &TileInputs<T>,
        cached: &mut CachedTile<T>,
        more: &mut Vec<T>,
    ) {
        let node = &self.nodes[l];
        for (side, from) in node.from().iter().enumerate() {
            if *from == 0 {
                continue;
            }
            let first = self.plan.first[l][side];
            let mut dx = std::mem::take(&mut cached.adjoints[*from]);
            match node {
                Node::Layer { rules, .. } if first => {
                    rules.backward(&self.primal(l, packed, x, cached), &mut dx);
                }
                Node::Layer { rules, .. } => {
                    more.resize(dx.len(), T::ZERO);
                    rules.backward(&self.primal(l, packed, x, cached), more);
                    add(more, &mut dx);
                }
                Node::Join { join, .. } => {
                    join.backward(side, &cached.adjoints[l + 1], &mut dx, first);
                }
            }
            cached.adjoints[*from] = dx;
        }
    }

    /// The values of a tile that node `l` reads.
    pub(super) fn primal<'a>(
        &self,
        l: usize,
        theta: &'a Packed<T>,
        x: &'a TileInputs<T>,
        cached: &'a CachedTile<T>,
    ) -> Primal<'a, T> {
        let from = self.nodes[l].from()[0];
        Primal {
            theta,
            samples: x.samples,
            x: match from {
                0 => x.values,
                _ => &cached.values[from],
            },
            sparse: x.sparse.as_deref().filter(|_| l == 0),
            y: &cached.values[l + 1],
            cached: &cached.cached[l],
            dy: &cached.adjoints[l + 1],
        }
    }
}

impl<'a, T: Scalar> Samples<'a, T> {
    /// The inputs of a tile.
    pub(super) fn tile(self, tile: Tile, network: &Network<T>) -> TileInputs<'a, T> {
        let values = &self.inputs[tile.start * network.inputs..][..tile.len * network.inputs];
        TileInputs {
            samples: tile.len,
            values,
            sparse: self.compressed.map(|inputs| inputs.tile(tile, values)),
        }
    }

    pub(super) fn targets(self, tile: Tile, network: &Network<T>) -> TargetSlice<'a, T> {
        network.loss.targets_of(self.targets, tile.start, tile.len)
    }
}

impl<T: Scalar> TileInputs<'_, T> {
    /// What the first layer reads in a forward pass, if it is affine.
    pub(super) fn first_layer<'a>(&'a self, theta: &'a Packed<T>) -> Primal<'a, T> {
        Primal {
            theta,
            samples: self.samples,
            x: self.values,
            sparse: self.sparse.as_deref(),
            y: &[],
            cached: &[],
            dy: &[],
        }
    }
}

impl<T: Scalar> CachedTile<T> {
    /// Resizes the buffers that node `l` writes.
    pub(super) fn fit(&mut self, network: &Network<T>, l: usize, samples: usize, purpose: Purpose) {
        let node = &network.nodes[l];
        self.values.resize_with(network.nodes.len() + 1, Vec::new);
        self.cached.resize_with(network.nodes.len(), Vec::new);
        let cached = match (node.rules(), purpose) {
            (Some(rules), Purpose::Derivatives) => rules.cached_len(),
            _ => 0,
        };
        self.cached[l].resize(samples * cached, T::ZERO);
        self.values[l + 1].resize(samples * node.output_len(), T::ZERO);
    }

    /// Drops values that no layer's derivatives read.
    fn thin(mut self, network: &Network<T>) -> Self {
        let depth = network.nodes.len();
        let mut needed = vec![false; depth + 1];
        needed[depth] = true;
        for (l, node) in network.nodes.iter().enumerate() {
            if let Some(rules) = node.rules() {
                needed[node.from()[0]] |= rules.needs_input();
                needed[l + 1] |= rules.needs_output();
            }
        }
        for (values, needed) in self.values.iter_mut().zip(needed) {
            if !needed {
                *values = Vec::new();
            }
        }
        // Joins have no derivatives of their own.
        for (l, node) in network.nodes.iter().enumerate() {
            if node.rules().is_none() && l + 1 < depth {
                self.adjoints[l + 1] = Vec::new();
            }
        }
        self
    }

    fn bytes(&self) -> usize {
        let all = self.values.iter().chain(&self.adjoints).chain(&self.cached);
        all.map(|v| v.capacity() * size_of::<T>()).sum()
    }
}

/// Gives buffers these lengths. Their values are those of earlier uses or zero.
pub(super) fn fit<T: Scalar>(buffers: &mut Vec<Vec<T>>, lengths: impl IntoIterator<Item = usize>) {
    let mut count = 0;
    for (i, length) in lengths.into_iter().enumerate() {
        if i == buffers.len() {
            buffers.push(Vec::new());
        }
        buffers[i].resize(length, T::ZERO);
        count = i + 1;
    }
    buffers.truncate(count);
}

/// The layouts that a node's rules read.
fn layouts<T: Scalar>(node: &Node<T>) -> Layouts {
    match node.from() {
        // Derivatives in the inputs are never needed.
        [0] => Layouts::Forward,
        _ => Layouts::Both,
    }
}
