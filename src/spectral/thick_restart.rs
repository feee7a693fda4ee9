//! [`KrylovSpace`]: the basis of a block Lanczos iteration, its Ritz pairs, and the thick restart.

use rayon::prelude::*;

use super::basis_blocks::{MIN_BLOCK, project_block, replace_by_sums};
use super::orthonormal::{combine, extend, orthogonalize};
use super::probe_loop::Sampler;
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::operator::{LinearOperator, checked_products};
use crate::vector::{axpy, dot, norm, scale};

/// Components of a product below this fraction of the largest product are rounding.
pub(super) const ROUNDING: f64 = 1e-12;

/// Orthonormal vectors Q and P with AQ = QT + PC: the basis Q, whose products are known, and the pending vectors P, which span
/// the rest of the products and are multiplied next.
pub(super) struct KrylovSpace {
    n: usize,
    /// Q
    basis: Vec<Vec<f64>>,
    /// The lower triangle of T, by rows.
    projected: Vec<Vec<f64>>,
    /// P
    pending: Vec<Vec<f64>>,
    /// The columns of C. Missing entries at the end of a column are zero.
    coupling: Vec<Vec<f64>>,
    /// Largest ‖Aq‖ so far.
    size: f64,
}

/// Eigenvalues of T, ascending, and eigenvectors.
pub(super) struct Ritz {
    pub(super) values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl KrylovSpace {
    pub(super) fn new(n: usize) -> Self {
        Self {
            n,
            basis: Vec::new(),
            projected: Vec::new(),
            pending: Vec::new(),
            coupling: Vec::new(),
            size: 0.0,
        }
    }

    /// Number of basis vectors.
    pub(super) fn len(&self) -> usize {
        self.basis.len()
    }

    /// Dimension of the whole space.
    pub(super) fn dim(&self) -> usize {
        self.n
    }

    pub(super) fn basis(&self) -> &[Vec<f64>] {
        &self.basis
    }

    /// The pending vectors.
    pub(super) fn pending(&self) -> &[Vec<f64>] {
        &self.pending
    }

    /// Multiplies the orthonormal `block`, which is orthogonal to the basis and the pending vectors, and adds it to the basis.
    pub(super) fn expand(
        &mut self,
        operator: &dyn LinearOperator,
        block: Vec<Vec<f64>>,
    ) -> Result<()> {
        let images = checked_products(operator, &block)?;
        let before = self.basis.len();
        self.basis.extend(block);
        if images.len() >= MIN_BLOCK {
            self.add_block(images);
            return Ok(());
        }
        for (i, mut image) in images.into_iter().enumerate() {
            self.size = self.size.max(norm(&image));
            let (mut row, column) = self.remove_from(&mut image);
            row.truncate(before + i + 1);
            self.projected.push(row);
            self.add_pending(image, column);
        }
        Ok(())
    }

    /// Adds the products of the last basis vectors, by block Gram–Schmidt orthogonalisation, done twice (Barlow and Smoktunowicz,
    /// 2013): once would multiply earlier errors of the orthogonality in each step.
    fn add_block(&mut self, mut images: Vec<Vec<f64>>) {
        let first = self.basis.len() - images.len();
        let sizes = images.iter().map(|image| norm(image));
        self.size = sizes.fold(self.size, f64::max);
        let rows = project_block(&mut images, &self.basis);
        let more = project_block(&mut images, &self.basis);
        let old = self.pending.len();
        let mut is_precise = true;
        for (i, ((mut row, more), mut image)) in rows.into_iter().zip(more).zip(images).enumerate()
        {
            axpy(1.0, &more, &mut row);
            row.truncate(first + i + 1);
            self.projected.push(row);
            let before = norm(&image);
            let column = orthogonalize(&mut image, &self.pending);
            is_precise &= norm(&image) >= 0.1 * before;
            self.add_pending(image, column);
        }
        if is_precise {
            return;
        }
        // Rounding errors along the basis are a large part of what is left. The changes of T and C are below their rounding.
        let mut new = self.pending.split_off(old);
        project_block(&mut new, &self.basis);
        for mut q in new {
            orthogonalize(&mut q, &self.pending);
            let length = norm(&q);
            scale(&mut q, 1.0 / length);
            self.pending.push(q);
        }
    }

    /// Adds the rest of a product, with its components along the pending vectors, unless it is only rounding.
    fn add_pending(&mut self, mut rest: Vec<f64>, mut column: Vec<f64>) {
        let length = norm(&rest);
        if length > ROUNDING * self.size {
            scale(&mut rest, 1.0 / length);
            column.push(length);
            self.pending.push(rest);
        }
        self.coupling.push(column);
    }

    /// Removes the components along the basis and the pending vectors from `w`, and returns them.
    fn remove_from(&self, w: &mut [f64]) -> (Vec<f64>, Vec<f64>) {
        // The large components of a product are mostly along the last two vectors. Without them, one pass over the basis is precise.
        let last = self.basis.len().saturating_sub(2);
        let along_last = orthogonalize(w, &self.basis[last..]);
        let mut along_basis = orthogonalize(w, &self.basis);
        axpy(1.0, &along_last, &mut along_basis[last..]);
        if self.pending.is_empty() {
            return (along_basis, Vec::new());
        }
        let before = norm(w);
        let mut along_pending = orthogonalize(w, &self.pending);
        // If little is left, rounding errors along the basis are a large part of it.
        if norm(w) < 0.1 * before {
            axpy(1.0, &orthogonalize(w, &self.basis), &mut along_basis);
            axpy(1.0, &orthogonalize(w, &self.pending), &mut along_pending);
        }
        (along_basis, along_pending)
    }

    /// Removes and returns the `count` newest pending vectors.
    pub(super) fn take(&mut self, count: usize) -> Vec<Vec<f64>> {
        let left = self.pending.len().saturating_sub(count);
        for column in &mut self.coupling {
            column.truncate(left);
        }
        self.pending.split_off(left)
    }

    /// Removes and returns the directions among the pending vectors along which the residuals of the `unconverged` pairs are
    /// largest: at least `min` if there are as many, and at most `max`.
    pub(super) fn take_residuals(
        &mut self,
        ritz: &Ritz,
        unconverged: &[usize],
        min: usize,
        max: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let p = self.pending.len();
        if p <= min || unconverged.is_empty() {
            return Ok(self.take(min.min(max)));
        }
        let residuals: Vec<Vec<f64>> = unconverged
            .iter()
            .map(|i| self.residual_vector(ritz, *i))
            .collect();
        let (squares, directions) =
            symmetric_eigen(p, |i, j| residuals.iter().map(|r| r[i] * r[j]).sum())?;
        let large = squares
            .iter()
            .filter(|s| **s >= 0.01 * squares[p - 1])
            .count();
        let coefficients: Vec<&[f64]> = directions.iter().map(Vec::as_slice).collect();
        replace_by_sums(&mut self.pending, &coefficients)?;
        for column in &mut self.coupling {
            column.resize(p, 0.0);
            *column = directions.iter().map(|d| dot(d, column)).collect();
        }
        Ok(self.take(large.max(min).min(max)))
    }

    /// Removes and returns all pending vectors, together with the component of `vector` orthogonal to them and to the basis; at
    /// most `max` vectors.
    pub(super) fn take_with(&mut self, mut vector: Vec<f64>, max: usize) -> Vec<Vec<f64>> {
        self.remove_from(&mut vector);
        let mut taken = self.take(max.min(self.pending.len()));
        let length = norm(&vector);
        if length > 1e-8 && taken.len() < max {
            scale(&mut vector, 1.0 / length);
            taken.push(vector);
        }
        taken
    }

    /// Extends an orthonormal `block` with random vectors to `count` vectors, all orthogonal to the space; fewer if the whole
    /// space has no room for more.
    pub(super) fn fill(
        &self,
        mut block: Vec<Vec<f64>>,
        count: usize,
        sampler: &mut Sampler,
    ) -> Vec<Vec<f64>> {
        let count = count.min(self.n - self.basis.len() - self.pending.len());
        while block.len() < count {
            let mut w = sampler.gaussian(self.n);
            let before = norm(&w);
            self.remove_from(&mut w);
            // A vector that is lost to rounding is drawn again.
            block.extend(extend(w, &block, 1e-8 * before).2);
        }
        block
    }

    /// Computes the Ritz pairs.
    pub(super) fn ritz(&self) -> Result<Ritz> {
        let entry = |i: usize, j: usize| self.projected[i.max(j)][i.min(j)];
        let (values, vectors) = symmetric_eigen(self.len(), entry)?;
        Ok(Ritz { values, vectors })
    }

    /// ‖Av − θv‖ of the `i`-th Ritz pair.
    pub(super) fn residual(&self, ritz: &Ritz, i: usize) -> f64 {
        norm(&self.residual_vector(ritz, i))
    }

    /// Av − θv of the `i`-th Ritz pair, in coordinates of the pending vectors.
    pub(super) fn residual_vector(&self, ritz: &Ritz, i: usize) -> Vec<f64> {
        let mut sum = vec![0.0; self.pending.len()];
        for (column, s) in self.coupling.iter().zip(&ritz.vectors[i]) {
            axpy(*s, column, &mut sum);
        }
        sum
    }

    /// The Ritz vectors with these indices, of length 1, in place of the basis.
    pub(super) fn into_vectors(mut self, ritz: &Ritz, indices: &[usize]) -> Result<Vec<Vec<f64>>> {
        self.replace_basis(ritz, indices)?;
        Ok(self.basis)
    }

    fn replace_basis(&mut self, ritz: &Ritz, indices: &[usize]) -> Result<()> {
        let coordinates: Vec<&[f64]> = indices.iter().map(|i| &ritz.vectors[*i][..]).collect();
        replace_by_sums(&mut self.basis, &coordinates)?;
        self.basis.par_iter_mut().for_each(|v| {
            let length = norm(v);
            scale(v, 1.0 / length);
        });
        Ok(())
    }

    /// Measures the rounding of the operator, with one product: for the matrix V of the Ritz vectors with these indices, the
    /// difference between AV and its value according to this space. The length of the difference for a random combination Vg
    /// with signs g estimates its Frobenius norm. The result is at least the rounding of sums over the basis, which a single
    /// combination can miss.
    pub(super) fn product_error(
        &self,
        operator: &dyn LinearOperator,
        ritz: &Ritz,
        indices: &[usize],
        sampler: &mut Sampler,
    ) -> Result<f64> {
        let signs = sampler.signs(indices.len());
        let (mut v, mut image) = (vec![0.0; self.len()], vec![0.0; self.len()]);
        let mut residual = vec![0.0; self.pending.len()];
        for (sign, i) in signs.iter().zip(indices) {
            axpy(*sign, &ritz.vectors[*i], &mut v);
            axpy(sign * ritz.values[*i], &ritz.vectors[*i], &mut image);
            axpy(*sign, &self.residual_vector(ritz, *i), &mut residual);
        }
        let combined = combine(&self.basis, &[v, image]);
        let mut difference = checked_products(operator, &combined[..1])?.swap_remove(0);
        axpy(-1.0, &combined[1], &mut difference);
        for (r, p) in residual.iter().zip(&self.pending) {
            axpy(-r, p, &mut difference);
        }
        let sum_rounding = 4.0 * (self.len() as f64).sqrt() * f64::EPSILON * self.size;
        Ok(norm(&difference).max(sum_rounding))
    }

    /// The thick restart (Wu and Simon, 2000): the Ritz vectors with these indices become the basis, with their Ritz values as
    /// a diagonal T. The pending vectors remain.
    ///
    /// # Errors
    /// An interrupt. The space is then lost.
    pub(super) fn restart(&mut self, ritz: &Ritz, indices: &[usize]) -> Result<()> {
        let coupling = indices.iter().map(|i| self.residual_vector(ritz, *i));
        let coupling: Vec<Vec<f64>> = coupling.collect();
        self.replace_basis(ritz, indices)?;
        let row = |(i, index): (usize, &usize)| [vec![0.0; i], vec![ritz.values[*index]]].concat();
        self.projected = indices.iter().enumerate().map(row).collect();
        // Pending vectors that no remaining product has a component along are dropped.
        let largest = |i: usize| coupling.iter().fold(0.0, |max: f64, c| max.max(c[i].abs()));
        let used = (0..self.pending.len()).map(|i| largest(i) > ROUNDING * self.size);
        let used: Vec<bool> = used.collect();
        let keep = |column: &Vec<f64>| -> Vec<f64> {
            let pairs = column.iter().zip(&used);
            pairs.filter(|(_, used)| **used).map(|(c, _)| *c).collect()
        };
        self.coupling = coupling.iter().map(keep).collect();
        let mut used = used.iter();
        self.pending.retain(|_| *used.next().unwrap_or(&true));
        Ok(())
    }
}
