//! A batch of training, through the network, where batch normalisation has the mean and the variance of the whole batch.
//!
//! The nodes are cut before each batch normalisation. Between two cuts every tile goes through by itself; at a cut
//! sums are made over all tiles, in their order: forwards for the batch's mean and variance, backwards for what
//! the derivative gains by them. Layers find both where analysis has the running statistics, so that all else
//! is as there. Everything is kept from one pass to the next, and the buffers from one step to the next.

use rayon::prelude::*;

use super::Scalar;
use super::head::Targets;
use super::layer::Arranged;
use super::network::{Kept, Network, Samples};
use super::norm::{BatchNorm, Spread};
use super::tiles::Tile;
use crate::error::Result;
use crate::model::no_variance;

/// Parts of a batch at most, and bytes of their gradients: each has one of its own.
const PARTS: usize = 16;
const GRADIENTS: usize = 256 << 20;

/// Tiles that go one after another.
pub(super) struct Part<T> {
    tiles: Vec<Gathered<T>>,
    /// The sum over the part's samples.
    pub(super) gradients: Vec<Vec<T>>,
    /// Of each tile, at the batch normalisation that comes next.
    spreads: Vec<Vec<Spread>>,
    /// The sum of the losses, and how many samples were classified right.
    pub(super) score: (f64, usize),
    spare: Vec<Vec<T>>,
    more: Vec<T>,
}

/// A tile of samples that lie anywhere in the data: either `labels` or `targets` are theirs.
#[derive(Default)]
struct Gathered<T> {
    place: Tile,
    inputs: Vec<T>,
    targets: Vec<T>,
    labels: Vec<u32>,
    kept: Kept<T>,
}

impl<T: Scalar> Network<T> {
    pub(super) fn batch_norm(&self, l: usize) -> Option<&BatchNorm> {
        self.nodes.get(l)?.layer()?.batch_norm()
    }

    /// Leaves the losses of some samples and their gradients in the parts. Answers with the running statistics that the
    /// batch moves those of the point to.
    pub(super) fn training(
        &self,
        point: &[T],
        samples: Samples<T>,
        rows: &[usize],
        parts: &mut Vec<Part<T>>,
    ) -> Result<Vec<T>> {
        let (depth, count) = (self.nodes.len(), rows.len());
        let norms: Vec<usize> = (0..depth)
            .filter(|l| self.batch_norm(*l).is_some())
            .collect();
        let cuts = [&[0], &norms[..], &[depth]].concat();
        let mut arranged = self.arrange(0, &[point]);
        let mut running = point[self.parameters..].to_vec();
        self.lay_out(count, parts);
        parts.par_iter_mut().with_max_len(1).for_each(|part| {
            for tile in &mut part.tiles {
                tile.gather(samples, rows, self);
            }
        });

        for cut in cuts.windows(2) {
            let each = |part: &mut Part<T>| self.forward_between(cut, &arranged, part);
            parts.par_iter_mut().with_max_len(1).for_each(each);
            if let Some(norm) = self.batch_norm(cut[1]) {
                if norm.count(count) < 2 {
                    return Err(no_variance());
                }
                let tiles = parts.iter().flat_map(|part| {
                    let spreads = part.spreads.iter().map(Vec::as_slice);
                    part.tiles.iter().map(|tile| tile.place.len).zip(spreads)
                });
                let batch = norm.together(&tiles.collect::<Vec<_>>());
                norm.settle(&batch, count, &mut arranged[cut[1]]);
                norm.move_running(&batch, count, (&mut running, self.parameters));
            }
        }
        for cut in cuts.windows(2).rev() {
            let each = |part: &mut Part<T>| self.backward_between(cut, &arranged, part);
            parts.par_iter_mut().with_max_len(1).for_each(each);
            if let Some(norm) = self.batch_norm(cut[0]) {
                let mut sums = vec![0.0; parts[0].gradients[cut[0]].len()];
                for part in &*parts {
                    for (sum, g) in sums.iter_mut().zip(&part.gradients[cut[0]]) {
                        *sum += g.f64();
                    }
                }
                norm.settle_backward(&sums, count, &mut arranged[cut[0]]);
            }
        }
        Ok(running)
    }

    /// The batch in tiles, and those in parts.
    fn lay_out(&self, samples: usize, parts: &mut Vec<Part<T>>) {
        let size = self.split(samples).tile;
        let most = GRADIENTS / (self.parameters * size_of::<T>()).max(1);
        let tiles = samples.div_ceil(size);
        let together = tiles.div_ceil(most.clamp(2, PARTS));
        parts.resize_with(tiles.div_ceil(together), || Part {
            tiles: Vec::new(),
            gradients: self.gradients(1),
            spreads: Vec::new(),
            score: (0.0, 0),
            spare: Vec::new(),
            more: Vec::new(),
        });
        for (i, part) in parts.iter_mut().enumerate() {
            let first = i * together;
            let own = together.min(tiles - first);
            part.tiles.resize_with(own, Gathered::default);
            for (tile, start) in part.tiles.iter_mut().zip((first * size..).step_by(size)) {
                let len = size.min(samples - start);
                tile.place = Tile { start, len };
            }
        }
    }

    /// Forwards from one cut to the next, and the spreads there.
    fn forward_between(&self, cut: &[usize], arranged: &[Arranged<T>], part: &mut Part<T>) {
        part.spreads.clear();
        for Gathered { inputs, kept, .. } in &mut part.tiles {
            let x = &inputs[..];
            self.forward_above(cut[0], &arranged[cut[0]..cut[1]], x, true, kept);
            if let Some(norm) = self.batch_norm(cut[1]) {
                let from = self.nodes[cut[1]].from()[0];
                let value = if from == 0 { x } else { &kept.values[from] };
                part.spreads.push(norm.spread(value));
            }
        }
    }

    /// Backwards from one cut to the one before, with the gradients of the layers between and of the batch
    /// normalisation that the way ends at.
    fn backward_between(&self, cut: &[usize], arranged: &[Arranged<T>], part: &mut Part<T>) {
        let depth = self.nodes.len();
        let Part {
            tiles,
            gradients,
            score,
            spare,
            more,
            ..
        } = part;
        if cut[1] == depth {
            *score = (0.0, 0);
        }
        for (i, tile) in tiles.iter_mut().enumerate() {
            let len = tile.place.len;
            let (x, targets, kept) = tile.parts();
            kept.adjoints.resize_with(depth + 1, Vec::new);
            if cut[1] == depth {
                let mut dz = spare.pop().unwrap_or_default();
                dz.resize(len * self.width(depth), T::ZERO);
                let (loss, right) = self.head.score(&kept.values[depth], targets);
                *score = (score.0 + loss, score.1 + right);
                self.head.gradient(&kept.values[depth], targets, &mut dz);
                kept.adjoints[depth] = dz;
            } else {
                self.backward_from(cut[1], arranged, x, kept, (spare, more));
            }
            for l in (cut[0]..cut[1]).rev() {
                if let Some(layer) = self.nodes[l].layer() {
                    let at = self.at(l, x, kept);
                    layer.gradient(&arranged[l], &at, &mut gradients[l], i == 0);
                }
                if self.batch_norm(l).is_none() {
                    self.backward_from(l, arranged, x, kept, (spare, more));
                }
            }
        }
    }

    /// The backward pass of one node, in buffers that are taken where they are free and given back.
    fn backward_from(
        &self,
        l: usize,
        arranged: &[Arranged<T>],
        x: &[T],
        kept: &mut Kept<T>,
        (spare, more): (&mut Vec<Vec<T>>, &mut Vec<T>),
    ) {
        let samples = x.len() / self.inputs;
        for (side, from) in self.nodes[l].from().iter().enumerate() {
            if *from > 0 && self.plan.first[l][side] {
                let mut dx = spare.pop().unwrap_or_default();
                dx.resize(samples * self.width(*from), T::ZERO);
                kept.adjoints[*from] = dx;
            }
        }
        self.backward_of(l, &arranged[l], x, kept, more);
        spare.push(std::mem::take(&mut kept.adjoints[l + 1]));
    }
}

impl<T: Scalar> Gathered<T> {
    /// Brings the tile's samples together, which are at some of `rows`.
    fn gather(&mut self, samples: Samples<T>, rows: &[usize], network: &Network<T>) {
        let (inputs, width) = (network.inputs, network.head.width);
        self.inputs.clear();
        self.targets.clear();
        self.labels.clear();
        for row in &rows[self.place.start..][..self.place.len] {
            self.inputs
                .extend_from_slice(&samples.inputs[row * inputs..][..inputs]);
            match samples.targets.rows(*row, 1, width) {
                Targets::Labels(labels) => self.labels.extend_from_slice(labels),
                Targets::Values(values) => self.targets.extend_from_slice(values),
            }
        }
    }

    /// Its inputs, its targets, and what is kept of it.
    fn parts(&mut self) -> (&[T], Targets<'_, T>, &mut Kept<T>) {
        let targets = match self.labels.is_empty() {
            true => Targets::Values(&self.targets),
            false => Targets::Labels(&self.labels),
        };
        (&self.inputs, targets, &mut self.kept)
    }
}
