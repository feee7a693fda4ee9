//! [`CompressedInputs`]: a dataset's inputs without their zeros, tile by tile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::kernels::Scalar;
use crate::kernels::sparse::SparseTile;
use crate::kernels::tiles::{Split, Tile};

/// Inputs are compressed if at most this share of them is not zero.
///
/// With 784 inputs and 64 to 256 outputs (`f32`, AVX-512), outputs and weight gradient of compressed inputs take as long as dense ones
/// at a density of 0.7. A training step also compresses its batch; with that they take as long at 0.25 for 64 outputs, 0.42 for 128 and
/// 0.5 for 256.
const MAX_DENSITY: f64 = 0.5;
/// Number of samples whose density is measured.
const MEASURED: usize = 256;
/// Minimum number of values of a sample.
const MIN_INPUTS: usize = 64;
/// Maximum number of bytes that are kept for later passes.
const KEPT_BYTES: usize = 1 << 30;

/// Whether most values of these samples are zero, by those of some samples, evenly spaced.
pub(super) fn are_sparse<T: Scalar>(inputs: &[T], count: usize) -> bool {
    let width = inputs.len() / count.max(1);
    if width < MIN_INPUTS {
        return false;
    }
    let step = count.div_ceil(MEASURED);
    let rows = inputs.chunks_exact(width).step_by(step);
    let (mut values, mut present) = (0, 0);
    for row in rows {
        values += width;
        present += row.iter().filter(|x| **x != T::ZERO).count();
    }
    present as f64 <= MAX_DENSITY * values as f64
}

/// The compressed tiles of a dataset, each made by the first pass that reads it.
pub(super) struct CompressedInputs<T> {
    /// Number of values in a row of the first layer's inputs.
    row: usize,
    split: Split,
    tiles: Vec<OnceLock<Arc<SparseTile<T>>>>,
    kept_bytes: AtomicUsize,
}

impl<T: Scalar> CompressedInputs<T> {
    pub(super) fn new(row: usize, samples: usize, split: Split) -> Self {
        Self {
            row,
            split,
            tiles: (0..split.count(samples)).map(|_| OnceLock::new()).collect(),
            kept_bytes: AtomicUsize::new(0),
        }
    }

    /// The tile with these inputs.
    pub(super) fn tile(&self, tile: Tile, inputs: &[T]) -> Arc<SparseTile<T>> {
        let index = self.split.index(tile);
        if let Some(found) = self.tiles[index].get() {
            return found.clone();
        }
        let made = Arc::new(SparseTile::new(inputs, self.row));
        if self.kept_bytes.load(Ordering::Relaxed) <= KEPT_BYTES {
            self.kept_bytes.fetch_add(made.bytes(), Ordering::Relaxed);
            // If another thread has made the same tile meanwhile, that one is kept.
            let _ = self.tiles[index].set(made.clone());
        }
        made
    }
}
