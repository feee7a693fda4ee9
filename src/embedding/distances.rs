//! [`Distances`]: distances between all pairs of points.

use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Points, overflow, read, shape};
use crate::error::{Error, Result, counted};
use crate::kernels::simd::vectorised;
use crate::kernels::symmetric_eigen;
use crate::progress::{self, Progress};

/// Maximum size in bytes of the points held in memory at once.
const BLOCK_BYTES: usize = 512 << 20;
/// Number of points, and of entries of each, whose distances are summed while they are in a core's cache.
const TILE: usize = 8;
const CHUNK: usize = 1024;

/// Squared distances between n points, from which trustworthiness, UMAP and PCA are computed. Each is a sum of squared
/// differences, so close points far from the origin keep their precision.
///
/// ```
/// use loss_landscape::embedding::Distances;
/// use loss_landscape::prelude::*;
///
/// let points = vec![vec![0.0, 0.0], vec![3.0, 4.0], vec![6.0, 8.0]];
/// let distances = Distances::new(&points)?;
/// assert_eq!((distances.count(), distances.between(0, 2)?), (3, 10.0));
/// let line = distances.coordinates()?; // one dimension suffices
/// assert_eq!(line.ncols(), 1);
/// assert!(((line[[0, 0]] - line[[2, 0]]).abs() - 10.0).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    pub(super) squared: Array2<f64>,
}

impl Distances {
    /// Maximum number of points: a table of all pairs beyond it takes too much memory and time.
    pub const MAX_COUNT: usize = 10_000;

    /// Computes the distances between all pairs of `points`. A set larger than memory is read once per half a gigabyte.
    ///
    /// # Errors
    /// There are no points or more than [`Distances::MAX_COUNT`]; points have no entries or unequal lengths; entries or their
    /// squares are not finite; a point cannot be read.
    pub fn new(points: &dyn Points) -> Result<Self> {
        let (n, d) = shape(points)?;
        if n > Self::MAX_COUNT {
            return Err(Error::invalid(format!(
                "the distances between {n} points would take {:.1} GB: use one point in {} \
                 (at most {} points)",
                (n as f64).powi(2) * 8e-9,
                n.div_ceil(Self::MAX_COUNT),
                Self::MAX_COUNT
            )));
        }
        let block_size = (BLOCK_BYTES / (8 * d) / TILE).max(1) * TILE;
        let mut squared = Array2::zeros((n, n));
        let mut progress = Progress::start("distances");
        let mut pairs = 0;
        for start in (0..n).step_by(block_size) {
            let end = (start + block_size).min(n);
            let block = (start..end).map(|i| read(points, i));
            let block = block.collect::<Result<Vec<_>>>()?;
            for first in (start..n).step_by(TILE) {
                progress::check()?;
                let range = first..(first + TILE).min(n);
                let other;
                let columns = if first < end {
                    &block[first - start..range.end - start]
                } else {
                    other = range.map(|j| read(points, j)).collect::<Result<Vec<_>>>()?;
                    &other
                };
                let rows = &block[..block.len().min(first + TILE - start)];
                let tiles: Vec<Vec<f64>> = rows
                    .par_chunks(TILE)
                    .map(|rows| tile(rows, columns))
                    .collect();
                for (i, row) in tiles.concat().chunks(columns.len()).enumerate() {
                    for (j, sum) in row.iter().enumerate() {
                        squared[[start + i, first + j]] = *sum;
                        squared[[first + j, start + i]] = *sum;
                    }
                }
                pairs += rows.len() * columns.len();
                progress.part(pairs, n * (n + TILE) / 2);
            }
        }
        if !squared.sum().is_finite() {
            return Err(overflow());
        }
        Ok(Self { squared })
    }

    /// Number of points n.
    pub fn count(&self) -> usize {
        self.squared.nrows()
    }

    /// Returns the distance between two points.
    ///
    /// # Errors
    /// An index is out of range.
    pub fn between(&self, i: usize, j: usize) -> Result<f64> {
        let squared = self.squared.get((i, j));
        squared.map(|s| s.sqrt()).ok_or_else(|| {
            Error::invalid(format!(
                "points {i} and {j} are out of range: found {}",
                counted(self.count(), "point")
            ))
        })
    }

    /// Returns coordinates of the points in an orthonormal basis of their span around the mean, shape `(n, k)` with k < n: the
    /// direction of largest variance first, and the same distances (Torgerson, 1952). Directions whose spread is below about
    /// 10⁻⁷ of the largest are lost to rounding; k is 0 for equal points.
    ///
    /// # Errors
    /// The eigenvalues do not converge.
    pub fn coordinates(&self) -> Result<Array2<f64>> {
        let directions = self.principal()?;
        Ok(Array2::from_shape_fn(
            (self.count(), directions.len()),
            |(i, j)| directions[j].0.sqrt() * directions[j].1[i],
        ))
    }

    /// Returns the eigenpairs of the Gram matrix of the points around their mean, largest first, without those that are
    /// rounding.
    pub(super) fn principal(&self) -> Result<Vec<(f64, Vec<f64>)>> {
        let n = self.count();
        let mean = |row: ndarray::ArrayView1<f64>| row.sum() / n as f64;
        let means: Vec<f64> = self.squared.rows().into_iter().map(mean).collect();
        let overall = means.iter().sum::<f64>() / n as f64;
        let gram = |i, j| -0.5 * (self.squared[[i, j]] - means[i] - means[j] + overall);
        let (values, vectors) = symmetric_eigen(n, gram)?;
        Ok(resolved(values, vectors))
    }

    /// Returns ‖X − mean‖²_F, computed from the mean of all squared distances.
    pub(super) fn total(&self) -> f64 {
        let rows = self.squared.rows().into_iter().map(|row| row.sum());
        rows.sum::<f64>() / (2 * self.count()) as f64
    }

    /// Returns the indices of all other points, nearest first; ties in order of the index.
    pub(super) fn neighbors(&self, i: usize) -> Result<Vec<usize>> {
        progress::check()?;
        let mut others: Vec<usize> = (0..self.count()).filter(|j| *j != i).collect();
        let row = self.squared.row(i);
        others.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
        Ok(others)
    }
}

/// Returns the pairs whose eigenvalue is above the rounding of 0, largest first.
pub(super) fn resolved(values: Vec<f64>, vectors: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let smallest = values.len() as f64 * f64::EPSILON * values.last().copied().unwrap_or(0.0);
    let pairs = values.into_iter().zip(vectors).rev();
    pairs
        .take_while(|(value, _)| *value > smallest.max(0.0))
        .collect()
}

/// Returns Σ (a − b)² for each pair, row by row.
fn tile(rows: &[Vec<f64>], columns: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; rows.len() * columns.len()];
    add_squares(rows, columns, &mut sums);
    sums
}

vectorised! {
    fn add_squares(rows: &[Vec<f64>], columns: &[Vec<f64>], sums: &mut [f64]) {
        let dim = rows.first().map_or(0, Vec::len);
        for start in (0..dim).step_by(CHUNK) {
            let entries = start..(start + CHUNK).min(dim);
            let pairs = rows.iter().flat_map(|a| columns.iter().map(move |b| (a, b)));
            for ((a, b), sum) in pairs.zip(sums.iter_mut()) {
                let (a, b) = (&a[entries.clone()], &b[entries.clone()]);
                let mut lanes = [0.0; 16];
                let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
                for (a, b) in a16.remainder().iter().zip(b16.remainder()) {
                    *sum += (a - b) * (a - b);
                }
                for (a, b) in a16.zip(b16) {
                    for i in 0..16 {
                        lanes[i] += (a[i] - b[i]) * (a[i] - b[i]);
                    }
                }
                *sum += lanes.iter().sum::<f64>();
            }
        }
    }
}
