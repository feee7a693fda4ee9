//! [`Pca`]: principal component analysis.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, Par, Spec};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::distances::resolved;
use super::{Distances, Points, check_components, for_each, mean, overflow, shape};
use crate::error::{Error, Result, check_finite, counted};
use crate::kernels::symmetric_eigen;
use crate::vector::{axpy, dot, minus, norm, scale};

/// Principal components of n points: the orthogonal directions of largest variance (Pearson, 1901), in decreasing order.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // On the line through (0, 0) and (3, 4), at distances 0, 5, 10.
/// let points = vec![vec![0.0, 0.0], vec![3.0, 4.0], vec![6.0, 8.0]];
/// let pca = Pca::fit(&points, 2)?; // a line has only one component
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
    /// Mean of the points, shape `(d,)`.
    pub mean: Vec<f64>,
    /// Orthonormal directions, shape `(d,)` each, with sign such that the largest entry is positive.
    pub components: Vec<Vec<f64>>,
    /// Variance along each direction: Σ cᵢ² / (n − 1) over the points' coordinates cᵢ.
    pub explained_variance: Vec<f64>,
    /// Fraction of the total variance along each direction.
    pub explained_ratio: Vec<f64>,
    /// Total variance Σ ‖xᵢ − mean‖² / (n − 1); 0 for one point.
    pub total_variance: f64,
    /// Coordinates of the points along the components, shape `(n, k)`.
    pub coordinates: Array2<f64>,
    /// ‖X − X̂‖_F / ‖X − mean‖_F, where X̂ are the points projected onto these components; 0 if all points are equal.
    pub reconstruction_error: f64,
}

impl Pca {
    /// Computes the first `k` components of `points`, or all of them if there are fewer: n points span at most n − 1 directions,
    /// equal points none.
    ///
    /// The span is computed from eigenvectors of the points' n × n Gram matrix or of the d × d covariance, whichever is smaller.
    /// A direction of spread σ is accurate to about 10⁻¹⁶ (σ₁/σ)², where σ₁ is the largest spread; directions below about
    /// 10⁻⁷ σ₁ are left out. Within the span, the components are singular vectors of the coordinates, accurate to rounding.
    ///
    /// # Errors
    /// `k` is 0; there are no points; points have no entries or unequal lengths; entries or their squares are not finite; there
    /// are more than [`Distances::MAX_COUNT`] points with more entries than that; a point cannot be read.
    pub fn fit(points: &dyn Points, k: usize) -> Result<Self> {
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
            let mut residual = minus(&point, &mean);
            total += dot(&residual, &residual);
            for (j, direction) in basis.iter().enumerate() {
                scores[(i, j)] = dot(direction, &residual);
                axpy(-scores[(i, j)], direction, &mut residual);
            }
            left += dot(&residual, &residual);
        })?;
        if !total.is_finite() {
            return Err(overflow());
        }
        let (spreads, rotation) = singular(&scores)?;

        let degrees = (n - 1).max(1) as f64;
        let smallest = n.max(d) as f64 * f64::EPSILON * spreads.first().copied().unwrap_or(0.0);
        let resolved = spreads.iter().filter(|s| **s > smallest).count();
        let mut components = Vec::with_capacity(resolved);
        let mut coordinates = Array2::zeros((n, resolved));
        for j in 0..resolved {
            let mut component = vec![0.0; d];
            for (l, direction) in basis.iter().enumerate() {
                axpy(rotation[(l, j)], direction, &mut component);
            }
            let largest = component
                .iter()
                .fold(0.0, |m: f64, v| if v.abs() > m.abs() { *v } else { m });
            let sign = 1f64.copysign(largest);
            scale(&mut component, sign);
            components.push(component);
            for i in 0..n {
                let terms = (0..basis.len()).map(|l| scores[(i, l)] * rotation[(l, j)]);
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

    /// Returns the coordinates of `point` along the components, shape `(k,)`.
    ///
    /// # Errors
    /// `point` does not have d entries, or they are not finite.
    pub fn project(&self, point: &[f64]) -> Result<Vec<f64>> {
        check(point, self.mean.len(), "the point")?;
        let centered = minus(point, &self.mean);
        let along = |c: &Vec<f64>| dot(c, &centered);
        Ok(self.components.iter().map(along).collect())
    }

    /// Returns the point with these coordinates, shape `(d,)`.
    ///
    /// # Errors
    /// The number of coordinates differs from that of the components, or they are not finite.
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
            "{what} has {}, expected {expected}",
            counted(v.len(), "entry")
        )));
    }
    check_finite(v, what)
}

/// Returns directions that span the first `k` components, from eigenvectors u of the Gram matrix: Σᵢ uᵢ (xᵢ − mean).
fn by_gram(points: &dyn Points, mean: &[f64], k: usize) -> Result<Vec<Vec<f64>>> {
    let mut pairs = Distances::new(points)?.principal()?;
    pairs.truncate(k);
    combinations(points, mean, pairs.len(), |j, i, _| pairs[j].1[i])
}

/// Returns the same from eigenvectors v of Σᵢ (xᵢ − mean)(xᵢ − mean)ᵀ. This matrix is applied to v once more, computed from
/// the points, to remove the part of v outside their span that rounding adds.
fn by_covariance(points: &dyn Points, mean: &[f64], k: usize) -> Result<Vec<Vec<f64>>> {
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

/// Returns `count` sums Σᵢ w (xᵢ − mean), with weights w(j, i, xᵢ − mean) in the j-th.
fn combinations(
    points: &dyn Points,
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

/// Returns an orthonormal basis of the same span, by Gram–Schmidt applied twice. Linearly dependent vectors are dropped.
fn orthonormalized(vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for mut v in vectors {
        let before = norm(&v);
        for _ in 0..2 {
            for q in &basis {
                axpy(-dot(q, &v), q, &mut v);
            }
        }
        let remaining = norm(&v);
        if remaining > 1e-8 * before {
            scale(&mut v, 1.0 / remaining);
            basis.push(v);
        }
    }
    basis
}

/// Returns the singular values, largest first, and the right singular vectors as columns.
fn singular(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    if matrix.ncols() == 0 {
        return Ok((Vec::new(), Mat::zeros(0, 0)));
    }
    let (rows, columns) = matrix.shape();
    let mut values = Diag::zeros(rows.min(columns));
    let mut vectors = Mat::zeros(columns, rows.min(columns));
    let (left, right) = (ComputeSvdVectors::No, ComputeSvdVectors::Thin);
    // On one thread, as for eigenvalues: the bits do not depend on the load.
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
    .map_err(|e| Error::NotFinite(format!("the singular value decomposition failed: {e:?}")))?;
    let values = values.column_vector().iter().copied().collect();
    Ok((values, vectors))
}
