//! Low-dimensional pictures of points in a space of many dimensions, such as the snapshots of a
//! training or the weights of many models, and how faithful the pictures are.
//!
//! | picture | what it keeps |
//! | --- | --- |
//! | [`Pca`] | the directions of largest variance; linear, so that distances shrink and never grow |
//! | [`Umap`] | who is near whom; distances between groups mean little |
//! | [`Autoencoder`] | what a small network needs to give the points back |
//!
//! [`Distances`] measures any of them, [`Comparison`] makes and measures all three.
//!
//! Points are read one by one through [`Points`]: of a set that is larger than memory only a block
//! is held at a time, and tables of a number for each pair of points.

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

use crate::error::{Error, Result, check_finite};
use crate::progress::Progress;
use crate::train::Trajectory;

/// n points of d entries each.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // The corners of a square, each made when it is asked for.
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
    /// n
    fn count(&self) -> usize;

    /// d
    fn dim(&self) -> usize;

    /// The point with index `i` < n.
    ///
    /// # Errors
    /// An index that is out of range; what reading runs into.
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
    Error::invalid(format!("there is no point {i} among {count}"))
}

/// The numbers of points and of their entries, neither of them 0.
fn shape(points: &(impl Points + ?Sized)) -> Result<(usize, usize)> {
    match (points.count(), points.dim()) {
        (0, _) => Err(Error::invalid(
            "there are no points: give at least one to embed",
        )),
        (n, 0) => Err(Error::invalid(format!(
            "the {n} points have no entries: give each at least one"
        ))),
        shape => Ok(shape),
    }
}

fn check_components(k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::invalid(
            "an embedding in 0 dimensions shows nothing: ask for at least 1 component",
        ));
    }
    Ok(())
}

fn overflow() -> Error {
    Error::NotFinite("the squares of the points' entries overflow: scale the points down".into())
}

/// One point, looked at.
fn read(points: &(impl Points + ?Sized), i: usize) -> Result<Vec<f64>> {
    let point = points.point(i)?;
    if point.len() != points.dim() {
        return Err(Error::invalid(format!(
            "point {i} has {} entries where {} are expected: all points must have the same number",
            point.len(),
            points.dim()
        )));
    }
    check_finite(&point, &format!("point {i}"))?;
    Ok(point)
}

/// Calls `see` with each point in order.
fn for_each(
    points: &(impl Points + ?Sized),
    task: &'static str,
    mut see: impl FnMut(usize, Vec<f64>),
) -> Result<()> {
    let mut progress = Progress::start(task);
    for i in 0..points.count() {
        see(i, read(points, i)?);
        progress.part(i + 1, points.count());
    }
    Ok(())
}

/// The mean, by way of the differences from the first point, so that equal points have exactly it.
fn mean(points: &(impl Points + ?Sized)) -> Result<Vec<f64>> {
    let (n, _) = shape(points)?;
    let first = read(points, 0)?;
    let mut mean = first.clone();
    for_each(points, "mean of the points", |_, point| {
        let entries = mean.iter_mut().zip(point.iter().zip(&first));
        entries.for_each(|(mean, (x, first))| *mean += (x - first) / n as f64);
    })?;
    Ok(mean)
}

/// The same distances in fewer dimensions: coordinates in the span of the points, where they have
/// more entries than there are points, else the points themselves.
fn reduced(points: &(impl Points + ?Sized)) -> Result<Array2<f64>> {
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
