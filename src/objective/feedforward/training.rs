//! Steps of training with batch normalisation, whose mean and variance are those of the whole batch.
//!
//! The nodes are cut before each batch normalisation. Between two cuts every tile goes through by itself; at a cut
//! sums are made over all tiles, in their order: forwards for the batch's mean and variance, backwards for what
//! the derivative gains by them. Layers find both where analysis has the running statistics, so that all else
//! is as there. Everything is kept from one pass to the next, and the buffers from one step to the next.

use rayon::prelude::*;

use super::Scalar;
use super::layer::Arranged;
use super::network::{Kept, Network, Samples};
use super::norm::{BatchNorm, Spread};
use super::tiles::Tile;
use crate::error::Result;
use crate::model::no_variance;
use crate::vector::scale;

/// What a step of training finds.
pub(in super::super) struct Step {
    /// The batch's mean loss.
    pub(in super::super) loss: f64,
    /// How many of its samples were classified right.
    pub(in super::super) right: usize,
    pub(in super::super) gradient: Vec<f64>,
    /// All running statistics afterwards.
    pub(in super::super) statistics: Vec<f64>,
}

/// Parts of a batch at most: each has a gradient of its own.
const PARTS: usize = 16;

/// Tiles that go one after another.
pub(super) struct Part<T> {
    tiles: Vec<(Tile, Kept<T>)>,
    gradients: Vec<Vec<T>>,
    /// Of each tile, at the batch normalisation that comes next.
    spreads: Vec<Vec<Spread>>,
    /// The sum of the losses, and how many samples were classified right.
    score: (f64, usize),
    spare: Vec<Vec<T>>,
    more: Vec<T>,
}

impl<T: Scalar> Network<T> {
    pub(super) fn batch_norm(&self, l: usize) -> Option<&BatchNorm> {
        self.nodes.get(l)?.layer()?.batch_norm()
    }

    /// A step's gradient at a point, in the buffers of the step before.
    pub(super) fn training(
        &self,
        point: &[f64],
        samples: Samples<T>,
        parts: &mut Vec<Part<T>>,
    ) -> Result<Step> {
        let (depth, count) = (self.nodes.len(), samples.count);
        let norms: Vec<usize> = (0..depth)
            .filter(|l| self.batch_norm(*l).is_some())
            .collect();
        let cuts = [&[0], &norms[..], &[depth]].concat();
        let rounded: Vec<T> = point.iter().map(|p| T::of(*p)).collect();
        let mut arranged = self.arrange(0, &[&rounded]);
        let mut moved = point.to_vec();
        self.lay_out(count, parts);

        for cut in cuts.windows(2) {
            let each = |part: &mut Part<T>| self.forward_between(cut, &arranged, samples, part);
            parts.par_iter_mut().for_each(each);
            if let Some(norm) = self.batch_norm(cut[1]) {
                if norm.count(count) < 2 {
                    return Err(no_variance());
                }
                let tiles = parts.iter().flat_map(|part| {
                    let spreads = part.spreads.iter().map(Vec::as_slice);
                    part.tiles.iter().map(|(tile, _)| tile.len).zip(spreads)
                });
                let batch = norm.together(&tiles.collect::<Vec<_>>());
                norm.settle(&batch, count, &mut arranged[cut[1]]);
                norm.move_running(&batch, count, &mut moved);
            }
        }
        for cut in cuts.windows(2).rev() {
            let each = |part: &mut Part<T>| self.backward_between(cut, &arranged, samples, part);
            parts.par_iter_mut().for_each(each);
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

        let mut gradient = [vec![0.0; self.parameters]];
        for part in &*parts {
            self.add_gradients(&part.gradients, &mut gradient);
        }
        let [mut gradient] = gradient;
        scale(&mut gradient, 1.0 / count as f64);
        Ok(Step {
            loss: parts.iter().map(|part| part.score.0).sum::<f64>() / count as f64,
            right: parts.iter().map(|part| part.score.1).sum(),
            gradient,
            statistics: moved.split_off(self.parameters),
        })
    }

    /// The batch in tiles, and those in parts.
    fn lay_out(&self, samples: usize, parts: &mut Vec<Part<T>>) {
        let size = self.split(samples).tile;
        let tiles = (0..samples).step_by(size).map(|start| Tile {
            start,
            len: size.min(samples - start),
        });
        let tiles: Vec<Tile> = tiles.collect();
        let together = tiles.len().div_ceil(PARTS);
        parts.resize_with(tiles.len().div_ceil(together), || Part {
            tiles: Vec::new(),
            gradients: self.gradients(1),
            spreads: Vec::new(),
            score: (0.0, 0),
            spare: Vec::new(),
            more: Vec::new(),
        });
        for (part, tiles) in parts.iter_mut().zip(tiles.chunks(together)) {
            let mut kept = std::mem::take(&mut part.tiles)
                .into_iter()
                .map(|(_, kept)| kept);
            let tiles = tiles.iter();
            part.tiles = tiles
                .map(|tile| (*tile, kept.next().unwrap_or_default()))
                .collect();
        }
    }

    /// Forwards from one cut to the next, and the spreads there.
    fn forward_between(
        &self,
        cut: &[usize],
        arranged: &[Arranged<T>],
        samples: Samples<T>,
        part: &mut Part<T>,
    ) {
        part.spreads.clear();
        for (tile, kept) in &mut part.tiles {
            let x = samples.tile(*tile, self);
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
    fn backward_between(
        &self,
        cut: &[usize],
        arranged: &[Arranged<T>],
        samples: Samples<T>,
        part: &mut Part<T>,
    ) {
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
        for (i, (tile, kept)) in tiles.iter_mut().enumerate() {
            let x = samples.tile(*tile, self);
            kept.adjoints.resize_with(depth + 1, Vec::new);
            if cut[1] == depth {
                let targets = samples.targets(*tile, self);
                let mut dz = spare.pop().unwrap_or_default();
                dz.resize(tile.len * self.width(depth), T::ZERO);
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
