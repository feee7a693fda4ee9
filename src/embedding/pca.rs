//! [`Pca`]: principal components.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, Par, Spec};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::distances::resolved;
use super::{Distances, Points, check_components, for_each, mean, overflow, shape};
use crate::error::{Error, Result, check_finite};
use crate::spectral::symmetric_eigen;
use crate::vector::{axpy, dot, minus, norm, scale};

/// The directions in which n points x differ most (Pearson, 1901), the first first.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // On the line through (0, 0) and (3, 4), at the distances 0, 5, 10.
/// let points = vec![vec![0.0, 0.0], vec![3.0, 4.0], vec![6.0, 8.0]];
/// let pca = Pca::fit(&points, 2)?; // there is no second component
/// assert!((pca.components[0][0] - 0.6).abs() < 1e-12 && pca.components.len() == 1);
/// assert!((pca.explained_variance[0] - 25.0).abs() < 1e-9);
/// assert!((pca.project(&[9.0, 12.0])?[0] - 10.0).abs() < 1e-9);
/// assert!((pca.reconstruct(&[10.0])?[1] - 12.0).abs() < 1e-9);
/// assert!(pca.reconstruction_error < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pca {
    /// The mean of the points, d entries.
    pub mean: Vec<f64>,
    /// Orthonormal directions of d entries; the largest entry of each is positive.
    pub components: Vec<Vec<f64>>,
    /// The variance along each: Σ cᵢ² / (n − 1) over the points' coordinates cᵢ.
    pub explained_variance: Vec<f64>,
    /// The share of each in the total variance.
    pub explained_ratio: Vec<f64>,
    /// The variance of all entries together: Σ ‖xᵢ − mean‖² / (n − 1), for one point 0.
    pub total_variance: f64,
    /// The points' coordinates along the components, n rows.
    pub coordinates: Array2<f64>,
    /// ‖X − X̂‖_F / ‖X − mean‖_F, where X̂ are the points as far as these components reach; 0 where
    /// all points are the same.
    pub reconstruction_error: f64,
}

impl Pca {
    /// The first `k` components of `points`, or all there are if those are fewer: none for points
    /// that are all the same, and n points span at most n − 1.
    ///
    /// Their span comes from eigenvectors of the points' n × n Gram matrix or of the d × d covariance,
    /// whichever is smaller, which know a direction of spread σ to about 10⁻¹⁶ (σ₁/σ)² for the
    /// largest spread σ₁; those below some 10⁻⁷ σ₁ are left out. Within the span they are singular
    /// vectors of the points' coordinates, right to rounding.
    ///
    /// # Errors
    /// `k` = 0; no points, points without entries or of unequal length; numbers that are not finite
    /// or whose squares are not; more than [`Distances::MAX_COUNT`] points with more entries than
    /// that; those of reading.
    pub fn fit(points: &(impl Points + ?Sized), k: usize) -> Result<Self> {
        check_components(k)?;
        let (n, d) = shape(points)?;
        let mean = mean(points)?;
        let basis = if d > n.min(Distances::MAX_COUNT) {
            by_gram(points, &mean, k)?
        } else {
            by_covariance(points, &mean, k)?
        };
        let basis = orthonormalized(basis);

        let mut scores = Mat::zeros(n, basis.len());
        let (mut total, mut left) = (0.0, 0.0);
        for_each(points, "projection", |i, point| {
            let mut rest = minus(&point, &mean);
            total += dot(&rest, &rest);
            for (j, direction) in basis.iter().enumerate() {
                scores[(i, j)] = dot(direction, &rest);
                axpy(-scores[(i, j)], direction, &mut rest);
            }
            left += dot(&rest, &rest);
        })?;
        if !total.is_finite() {
            return Err(overflow());
        }
        let (spreads, turn) = singular(&scores)?;

        let degrees = (n - 1).max(1) as f64;
        let smallest = n.max(d) as f64 * f64::EPSILON * spreads.first().copied().unwrap_or(0.0);
        let resolved = spreads.iter().filter(|s| **s > smallest).count();
        let mut components = Vec::with_capacity(resolved);
        let mut coordinates = Array2::zeros((n, resolved));
        for j in 0..resolved {
            let mut component = vec![0.0; d];
            for (l, direction) in basis.iter().enumerate() {
                axpy(turn[(l, j)], direction, &mut component);
            }
            let largest = component
                .iter()
                .fold(0.0, |m: f64, v| if v.abs() > m.abs() { *v } else { m });
            let sign = 1f64.copysign(largest);
            scale(&mut component, sign);
            components.push(component);
            for i in 0..n {
                let terms = (0..basis.len()).map(|l| scores[(i, l)] * turn[(l, j)]);
                coordinates[[i, j]] = sign * terms.sum::<f64>();
            }
        }
        let explained_variance: Vec<f64> = spreads[..resolved]
            .iter()
            .map(|s| s * s / degrees)
            .collect();
        let total_variance = total / degrees;
        Ok(Self {
            mean,
            components,
            explained_ratio: explained_variance
                .iter()
                .map(|v| v / total_variance)
                .collect(),
            explained_variance,
            total_variance,
            coordinates,
            reconstruction_error: if total > 0.0 {
                (left / total).sqrt()
            } else {
                0.0
            },
        })
    }

    /// The coordinates of `point`.
    ///
    /// # Errors
    /// Another number of entries than d, entries that are not finite.
    pub fn project(&self, point: &[f64]) -> Result<Vec<f64>> {
        check(point, self.mean.len(), "the point")?;
        let centered = minus(point, &self.mean);
        let along = |c: &Vec<f64>| dot(c, &centered);
        Ok(self.components.iter().map(along).collect())
    }

    /// The point with these coordinates.
    ///
    /// # Errors
    /// Another number of coordinates than components, coordinates that are not finite.
    pub fn reconstruct(&self, coordinates: &[f64]) -> Result<Vec<f64>> {
        check(coordinates, self.components.len(), "the coordinate vector")?;
        let mut point = self.mean.clone();
        for (c, component) in coordinates.iter().zip(&self.components) {
            axpy(*c, component, &mut point);
        }
        Ok(point)
    }
}

fn check(v: &[f64], expected: usize, what: &str) -> Result<()> {
    if v.len() != expected {
        return Err(Error::invalid(format!(
            "{what} has {} entries where {expected} are expected",
            v.len()
        )));
    }
    check_finite(v, what)
}

/// Directions of the first `k` components, by eigenvectors u of the Gram matrix: Σᵢ uᵢ (xᵢ − mean).
fn by_gram(points: &(impl Points + ?Sized), mean: &[f64], k: usize) -> Result<Vec<Vec<f64>>> {
    let mut pairs = Distances::new(points)?.principal()?;
    pairs.truncate(k);
    combinations(points, mean, pairs.len(), |j, i, _| pairs[j].1[i])
}

/// The same by eigenvectors v of Σᵢ (xᵢ − mean)(xᵢ − mean)ᵀ: that matrix times v, once more from the points,
/// which takes out of v what rounding has put there and is not in their span.
fn by_covariance(points: &(impl Points + ?Sized), mean: &[f64], k: usize) -> Result<Vec<Vec<f64>>> {
    let d = mean.len();
    let mut rows = vec![vec![0.0; d]; d];
    for_each(points, "covariance", |_, point| {
        let centered = minus(&point, mean);
        for (row, x) in rows.iter_mut().zip(&centered) {
            axpy(*x, &centered, row);
        }
    })?;
    if rows.iter().enumerate().any(|(i, row)| !row[i].is_finite()) {
        return Err(overflow());
    }
    let (values, vectors) = symmetric_eigen(d, |i, j| rows[i][j])?;
    let mut pairs = resolved(values, vectors);
    pairs.truncate(k);
    combinations(points, mean, pairs.len(), |j, _, x| dot(&pairs[j].1, x))
}

/// `count` sums Σᵢ w (xᵢ − mean) with weights w(j, i, xᵢ − mean) in the j-th.
fn combinations(
    points: &(impl Points + ?Sized),
    mean: &[f64],
    count: usize,
    weight: impl Fn(usize, usize, &[f64]) -> f64,
) -> Result<Vec<Vec<f64>>> {
    let mut sums = vec![vec![0.0; mean.len()]; count];
    for_each(points, "principal components", |i, point| {
        let centered = minus(&point, mean);
        for (j, sum) in sums.iter_mut().enumerate() {
            axpy(weight(j, i, &centered), &centered, sum);
        }
    })?;
    Ok(sums)
}

/// The same span with an orthonormal basis: Gram and Schmidt's, twice over. Vectors of which
/// nothing is left are not there.
fn orthonormalized(vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for mut v in vectors {
        let before = norm(&v);
        for _ in 0..2 {
            for q in &basis {
                axpy(-dot(q, &v), q, &mut v);
            }
        }
        let left = norm(&v);
        if left > 1e-8 * before {
            scale(&mut v, 1.0 / left);
            basis.push(v);
        }
    }
    basis
}

/// Singular values, the largest first, and the right singular vectors as columns.
fn singular(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    if matrix.ncols() == 0 {
        return Ok((Vec::new(), Mat::zeros(0, 0)));
    }
    let (rows, columns) = matrix.shape();
    let mut values = Diag::zeros(rows.min(columns));
    let mut vectors = Mat::zeros(columns, rows.min(columns));
    let (left, right) = (ComputeSvdVectors::No, ComputeSvdVectors::Thin);
    // On one thread, as for eigenvalues: the same bits whatever else runs.
    let (par, settings) = (Par::Seq, Spec::default());
    let scratch = svd_scratch::<f64>(rows, columns, left, right, par, settings);
    svd(
        matrix.as_ref(),
        values.as_mut(),
        None,
        Some(vectors.as_mut()),
        par,
        MemStack::new(&mut MemBuffer::new(scratch)),
        settings,
    )
    .map_err(|e| Error::NotFinite(format!("the singular values were not found: {e:?}")))?;
    let values = values.column_vector().iter().copied().collect();
    Ok((values, vectors))
}
