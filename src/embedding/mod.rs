//! Low-dimensional embeddings of points in many dimensions, such as the snapshots of a training or the weights of many
//! models, and measures of how faithful they are.
//!
//! | method | what it preserves |
//! | --- | --- |
//! | [`Pca`] | directions of largest variance; linear, so distances never grow |
//! | [`Umap`] | neighbourhoods; distances between clusters mean little |
//! | [`Autoencoder`] | what a small network needs to reconstruct the points |
//!
//! [`Distances`] measures any embedding. [`Comparison`] computes and measures all three.
//!
//! Points are read one at a time through [`Points`]. Sets larger than memory are read in blocks; only tables with one number
//! per pair of points are held at once.

mod autoencoder;
mod compare;
mod distances;
mod pca;
mod quality;
#[cfg(feature = "tables")]
mod table;
mod umap;

pub use autoencoder::{Autoencoder, Encoded};
pub use compare::{ComparedEmbedding, Comparison};
pub use distances::Distances;
pub use pca::Pca;
pub use umap::Umap;

use ndarray::{Array2, ArrayView1};

use crate::error::{Error, Result, check_finite, counted};
use crate::progress::{self, Progress};
use crate::train::Trajectory;

/// A set of n points with d entries each.
///
/// ```
/// use loss_landscape::embedding::{Distances, Points};
/// use loss_landscape::prelude::*;
///
/// // The corners of a square, computed on demand.
/// struct Corners;
///
/// impl Points for Corners {
///     fn count(&self) -> usize {
///         4
///     }
///
///     fn dim(&self) -> usize {
///         2
///     }
///
///     fn point(&self, i: usize) -> Result<Vec<f64>, Error> {
///         Ok(vec![(i % 2) as f64, (i / 2) as f64])
///     }
/// }
///
/// assert_eq!(Distances::new(&Corners)?.between(0, 3)?, 2f64.sqrt());
/// # Ok::<(), Error>(())
/// ```
pub trait Points {
    /// Number of points n.
    fn count(&self) -> usize;

    /// Number of entries d per point.
    fn dim(&self) -> usize;

    /// Returns the point with index `i` < n, shape `(d,)`.
    ///
    /// # Errors
    /// `i` is out of range, or the point cannot be read.
    fn point(&self, i: usize) -> Result<Vec<f64>>;
}

/// Each vector is a point.
impl Points for Vec<Vec<f64>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn dim(&self) -> usize {
        self.first().map_or(0, Vec::len)
    }

    fn point(&self, i: usize) -> Result<Vec<f64>> {
        self.get(i)
            .cloned()
            .ok_or_else(|| out_of_range(i, self.len()))
    }
}

/// Each row is a point.
impl Points for Array2<f64> {
    fn count(&self) -> usize {
        self.nrows()
    }

    fn dim(&self) -> usize {
        self.ncols()
    }

    fn point(&self, i: usize) -> Result<Vec<f64>> {
        if i >= self.nrows() {
            return Err(out_of_range(i, self.nrows()));
        }
        Ok(self.row(i).to_vec())
    }
}

/// Each snapshot is a point.
impl Points for Trajectory {
    fn count(&self) -> usize {
        self.len()
    }

    fn dim(&self) -> usize {
        Trajectory::dim(self)
    }

    fn point(&self, i: usize) -> Result<Vec<f64>> {
        self.snapshot(i)
    }
}

fn out_of_range(i: usize, count: usize) -> Error {
    Error::invalid(format!(
        "point {i} is out of range: found {}",
        counted(count, "point")
    ))
}

/// Returns the number of points and of their entries; 0 is an error.
fn shape(points: &dyn Points) -> Result<(usize, usize)> {
    match (points.count(), points.dim()) {
        (0, _) => Err(Error::invalid(
            "there are no points: give at least one to embed",
        )),
        (n, 0) => Err(Error::invalid(format!(
            "{} without entries: give each at least one",
            counted(n, "point")
        ))),
        shape => Ok(shape),
    }
}

fn check_components(k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::invalid(
            "an embedding needs at least 1 component, found 0",
        ));
    }
    Ok(())
}

fn overflow() -> Error {
    Error::NotFinite("the squares of the points' entries overflow: scale the points down".into())
}

/// Reads and checks one point.
fn read(points: &dyn Points, i: usize) -> Result<Vec<f64>> {
    progress::check()?;
    let point = points.point(i)?;
    if point.len() != points.dim() {
        return Err(Error::invalid(format!(
            "point {i} has {}, expected {}: all points must have the same number",
            counted(point.len(), "entry"),
            points.dim()
        )));
    }
    check_finite(&point, &format!("point {i}"))?;
    Ok(point)
}

/// Calls `visit` with each point in order.
fn for_each(
    points: &dyn Points,
    task: &'static str,
    mut visit: impl FnMut(usize, Vec<f64>),
) -> Result<()> {
    let mut progress = Progress::start(task);
    for i in 0..points.count() {
        visit(i, read(points, i)?);
        progress.part(i + 1, points.count());
    }
    Ok(())
}

/// Returns the mean, computed from the differences to the first point, so that equal points have exactly this mean.
fn mean(points: &dyn Points) -> Result<Vec<f64>> {
    let (n, _) = shape(points)?;
    let first = read(points, 0)?;
    let mut mean = first.clone();
    for_each(points, "mean of the points", |_, point| {
        let entries = mean.iter_mut().zip(point.iter().zip(&first));
        entries.for_each(|(mean, (x, first))| *mean += (x - first) / n as f64);
    })?;
    Ok(mean)
}

/// Returns points with the same distances in fewer dimensions: coordinates in their span if they have more entries than
/// there are points, otherwise the points themselves.
fn reduced(points: &dyn Points) -> Result<Array2<f64>> {
    let (n, d) = shape(points)?;
    if d > n {
        return Distances::new(points)?.coordinates();
    }
    let mut rows = Array2::zeros((n, d));
    for_each(points, "reading the points", |i, point| {
        rows.row_mut(i).assign(&ArrayView1::from(&point));
    })?;
    Ok(rows)
}
