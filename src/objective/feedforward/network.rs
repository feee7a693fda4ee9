//! [`Network`]: layers that hang together, evaluated over the whole dataset, a tile of samples at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Scalar;
use super::graph::{Node, Plan, add};
use super::head::{Curvature, Head, Targets};
use super::layer::{Arranged, At};
use super::tiles::{Split, Tile, over_groups};
use crate::vector::scale;

/// Tangents of one boundary that a core's cache holds beside all else.
const CACHE_BYTES: usize = 256 << 10;

/// Layers and joins with a loss at the end.
pub(super) struct Network<T> {
    pub(super) nodes: Vec<Node<T>>,
    pub(super) plan: Plan,
    pub(super) head: Head,
    /// Numbers in a sample's inputs.
    pub(super) inputs: usize,
    /// Length of θ.
    pub(super) parameters: usize,
}

/// The dataset as slices.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a, T> {
    pub(super) inputs: &'a [T],
    pub(super) targets: Targets<'a, T>,
    pub(super) count: usize,
}

/// What derivatives at a point θ need, for every sample: the primal pass, made once and kept as far as
/// the budget goes.
pub(super) struct Point<T> {
    pub(super) theta: Vec<T>,
    pub(super) budget: usize,
    arranged: Vec<Arranged<T>>,
    groups: Vec<Vec<Option<Kept<T>>>>,
}

/// What is kept of a tile: at each boundary the values that some layer asks for and the loss's derivatives
/// by them (none at the inputs), and each layer's notes.
#[derive(Default)]
pub(super) struct Kept<T> {
    pub(super) values: Vec<Vec<T>>,
    pub(super) adjoints: Vec<Vec<T>>,
    notes: Vec<Vec<T>>,
}

impl<T: Scalar> Network<T> {
    pub(super) fn width(&self, boundary: usize) -> usize {
        match boundary {
            0 => self.inputs,
            _ => self.nodes[boundary - 1].outputs(),
        }
    }

    /// Numbers in a sample's row at the widest boundary above the inputs.
    fn widest(&self) -> usize {
        let widths = self.nodes.iter().map(Node::outputs);
        widths.max().unwrap_or(1)
    }

    pub(super) fn split(&self, samples: usize) -> Split {
        Split::of(samples, self.widest() * size_of::<T>())
    }

    /// The layers' own gradients for `k` directions, as buffers to fill.
    pub(super) fn gradients(&self, k: usize) -> Vec<Vec<T>> {
        let parameters = |node: &Node<T>| node.layer().map_or(0, |layer| layer.parameters());
        let nodes = self.nodes.iter();
        nodes
            .map(|node| vec![T::ZERO; k * parameters(node)])
            .collect()
    }

    pub(super) fn add_gradients(&self, gradients: &[Vec<T>], vectors: &mut [Vec<f64>]) {
        for (node, gradient) in self.nodes.iter().zip(gradients) {
            if let Some(layer) = node.layer() {
                layer.add_gradient(gradient, vectors);
            }
        }
    }

    /// Each node's part of some θ-space vectors, from one node on.
    pub(super) fn arrange(&self, from: usize, vectors: &[&[T]]) -> Vec<Arranged<T>> {
        let nodes = self.nodes[from..].iter();
        nodes
            // Nobody asks for derivatives by the inputs.
            .map(|node| Arranged::new(node.layer(), vectors, node.from() != [0]))
            .collect()
    }

    /// All samples' outputs, one after another.
    pub(super) fn outputs(&self, theta: &[T], samples: Samples<T>) -> Vec<T> {
        let arranged = self.arrange(0, &[theta]);
        let mut outputs = Vec::with_capacity(samples.count * self.head.width);
        over_groups(
            samples.count,
            self.split(samples.count),
            || (Kept::default(), Vec::new()),
            |tiles, (kept, group)| {
                for tile in tiles {
                    self.forward(&arranged, samples.tile(*tile, self), false, kept);
                    group.extend_from_slice(&kept.values[self.nodes.len()]);
                }
            },
            |(_, group)| outputs.append(group),
        );
        outputs
    }

    /// The sum of all samples' losses, and how many of them are classified right.
    pub(super) fn loss(&self, theta: &[T], samples: Samples<T>) -> (f64, usize) {
        let arranged = self.arrange(0, &[theta]);
        let mut total = (0.0, 0);
        over_groups(
            samples.count,
            self.split(samples.count),
            || (Kept::default(), (0.0, 0)),
            |tiles, (kept, sum)| {
                for tile in tiles {
                    self.forward(&arranged, samples.tile(*tile, self), false, kept);
                    let targets = samples.targets(*tile, self);
                    let (loss, right) = self.head.score(&kept.values[self.nodes.len()], targets);
                    *sum = (sum.0 + loss, sum.1 + right);
                }
            },
            |(_, sum)| {
                let (loss, right) = std::mem::take(sum);
                total = (total.0 + loss, total.1 + right);
            },
        );
        total
    }

    /// The sum of all samples' losses, how many of them are classified right, and the gradient of the mean loss.
    pub(super) fn gradient(&self, theta: &[T], samples: Samples<T>) -> (f64, usize, Vec<f64>) {
        let arranged = self.arrange(0, &[theta]);
        let mut total = (0.0, 0);
        let mut gradient = [vec![0.0; self.parameters]];
        over_groups(
            samples.count,
            self.split(samples.count),
            || (Kept::default(), self.gradients(1), (0.0, 0)),
            |tiles, (kept, buffers, sum)| {
                for (i, tile) in tiles.iter().enumerate() {
                    let x = samples.tile(*tile, self);
                    self.forward(&arranged, x, true, kept);
                    let targets = samples.targets(*tile, self);
                    let (loss, right) = self.head.score(&kept.values[self.nodes.len()], targets);
                    *sum = (sum.0 + loss, sum.1 + right);
                    self.backward(&arranged, x, targets, kept);
                    for (l, node) in self.nodes.iter().enumerate() {
                        if let Some(layer) = node.layer() {
                            let at = self.at(l, x, kept);
                            layer.gradient(&arranged[l], &at, &mut buffers[l], i == 0);
                        }
                    }
                }
            },
            |(_, buffers, sum)| {
                let (loss, right) = std::mem::take(sum);
                total = (total.0 + loss, total.1 + right);
                self.add_gradients(buffers, &mut gradient);
            },
        );
        let [mut gradient] = gradient;
        scale(&mut gradient, 1.0 / samples.count as f64);
        (total.0, total.1, gradient)
    }

    /// The primal pass at θ, kept for products up to `budget` bytes.
    pub(super) fn point(&self, theta: Vec<T>, samples: Samples<T>, budget: usize) -> Point<T> {
        let arranged = self.arrange(0, &[&theta]);
        let mut groups = Vec::new();
        let held = AtomicUsize::new(0);
        over_groups(
            samples.count,
            self.split(samples.count),
            Vec::new,
            |tiles, group| {
                for tile in tiles {
                    if held.load(Ordering::Relaxed) >= budget {
                        group.push(None);
                        continue;
                    }
                    let mut kept = Kept::default();
                    self.primal(&arranged, samples, *tile, &mut kept);
                    let kept = kept.thin(self);
                    let before = held.fetch_add(kept.bytes(), Ordering::Relaxed);
                    group.push((before + kept.bytes() <= budget).then_some(kept));
                }
            },
            |group| groups.push(std::mem::take(group)),
        );
        Point {
            theta,
            budget,
            arranged,
            groups,
        }
    }

    fn primal(
        &self,
        arranged: &[Arranged<T>],
        samples: Samples<T>,
        tile: Tile,
        kept: &mut Kept<T>,
    ) {
        let x = samples.tile(tile, self);
        self.forward(arranged, x, true, kept);
        self.backward(arranged, x, samples.targets(tile, self), kept);
    }

    /// The products of `directions` with a curvature matrix at the point.
    ///
    /// As many go together as a core's cache holds tangents of, but two at least.
    pub(super) fn products(
        &self,
        point: &Point<T>,
        samples: Samples<T>,
        directions: &[&[T]],
        curvature: Curvature,
    ) -> Vec<Vec<f64>> {
        let row = self.widest() * self.split(samples.count).tile * size_of::<T>();
        let together = (CACHE_BYTES / row).max(2);
        let some = directions.chunks(together);
        some.flat_map(|some| self.products_together(point, samples, some, curvature))
            .collect()
    }

    fn products_together(
        &self,
        point: &Point<T>,
        samples: Samples<T>,
        directions: &[&[T]],
        curvature: Curvature,
    ) -> Vec<Vec<f64>> {
        let (k, split) = (directions.len(), self.split(samples.count));
        let arranged = self.arrange(0, directions);
        let mut products = vec![vec![0.0; self.parameters]; k];
        let (rows, widest) = (split.tile * k, self.widest());
        let above = || {
            let widths = self.nodes.iter().map(Node::outputs);
            widths.map(|width| vec![T::ZERO; rows * width])
        };
        let scratch = || Scratch {
            // The inputs have no tangents.
            tangents: std::iter::once(Vec::new()).chain(above()).collect(),
            slots: vec![vec![T::ZERO; rows * widest]; self.plan.slots],
            more: vec![T::ZERO; rows * widest],
            gradients: self.gradients(k),
            again: Kept::default(),
        };
        over_groups(
            samples.count,
            split,
            scratch,
            |tiles, scratch| {
                for (i, tile) in tiles.iter().enumerate() {
                    let at = (point, &arranged[..], curvature);
                    match &point.groups[tile.start / split.group][i] {
                        Some(kept) => self.tile_products(at, samples, *tile, kept, scratch, i == 0),
                        None => {
                            let mut kept = std::mem::take(&mut scratch.again);
                            self.primal(&point.arranged, samples, *tile, &mut kept);
                            self.tile_products(at, samples, *tile, &kept, scratch, i == 0);
                            scratch.again = kept;
                        }
                    }
                }
            },
            |scratch| self.add_gradients(&scratch.gradients, &mut products),
        );
        for product in &mut products {
            scale(product, 1.0 / samples.count as f64);
        }
        products
    }

    fn forward(&self, arranged: &[Arranged<T>], x: &[T], derivatives: bool, kept: &mut Kept<T>) {
        self.forward_above(0, arranged, x, derivatives, kept);
    }

    /// The forward pass from one node on, where the values below are there.
    pub(super) fn forward_above(
        &self,
        from: usize,
        arranged: &[Arranged<T>],
        x: &[T],
        derivatives: bool,
        kept: &mut Kept<T>,
    ) {
        let samples = x.len() / self.inputs;
        for (l, arranged) in (from..).zip(arranged) {
            kept.fit(self, l, samples, derivatives);
            let (below, above) = kept.values.split_at_mut(l + 1);
            let value = |b: usize| if b == 0 { x } else { &below[b] };
            match &self.nodes[l] {
                Node::Layer { layer, from } => {
                    layer.forward(arranged, value(*from), &mut above[0], &mut kept.notes[l]);
                }
                Node::Join { join, from } => {
                    join.forward(from.map(|b| Some(value(b))), &mut above[0]);
                }
            }
        }
    }

    fn backward(&self, arranged: &[Arranged<T>], x: &[T], targets: Targets<T>, kept: &mut Kept<T>) {
        let (depth, samples) = (self.nodes.len(), x.len() / self.inputs);
        kept.adjoints.resize_with(depth + 1, Vec::new);
        for b in 1..=depth {
            kept.adjoints[b].resize(samples * self.width(b), T::ZERO);
        }
        self.head
            .gradient(&kept.values[depth], targets, &mut kept.adjoints[depth]);
        let mut more = Vec::new();
        for l in (0..depth).rev() {
            self.backward_of(l, &arranged[l], x, kept, &mut more);
        }
    }

    /// The backward pass of one node, where there is room for what it writes.
    pub(super) fn backward_of(
        &self,
        l: usize,
        arranged: &Arranged<T>,
        x: &[T],
        kept: &mut Kept<T>,
        more: &mut Vec<T>,
    ) {
        let node = &self.nodes[l];
        for (side, from) in node.from().iter().enumerate() {
            if *from == 0 {
                continue;
            }
            let first = self.plan.first[l][side];
            let mut dx = std::mem::take(&mut kept.adjoints[*from]);
            match node {
                Node::Layer { layer, .. } if first => {
                    layer.backward(arranged, &self.at(l, x, kept), &mut dx);
                }
                Node::Layer { layer, .. } => {
                    more.resize(dx.len(), T::ZERO);
                    layer.backward(arranged, &self.at(l, x, kept), more);
                    add(more, &mut dx);
                }
                Node::Join { join, .. } => {
                    join.backward(side, &kept.adjoints[l + 1], &mut dx, first);
                }
            }
            kept.adjoints[*from] = dx;
        }
    }

    pub(super) fn at<'a>(&self, l: usize, x: &'a [T], kept: &'a Kept<T>) -> At<'a, T> {
        let from = self.nodes[l].from()[0];
        At {
            samples: x.len() / self.inputs,
            x: if from == 0 { x } else { &kept.values[from] },
            y: &kept.values[l + 1],
            notes: &kept.notes[l],
            dy: &kept.adjoints[l + 1],
        }
    }

    fn tile_products(
        &self,
        (point, directions, curvature): (&Point<T>, &[Arranged<T>], Curvature),
        samples: Samples<T>,
        tile: Tile,
        kept: &Kept<T>,
        scratch: &mut Scratch<T>,
        first_tile: bool,
    ) {
        let depth = self.nodes.len();
        let k = directions[0].count;
        let at = |l: usize| self.at(l, samples.tile(tile, self), kept);
        let size = |b: usize| tile.len * k * self.width(b);
        for (l, node) in self.nodes.iter().enumerate() {
            let (below, above) = scratch.tangents.split_at_mut(l + 1);
            let tangent = |b: usize| (b > 0).then(|| &below[b][..size(b)]);
            let ry = &mut above[0][..size(l + 1)];
            match node {
                Node::Layer { layer, from } => {
                    let (point, rx) = (&point.arranged[l], tangent(*from));
                    layer.forward_tangent(point, &directions[l], &at(l), rx, ry);
                }
                Node::Join { join, from } => join.forward(from.map(tangent), ry),
            }
        }
        let (z, dz) = (&kept.values[depth], &kept.adjoints[depth]);
        let rz = &scratch.tangents[depth][..size(depth)];
        let slot = &self.plan.slot;
        let rdz = &mut scratch.slots[slot[depth]][..size(depth)];
        self.head.tangent(curvature, z, dz, rz, rdz);
        let gauss_newton = curvature != Curvature::Hessian;
        for (l, node) in self.nodes.iter().enumerate().rev() {
            let rdy = std::mem::take(&mut scratch.slots[slot[l + 1]]);
            let above = &rdy[..size(l + 1)];
            if let Node::Layer { layer, from } = node {
                let rx = (*from > 0).then(|| &scratch.tangents[*from][..size(*from)]);
                let gradient = &mut scratch.gradients[l];
                let here = (&point.arranged[l], &at(l));
                layer.gradient_tangent(here, rx, above, gradient, first_tile, gauss_newton);
            }
            for (side, from) in node.from().iter().enumerate() {
                if *from == 0 {
                    continue;
                }
                let first = self.plan.first[l][side];
                let rdx = &mut scratch.slots[slot[*from]][..size(*from)];
                match node {
                    Node::Layer { layer, .. } => {
                        let target = match first {
                            true => &mut *rdx,
                            false => &mut scratch.more[..size(*from)],
                        };
                        let rx = Some(&scratch.tangents[*from][..size(*from)]);
                        let (here, along) = ((&point.arranged[l], &at(l)), &directions[l]);
                        layer.backward_tangent(here, along, rx, above, target, gauss_newton);
                        if !first {
                            add(&scratch.more[..size(*from)], rdx);
                        }
                    }
                    Node::Join { join, .. } => join.backward(side, above, rdx, first),
                }
            }
            scratch.slots[slot[l + 1]] = rdy;
        }
    }
}

impl<'a, T: Scalar> Samples<'a, T> {
    pub(super) fn tile(self, tile: Tile, network: &Network<T>) -> &'a [T] {
        &self.inputs[tile.start * network.inputs..][..tile.len * network.inputs]
    }

    pub(super) fn targets(self, tile: Tile, network: &Network<T>) -> Targets<'a, T> {
        self.targets.rows(tile.start, tile.len, network.head.width)
    }
}

impl<T: Scalar> Kept<T> {
    /// Makes room for what node `l` writes.
    pub(super) fn fit(
        &mut self,
        network: &Network<T>,
        l: usize,
        samples: usize,
        derivatives: bool,
    ) {
        let node = &network.nodes[l];
        self.values.resize_with(network.nodes.len() + 1, Vec::new);
        self.notes.resize_with(network.nodes.len(), Vec::new);
        let notes = node.layer().filter(|_| derivatives);
        let notes = notes.map_or(0, |layer| layer.notes());
        self.notes[l].resize(samples * notes, T::ZERO);
        self.values[l + 1].resize(samples * node.outputs(), T::ZERO);
    }

    /// Without the values that no layer's derivatives need.
    fn thin(mut self, network: &Network<T>) -> Self {
        let depth = network.nodes.len();
        let mut needed = vec![false; depth + 1];
        needed[depth] = true;
        for (l, node) in network.nodes.iter().enumerate() {
            if let Some(layer) = node.layer() {
                needed[node.from()[0]] |= layer.keeps_input();
                needed[l + 1] |= layer.keeps_output();
            }
        }
        for (values, needed) in self.values.iter_mut().zip(needed) {
            if !needed {
                *values = Vec::new();
            }
        }
        // Joins have no derivatives of their own.
        for (l, node) in network.nodes.iter().enumerate() {
            if node.layer().is_none() && l + 1 < depth {
                self.adjoints[l + 1] = Vec::new();
            }
        }
        self
    }

    fn bytes(&self) -> usize {
        let all = self.values.iter().chain(&self.adjoints).chain(&self.notes);
        all.map(|v| v.capacity() * size_of::<T>()).sum()
    }
}

/// A thread's buffers for products.
struct Scratch<T> {
    tangents: Vec<Vec<T>>,
    slots: Vec<Vec<T>>,
    more: Vec<T>,
    gradients: Vec<Vec<T>>,
    /// The primal pass of a tile of which nothing is kept.
    again: Kept<T>,
}
