//! The pass of a training batch through the network, where batch normalisation uses the mean and variance of the
//! whole batch.
//!
//! The nodes are cut before each batch normalisation. Between two cuts, each tile is processed by itself; at a cut,
//! sums are computed over all tiles, in order: in the forward pass for the batch's mean and variance, in the backward
//! pass for their contribution to the derivative. Layers read both in place of the running statistics, so the rest is
//! as in analysis. Values are cached between passes, and buffers between steps.

use std::sync::Arc;

use rayon::prelude::*;

use super::network::{Buffers, CachedTile, Network, Purpose, Samples, TileInputs};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::sparse::SparseTile;
use crate::kernels::tiles::Tile;
use crate::layers::no_variance;
use crate::layers::rules::{BatchStatistics, ChannelMoments, Packed, Write};
use crate::losses::TargetSlice;
use crate::progress;

/// Maximum number of parts of a batch, and bytes of their gradients: each part has its own.
const PARTS: usize = 16;
const GRADIENTS: usize = 256 << 20;

/// Tiles that are processed one after another.
pub(crate) struct Part<T> {
    tiles: Vec<Gathered<T>>,
    /// Sum over the part's samples.
    pub(crate) gradients: Vec<Vec<T>>,
    /// Moments of each tile at the next batch normalisation.
    moments: Vec<Vec<ChannelMoments>>,
    /// Sum of the losses, and number of correct predictions.
    pub(crate) score: (f64, usize),
    buffers: Buffers<T>,
}

/// A tile of samples from anywhere in the data, with either `labels` or `targets`.
#[derive(Default)]
struct Gathered<T> {
    place: Tile,
    inputs: Vec<T>,
    /// The inputs without zeros, if the first layer reads that.
    sparse: Option<Arc<SparseTile<T>>>,
    targets: Vec<T>,
    labels: Vec<u32>,
    cached: CachedTile<T>,
}

impl<T: Scalar> Network<T> {
    fn batch_statistics(&self, l: usize) -> Option<&dyn BatchStatistics<T>> {
        self.nodes.get(l)?.rules()?.batch_statistics()
    }

    /// Stores the losses and gradients of some samples in the parts. Returns the updated running statistics.
    pub(crate) fn training(
        &self,
        point: &[T],
        samples: Samples<T>,
        rows: &[usize],
        parts: &mut Vec<Part<T>>,
    ) -> Result<Vec<T>> {
        let (depth, count) = (self.nodes.len(), rows.len());
        let norms: Vec<usize> = (0..depth)
            .filter(|l| self.batch_statistics(*l).is_some())
            .collect();
        let cuts = [&[0], &norms[..], &[depth]].concat();
        let mut packed = self.pack(0, &[point]);
        let mut running = point[self.num_params..].to_vec();
        self.lay_out(count, parts);
        parts.par_iter_mut().with_max_len(1).for_each(|part| {
            for tile in &mut part.tiles {
                tile.gather(samples, rows, self);
            }
        });

        for cut in cuts.windows(2) {
            let each = |part: &mut Part<T>| self.forward_between(cut, &packed, part);
            parts.par_iter_mut().with_max_len(1).try_for_each(each)?;
            if let Some(norm) = self.batch_statistics(cut[1]) {
                if norm.count(count) < 2 {
                    return Err(no_variance());
                }
                let tiles = parts.iter().flat_map(|part| {
                    let moments = part.moments.iter().map(Vec::as_slice);
                    part.tiles.iter().map(|tile| tile.place.len).zip(moments)
                });
                let batch = norm.merge(&tiles.collect::<Vec<_>>());
                norm.set_forward(&batch, count, &mut packed[cut[1]]);
                norm.update_running(&batch, count, &mut running, self.num_params);
            }
        }
        for cut in cuts.windows(2).rev() {
            let each = |part: &mut Part<T>| self.backward_between(cut, &packed, part);
            parts.par_iter_mut().with_max_len(1).try_for_each(each)?;
            if let Some(norm) = self.batch_statistics(cut[0]) {
                let mut sums = vec![0.0; parts[0].gradients[cut[0]].len()];
                for part in &*parts {
                    for (sum, g) in sums.iter_mut().zip(&part.gradients[cut[0]]) {
                        *sum += g.f64();
                    }
                }
                norm.set_backward(&sums, count, &mut packed[cut[0]]);
            }
        }
        Ok(running)
    }

    /// Splits the batch into tiles, and those into parts.
    fn lay_out(&self, samples: usize, parts: &mut Vec<Part<T>>) {
        let size = self.split(samples).tile;
        let most = GRADIENTS / (self.num_params * size_of::<T>()).max(1);
        let tiles = samples.div_ceil(size);
        let together = tiles.div_ceil(most.clamp(2, PARTS));
        parts.resize_with(tiles.div_ceil(together), || Part {
            tiles: Vec::new(),
            gradients: self.gradient_buffers(),
            moments: Vec::new(),
            score: (0.0, 0),
            buffers: Buffers::default(),
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

    /// Forward pass from one cut to the next, with the moments there.
    fn forward_between(
        &self,
        cut: &[usize],
        packed: &[Packed<T>],
        part: &mut Part<T>,
    ) -> Result<()> {
        part.moments.clear();
        for tile in &mut part.tiles {
            progress::check()?;
            let (x, _, cached) = tile.parts();
            self.forward_from(
                cut[0],
                &packed[cut[0]..cut[1]],
                &x,
                Purpose::Derivatives,
                cached,
            );
            if let Some(norm) = self.batch_statistics(cut[1]) {
                let from = self.nodes[cut[1]].from()[0];
                let value = match from {
                    0 => x.values,
                    _ => &cached.values[from],
                };
                part.moments.push(norm.moments(value));
            }
        }
        Ok(())
    }

    /// Backward pass from one cut to the previous one, with the gradients of the layers between and of the batch
    /// normalisation at its end.
    fn backward_between(
        &self,
        cut: &[usize],
        packed: &[Packed<T>],
        part: &mut Part<T>,
    ) -> Result<()> {
        let depth = self.nodes.len();
        let Part {
            tiles,
            gradients,
            score,
            buffers,
            ..
        } = part;
        if cut[1] == depth {
            *score = (0.0, 0);
        }
        for (i, tile) in tiles.iter_mut().enumerate() {
            progress::check()?;
            let len = tile.place.len;
            let (x, targets, cached) = tile.parts();
            if cut[1] == depth {
                let (loss, correct) = self.loss.score(&cached.values[depth], targets);
                *score = (score.0 + loss, score.1 + correct);
                self.start_backward(len, cached, buffers, |z, dz| {
                    self.loss.gradient(z, targets, dz);
                });
            } else {
                self.backward_from(cut[1], &packed[cut[1]], &x, cached, buffers);
            }
            for l in (cut[0]..cut[1]).rev() {
                if let Some(rules) = self.nodes[l].rules() {
                    let primal = self.primal(l, &packed[l], &x, cached);
                    let write = if i == 0 { Write::Replace } else { Write::Add };
                    rules.gradient(&primal, &mut gradients[l], write);
                }
                if self.batch_statistics(l).is_none() {
                    self.backward_from(l, &packed[l], &x, cached, buffers);
                }
            }
        }
        Ok(())
    }
}

impl<T: Scalar> Gathered<T> {
    /// Gathers the tile's samples, given by indices `rows`.
    fn gather(&mut self, samples: Samples<T>, rows: &[usize], network: &Network<T>) {
        let inputs = network.inputs;
        self.inputs.clear();
        self.targets.clear();
        self.labels.clear();
        for row in &rows[self.place.start..][..self.place.len] {
            self.inputs
                .extend_from_slice(&samples.inputs[row * inputs..][..inputs]);
            match network.loss.targets_of(samples.targets, *row, 1) {
                TargetSlice::Labels(labels) => self.labels.extend_from_slice(labels),
                TargetSlice::Values(values) | TargetSlice::Weights(values) => {
                    self.targets.extend_from_slice(values);
                }
            }
        }
        let row = network.sparse_row();
        self.sparse = row.map(|row| Arc::new(SparseTile::new(&self.inputs, row)));
    }

    /// Inputs, targets and cached values.
    fn parts(&mut self) -> (TileInputs<'_, T>, TargetSlice<'_, T>, &mut CachedTile<T>) {
        let targets = match self.labels.is_empty() {
            true => TargetSlice::Values(&self.targets),
            false => TargetSlice::Labels(&self.labels),
        };
        let inputs = TileInputs {
            samples: self.place.len,
            values: &self.inputs,
            sparse: self.sparse.clone(),
        };
        (inputs, targets, &mut self.cached)
    }
}
