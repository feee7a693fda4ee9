//! [`SecantModel`]: a matrix that is known only from products, of this matrix or of similar ones before it.

use super::orthonormal::{combine, extend};
use super::thick_restart::ROUNDING;
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::vector::{axpy, dot, norm};

/// The matrix M = WSWᵀ + σ(I − WWᵀ) with an orthonormal basis W. Vectors in the span of W are given by their coordinates; missing
/// coordinates at the end are zero.
pub(super) struct SecantModel {
    /// W
    basis: Vec<Vec<f64>>,
    /// S, by rows.
    matrix: Vec<Vec<f64>>,
    /// σ
    rest: f64,
}

impl SecantModel {
    /// The matrix σI.
    pub(super) fn new(rest: f64) -> Self {
        Self {
            basis: Vec::new(),
            matrix: Vec::new(),
            rest,
        }
    }

    /// Number of vectors in W.
    pub(super) fn len(&self) -> usize {
        self.basis.len()
    }

    pub(super) fn basis(&self) -> &[Vec<f64>] {
        &self.basis
    }

    /// Extends W so that its span contains v, without a change of M. Returns the coordinates of v.
    pub(super) fn include(&mut self, v: Vec<f64>) -> Vec<f64> {
        let smallest = ROUNDING * norm(&v);
        let (mut coordinates, length, unit) = extend(v, &self.basis, smallest);
        if let Some(unit) = unit {
            self.basis.push(unit);
            self.matrix.iter_mut().for_each(|row| row.push(0.0));
            let mut row = vec![0.0; self.matrix.len()];
            row.push(self.rest);
            self.matrix.push(row);
            coordinates.push(length);
        }
        coordinates
    }

    /// Changes M as little as possible, in the Frobenius norm, to a symmetric matrix with Mx = Ax (Powell, 1970). Products with
    /// vectors orthogonal to x that M has learned before remain. Returns the coordinates of the error (A − M)x before the change.
    ///
    /// `x` are the coordinates of a unit vector.
    pub(super) fn learn(&mut self, x: &mut Vec<f64>, image: Vec<f64>) -> Vec<f64> {
        let mut error = self.include(image);
        x.resize(self.len(), 0.0);
        axpy(-1.0, &self.apply(x), &mut error);
        let along = dot(x, &error);
        for (i, row) in self.matrix.iter_mut().enumerate() {
            axpy(error[i] - along * x[i], x, row);
            axpy(x[i], &error, row);
        }
        error
    }

    /// Returns the coordinates of Mx, for an x with all coordinates.
    pub(super) fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.matrix.iter().map(|row| dot(row, x)).collect()
    }

    /// Returns the vectors with these coordinates.
    pub(super) fn vectors(&self, coordinates: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let padded = coordinates.iter().map(|c| {
            let mut c = c.clone();
            c.resize(self.len(), 0.0);
            c
        });
        combine(&self.basis, &padded.collect::<Vec<_>>())
    }

    /// Computes the eigenvalues of S, ascending, and the coordinates of its unit eigenvectors.
    pub(super) fn eigen(&self) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        symmetric_eigen(self.len(), |i, j| self.matrix[i.max(j)][i.min(j)])
    }

    /// Keeps these eigenpairs of S, and replaces all others by σ.
    pub(super) fn keep(&mut self, pairs: &[(f64, Vec<f64>)]) {
        let coordinates: Vec<Vec<f64>> = pairs.iter().map(|(_, v)| v.clone()).collect();
        self.basis = self.vectors(&coordinates);
        let row = |(i, (value, _)): (usize, &(f64, Vec<f64>))| {
            let mut row = vec![0.0; pairs.len()];
            row[i] = *value;
            row
        };
        self.matrix = pairs.iter().enumerate().map(row).collect();
    }

    /// Distance of an eigenvalue of S from σ.
    pub(super) fn distance(&self, value: f64) -> f64 {
        (value - self.rest).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal};
    use crate::vector::scale;

    const N: usize = 30;

    /// diag(1, …, n)
    fn image(v: &[f64]) -> Vec<f64> {
        v.iter().zip(1..).map(|(v, i)| f64::from(i) * v).collect()
    }

    fn unit(model: &SecantModel, index: u64) -> Vec<f64> {
        let v = normal(N, Purpose::Following, 3, index);
        extend(v, model.basis(), 0.0).2.unwrap()
    }

    #[test]
    fn learned_products_remain() {
        let mut model = SecantModel::new(7.0);
        let (mut learned, mut vectors) = (Vec::new(), Vec::<Vec<f64>>::new());
        for i in 0..6 {
            // The second half lies partly in the span of earlier products.
            let mut v = match i < 3 {
                true => unit(&model, i),
                false => model.basis()[2 * i as usize - 3].clone(),
            };
            for q in &vectors {
                let along = dot(q, &v);
                axpy(-along, q, &mut v);
            }
            let length = norm(&v);
            scale(&mut v, 1.0 / length);
            vectors.push(v.clone());
            let mut x = model.include(v.clone());
            model.learn(&mut x, image(&v));
            learned.push((v, x));
        }
        for (v, mut x) in learned {
            x.resize(model.len(), 0.0);
            let mut found = model.vectors(&[model.apply(&x)]).swap_remove(0);
            axpy(-1.0, &image(&v), &mut found);
            assert!(norm(&found) < 1e-10, "{}", norm(&found));
        }
    }

    #[test]
    fn an_included_vector_changes_nothing() {
        let mut model = SecantModel::new(7.0);
        let v = unit(&model, 0);
        let mut x = model.include(v.clone());
        model.learn(&mut x, image(&v));
        let (values, before) = (model.eigen().unwrap().0, model.apply(&x));
        let y = model.include(unit(&model, 1));
        let found = model.apply(&y);
        assert!((found[2] - 7.0).abs() < 1e-12 && norm(&found[..2]) < 1e-12);
        assert!((norm(&model.apply(&x)) - norm(&before)).abs() < 1e-12);
        let (after, vectors) = model.eigen().unwrap();
        assert_eq!((values.len(), after.len()), (2, 3));
        // The largest eigenpair alone.
        model.keep(&[(after[2], vectors[2].clone())]);
        assert_eq!(model.eigen().unwrap().0, [after[2]]);
        assert_eq!(model.distance(after[2]), (after[2] - 7.0).abs());
    }
}
