//! Products of directions with curvature matrices, by forward-over-reverse differentiation.
//!
//! A direction that does not change the parameters of the first layers has no tangents there, and gradients that are
//! not wanted are not computed: a product with a diagonal block begins and ends at the block's first layer.

use std::ops::Range;

use super::network::{CachedPoint, CachedTile, Network, Samples, fit};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::elementwise::add;
use crate::kernels::tiles::{Tile, over_tiles};
use crate::layers::graph::Node;
use crate::layers::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use crate::losses::Curvature;
use crate::pool::Lent;
use crate::recycled::zeros;
use crate::vector::{restrict, scale};

/// Bytes of one boundary's tangents that fit into a core's cache beside everything else.
const CACHE_BYTES: usize = 256 << 10;

/// Directions that go through the network together, and which parts of the passes they need.
pub(super) struct Pass<T> {
    directions: Vec<Packed<T>>,
    mode: Mode,
    curvature: Curvature,
    /// For each boundary, whether its values change along a direction.
    pub(super) has_tangent: Vec<bool>,
    /// For each node, whether its gradient is wanted.
    needs_gradient: Vec<bool>,
    /// For each boundary, whether a wanted gradient needs the derivative with respect to it.
    needs_derivative: Vec<bool>,
}

impl<T> Pass<T> {
    /// Number of directions.
    fn count(&self) -> usize {
        self.directions[0].count
    }
}

/// A thread's buffers.
pub(super) struct Scratch<T> {
    /// One buffer per boundary.
    tangents: Vec<Vec<T>>,
    slots: Vec<Vec<T>>,
    more: Vec<T>,
    /// Gradient buffers of each pass.
    gradients: Vec<Vec<Vec<T>>>,
    /// The passes of a tile that is not cached.
    tile: CachedTile<T>,
}

impl<T: Scalar> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            tangents: Vec::new(),
            slots: Vec::new(),
            more: Vec::new(),
            gradients: Vec::new(),
            tile: CachedTile::default(),
        }
    }
}

impl<T: Scalar> Network<T> {
    /// The products of `directions` with a curvature matrix at the point. With `block`, directions are zero outside of these
    /// ranges of θ, and products have only the entries in them.
    ///
    /// As many directions are processed together as tangents fit into a core's cache, but at least two. They share the
    /// forward and backward pass of a tile. Their tangents go through the layers together, or one after another if a layer
    /// multiplies each direction separately.
    pub(super) fn products(
        &self,
        point: &CachedPoint<T>,
        samples: Samples<T>,
        directions: &[&[T]],
        curvature: Curvature,
        block: Option<&[Range<usize>]>,
    ) -> Result<Vec<Vec<f64>>> {
        let row = self.widest() * self.split(samples.count).tile * size_of::<T>();
        let together = (CACHE_BYTES / row).max(2);
        let rules = || self.nodes.iter().filter_map(Node::rules);
        let lanes = match rules().any(Rules::multiplies_directions_apart) {
            true => 1,
            false => together,
        };
        let mut products = Vec::with_capacity(directions.len());
        for chunk in directions.chunks(together) {
            let passes = chunk.chunks(lanes);
            let passes: Vec<_> = passes.map(|v| self.pass(v, curvature, block)).collect();
            products.extend(self.products_together(point, samples, &passes, block)?);
        }
        Ok(products)
    }

    pub(super) fn pass(
        &self,
        directions: &[&[T]],
        curvature: Curvature,
        block: Option<&[Range<usize>]>,
    ) -> Pass<T> {
        let directions = self.pack_directions(directions, block);
        let wanted = |range: &Range<usize>| match block {
            None => true,
            Some(block) => block
                .iter()
                .any(|b| b.start < range.end && range.start < b.end),
        };
        let needs_gradient = self.nodes.iter().map(|node| {
            let ranges = node
                .rules()
                .map_or_else(Vec::new, |rules| rules.param_ranges());
            ranges.iter().any(wanted)
        });
        let needs_gradient: Vec<bool> = needs_gradient.collect();
        let (mut has_tangent, mut needs_derivative) = (vec![false], vec![false]);
        for (l, node) in self.nodes.iter().enumerate() {
            let any = |of: &[bool]| node.from().iter().any(|from| of[*from]);
            let (below, needed_below) = (any(&has_tangent), any(&needs_derivative));
            has_tangent.push(below || !directions[l].is_zero);
            needs_derivative.push(needed_below || needs_gradient[l]);
        }
        Pass {
            directions,
            mode: match curvature {
                Curvature::Hessian => Mode::Hessian,
                _ => Mode::GaussNewton,
            },
            curvature,
            has_tangent,
            needs_gradient,
            needs_derivative,
        }
    }

    fn products_together(
        &self,
        point: &CachedPoint<T>,
        samples: Samples<T>,
        passes: &[Pass<T>],
        block: Option<&[Range<usize>]>,
    ) -> Result<Vec<Vec<f64>>> {
        let depth = self.nodes.len();
        let results = |pass: &Pass<T>| -> Vec<Vec<f64>> {
            (0..pass.count()).map(|_| zeros(self.num_params)).collect()
        };
        let mut products: Vec<_> = passes.iter().map(results).collect();
        let split = self.split(samples.count);
        let lanes = passes.iter().map(Pass::count).max().unwrap_or(0);
        let (rows, widest) = (split.tile * lanes, self.widest());
        let tangent = |b: usize| match passes.iter().any(|pass| pass.has_tangent[b]) {
            true => rows * self.width(b),
            false => 0,
        };
        let scratch = || {
            let mut lent = self.scratch.lend();
            let scratch = &mut *lent;
            fit(&mut scratch.tangents, (0..=depth).map(tangent));
            fit(&mut scratch.slots, vec![rows * widest; self.plan.slots]);
            scratch.more.resize(rows * widest, T::ZERO);
            scratch.gradients.resize(passes.len(), Vec::new());
            for (pass, gradients) in passes.iter().zip(&mut scratch.gradients) {
                let needed = |l| pass.needs_gradient[l];
                fit(gradients, self.gradient_lengths(pass.count(), needed));
            }
            lent
        };
        let windows = products.iter_mut().map(|v| self.windows(v).into_iter());
        let mut windows: Vec<_> = windows.collect();
        let count = windows.first().map_or(0, ExactSizeIterator::len);
        let finish = (0..count).map(|_| {
            // The same window for each pass.
            let window = windows.iter_mut().filter_map(Iterator::next);
            let mut window: Vec<_> = window.collect();
            move |scratch: &mut Lent<Scratch<T>>| {
                let results = scratch.gradients.iter().zip(&mut window);
                for (pass, (gradients, window)) in passes.iter().zip(results) {
                    if pass.has_tangent[depth] {
                        self.add_gradients(gradients, window);
                    }
                }
            }
        });
        let finish: Vec<_> = finish.collect();
        drop(windows);
        over_tiles(
            samples.count,
            split,
            scratch,
            |i, tile, scratch| {
                let scratch = &mut **scratch;
                let write = if i == 0 { Write::Replace } else { Write::Add };
                let mut first = std::mem::take(&mut scratch.tile);
                let cached = match &point.groups[tile.start / split.group][i] {
                    Some(cached) => cached,
                    None => {
                        self.first_passes(&point.packed, samples, tile, &mut first);
                        &first
                    }
                };
                let mut gradients = std::mem::take(&mut scratch.gradients);
                for (pass, gradients) in passes.iter().zip(&mut gradients) {
                    if pass.has_tangent[depth] {
                        let tile = (samples, tile, cached);
                        self.tile_products(pass, point, tile, scratch, (gradients, write));
                    }
                }
                (scratch.tile, scratch.gradients) = (first, gradients);
                Ok(())
            },
            finish,
        )?;
        let products = products.into_iter().flatten();
        let products = products.map(|mut product| {
            self.order(&mut product);
            let mut product = match block {
                None => product,
                Some(ranges) => restrict(&product, ranges),
            };
            scale(&mut product, 1.0 / samples.count as f64);
            product
        });
        Ok(products.collect())
    }

    /// Propagates the tangents of a tile forwards. `primal` returns the values that a layer reads.
    pub(super) fn forward_tangents<'a>(
        &self,
        pass: &Pass<T>,
        samples: usize,
        primal: impl Fn(usize) -> Primal<'a, T>,
        tangents: &mut [Vec<T>],
    ) {
        let size = |b: usize| samples * pass.count() * self.width(b);
        for (l, node) in self.nodes.iter().enumerate() {
            if !pass.has_tangent[l + 1] {
                continue;
            }
            let (below, above) = tangents.split_at_mut(l + 1);
            let rx = |b: usize| pass.has_tangent[b].then(|| &below[b][..size(b)]);
            let ry = &mut above[0][..size(l + 1)];
            match node {
                Node::Layer { rules, from } => {
                    let tangent = Tangent {
                        directions: &pass.directions[l],
                        rx: rx(*from),
                        rdy: &[],
                    };
                    rules.forward_tangent(&primal(l), &tangent, ry);
                }
                Node::Join { join, from } => {
                    let sides: Vec<_> = from.iter().map(|from| rx(*from)).collect();
                    join.forward(&sides, ry);
                }
            }
        }
    }

    fn tile_products(
        &self,
        pass: &Pass<T>,
        point: &CachedPoint<T>,
        (samples, tile, cached): (Samples<T>, Tile, &CachedTile<T>),
        scratch: &mut Scratch<T>,
        (gradients, write): (&mut [Vec<T>], Write),
    ) {
        let depth = self.nodes.len();
        let (x, targets) = (samples.tile(tile, self), samples.targets(tile, self));
        let k = pass.count();
        let primal = |l: usize| self.primal(l, &point.packed[l], &x, cached);
        let size = |b: usize| tile.len * k * self.width(b);
        self.forward_tangents(pass, tile.len, primal, &mut scratch.tangents);
        let outputs = (&cached.values[depth][..], &cached.adjoints[depth][..]);
        let rz = &scratch.tangents[depth][..size(depth)];
        let slot = &self.plan.slot;
        let rdz = &mut scratch.slots[slot[depth]][..size(depth)];
        self.loss.tangent(pass.curvature, outputs, targets, rz, rdz);
        for (l, node) in self.nodes.iter().enumerate().rev() {
            if !pass.needs_derivative[l + 1] {
                continue;
            }
            let rdy = std::mem::take(&mut scratch.slots[slot[l + 1]]);
            let tangents = &scratch.tangents;
            let from = node.from()[0];
            let tangent = Tangent {
                directions: &pass.directions[l],
                rx: pass.has_tangent[from].then(|| &tangents[from][..size(from)]),
                rdy: &rdy[..size(l + 1)],
            };
            if let Node::Layer { rules, .. } = node
                && pass.needs_gradient[l]
            {
                rules.gradient_tangent(&primal(l), &tangent, &mut gradients[l], write, pass.mode);
            }
            for (side, from) in node.from().iter().enumerate() {
                if !pass.needs_derivative[*from] {
                    continue;
                }
                let first = self.plan.first[l][side];
                let rdx = &mut scratch.slots[slot[*from]][..size(*from)];
                match node {
                    Node::Layer { rules, .. } if first => {
                        rules.backward_tangent(&primal(l), &tangent, rdx, pass.mode);
                    }
                    Node::Layer { rules, .. } => {
                        let more = &mut scratch.more[..size(*from)];
                        rules.backward_tangent(&primal(l), &tangent, more, pass.mode);
                        add(more, rdx);
                    }
                    Node::Join { join, .. } => {
                        join.backward(side, tangent.rdy, rdx, first);
                    }
                }
            }
            scratch.slots[slot[l + 1]] = rdy;
        }
    }
}
