//! [`Space`]: the vectors that a Lanczos iteration has multiplied, and those that it could multiply next.

use super::full::symmetric_eigen;
use super::krylov::{Draws, combine, extend, orthogonalize, project};
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};
use crate::vector::{axpy, dot, norm, scale};

/// A component of a product below this share of the largest product is rounding.
pub(super) const ROUNDING: f64 = 1e-12;

/// Orthonormal vectors Q and P with AQ = QT + PC: a basis whose products are known, and the pending vectors that the
/// products lead to.
pub(super) struct Space {
    n: usize,
    /// Q
    basis: Vec<Vec<f64>>,
    /// The rows of T up to the diagonal.
    projected: Vec<Vec<f64>>,
    /// P
    pending: Vec<Vec<f64>>,
    /// The columns of C. Entries missing at the end of a column are zero.
    coupling: Vec<Vec<f64>>,
    /// Largest ‖Aq‖ so far.
    size: f64,
}

/// Eigenvalues of T, ascending, and its eigenvectors.
pub(super) struct Ritz {
    pub(super) values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl Space {
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

    /// Number of pending vectors.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The Schur complement of A − μ with respect to the basis, plus μ. `ritz` are the Ritz pairs of this space.
    pub(super) fn complement(&self, ritz: &Ritz, mu: f64) -> Complement<'_> {
        let p = self.pending.len();
        let mut core = vec![vec![0.0; p]; p];
        for (i, value) in ritz.values.iter().enumerate() {
            let residual = self.residual_vector(ritz, i);
            for (row, r) in core.iter_mut().zip(&residual) {
                axpy(r / (mu - value), &residual, row);
            }
        }
        Complement { space: self, core }
    }

    /// Multiplies the orthonormal `block`, which is orthogonal to basis and pending vectors, and adds it to the basis.
    pub(super) fn expand(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        block: Vec<Vec<f64>>,
    ) -> Result<()> {
        let images = checked_products(operator, &block)?;
        let before = self.basis.len();
        self.basis.extend(block);
        for (i, mut image) in images.into_iter().enumerate() {
            self.size = self.size.max(norm(&image));
            let (mut row, mut column) = self.remove_from(&mut image);
            row.truncate(before + i + 1);
            self.projected.push(row);
            let length = norm(&image);
            if length > ROUNDING * self.size {
                scale(&mut image, 1.0 / length);
                column.push(length);
                self.pending.push(image);
            }
            self.coupling.push(column);
        }
        Ok(())
    }

    /// Takes the components along the basis and the pending vectors out of `w`, and returns them.
    fn remove_from(&self, w: &mut [f64]) -> (Vec<f64>, Vec<f64>) {
        let mut along_basis = orthogonalize(w, &self.basis);
        if self.pending.is_empty() {
            return (along_basis, Vec::new());
        }
        let before = norm(w);
        let mut along_pending = orthogonalize(w, &self.pending);
        // The less is left, the larger are in it the components along the basis that rounding had hidden.
        if norm(w) < 0.1 * before {
            axpy(1.0, &orthogonalize(w, &self.basis), &mut along_basis);
            axpy(1.0, &orthogonalize(w, &self.pending), &mut along_pending);
        }
        (along_basis, along_pending)
    }

    /// The `count` newest pending vectors, which are pending no more.
    pub(super) fn take(&mut self, count: usize) -> Vec<Vec<f64>> {
        let left = self.pending.len().saturating_sub(count);
        for column in &mut self.coupling {
            column.truncate(left);
        }
        self.pending.split_off(left)
    }

    /// The pending vectors along which the residuals of the `open` pairs mostly lie: at least `block` of them if there
    /// are so many, and at most `most`.
    pub(super) fn take_residuals(
        &mut self,
        ritz: &Ritz,
        open: &[usize],
        block: usize,
        most: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let p = self.pending.len();
        if p <= block || open.is_empty() {
            return Ok(self.take(block.min(most)));
        }
        let residuals: Vec<Vec<f64>> = open
            .iter()
            .map(|i| self.residual_vector(ritz, *i))
            .collect();
        let (squares, directions) =
            symmetric_eigen(p, |i, j| residuals.iter().map(|r| r[i] * r[j]).sum())?;
        let large = squares
            .iter()
            .filter(|s| **s >= 0.01 * squares[p - 1])
            .count();
        self.pending = combine(&self.pending, &directions);
        for column in &mut self.coupling {
            column.resize(p, 0.0);
            *column = directions.iter().map(|d| dot(d, column)).collect();
        }
        Ok(self.take(large.max(block).min(most)))
    }

    /// All pending vectors, and the direction of `vector` that is orthogonal to them and to the basis, at most `most`.
    pub(super) fn take_with(&mut self, mut vector: Vec<f64>, most: usize) -> Vec<Vec<f64>> {
        self.remove_from(&mut vector);
        let mut taken = self.take(most.min(self.pending.len()));
        let length = norm(&vector);
        if length > 1e-8 && taken.len() < most {
            scale(&mut vector, 1.0 / length);
            taken.push(vector);
        }
        taken
    }

    /// Adds random vectors to an orthonormal `block` until it has `count`, orthogonal to all else; fewer if no more fit.
    pub(super) fn fill(
        &self,
        mut block: Vec<Vec<f64>>,
        count: usize,
        draws: &mut Draws,
    ) -> Vec<Vec<f64>> {
        let count = count.min(self.n - self.basis.len() - self.pending.len());
        while block.len() < count {
            let mut w = draws.gaussian(self.n);
            let before = norm(&w);
            self.remove_from(&mut w);
            // A vector that is lost to rounding is drawn again.
            block.extend(extend(w, &block, 1e-8 * before).2);
        }
        block
    }

    pub(super) fn ritz(&self) -> Result<Ritz> {
        let entry = |i: usize, j: usize| self.projected[i.max(j)][i.min(j)];
        let (values, vectors) = symmetric_eigen(self.len(), entry)?;
        Ok(Ritz { values, vectors })
    }

    /// ‖Av − θv‖ of the `i`-th Ritz pair.
    pub(super) fn residual(&self, ritz: &Ritz, i: usize) -> f64 {
        norm(&self.residual_vector(ritz, i))
    }

    /// Av − θv of the `i`-th Ritz pair, in the coordinates of the pending vectors.
    fn residual_vector(&self, ritz: &Ritz, i: usize) -> Vec<f64> {
        let mut sum = vec![0.0; self.pending.len()];
        for (column, s) in self.coupling.iter().zip(&ritz.vectors[i]) {
            axpy(*s, column, &mut sum);
        }
        sum
    }

    /// The Ritz vectors with these indices, of length 1.
    pub(super) fn vectors(&self, ritz: &Ritz, indices: &[usize]) -> Vec<Vec<f64>> {
        let coordinates: Vec<Vec<f64>> = indices.iter().map(|i| ritz.vectors[*i].clone()).collect();
        let mut vectors = combine(&self.basis, &coordinates);
        for v in &mut vectors {
            let length = norm(v);
            scale(v, 1.0 / length);
        }
        vectors
    }

    /// How far AV is from what this space says it is, for the matrix V of the Ritz vectors with these indices: the length of
    /// the difference for a random combination Vg with signs g, which estimates its Frobenius norm. It shows the rounding of
    /// the operator. It is no less than the rounding of sums over the basis, which a single combination may miss.
    pub(super) fn check(
        &self,
        operator: &(impl LinearOperator + ?Sized),
        ritz: &Ritz,
        indices: &[usize],
        draws: &mut Draws,
    ) -> Result<f64> {
        let signs = draws.signs(indices.len());
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
        let least = 4.0 * (self.len() as f64).sqrt() * f64::EPSILON * self.size;
        Ok(norm(&difference).max(least))
    }

    /// Keeps only the Ritz vectors with these indices as the basis.
    pub(super) fn restart(&mut self, ritz: &Ritz, indices: &[usize]) {
        let coupling = indices.iter().map(|i| self.residual_vector(ritz, *i));
        let coupling: Vec<Vec<f64>> = coupling.collect();
        self.basis = self.vectors(ritz, indices);
        let row = |(i, index): (usize, &usize)| [vec![0.0; i], vec![ritz.values[*index]]].concat();
        self.projected = indices.iter().enumerate().map(row).collect();
        // Pending vectors that the kept products do not lead to are dropped.
        let largest = |i: usize| {
            coupling
                .iter()
                .fold(0.0, |most: f64, c| most.max(c[i].abs()))
        };
        let used = (0..self.pending.len()).map(|i| largest(i) > ROUNDING * self.size);
        let used: Vec<bool> = used.collect();
        let keep = |column: &Vec<f64>| -> Vec<f64> {
            let pairs = column.iter().zip(&used);
            pairs.filter(|(_, used)| **used).map(|(c, _)| *c).collect()
        };
        self.coupling = coupling.iter().map(keep).collect();
        let mut used = used.iter();
        self.pending.retain(|_| *used.next().unwrap_or(&true));
    }
}

/// The operator B = (I − QQᵀ)A(I − QQᵀ) + P C(μ − T)⁻¹Cᵀ Pᵀ on the orthogonal complement of a space's basis Q.
///
/// By the additivity of inertia (Haynsworth, 1968), A has as many eigenvalues above μ as T and B together, and as many below.
/// So A has an eigenvalue beyond μ that T does not show exactly if B has one.
pub(super) struct Complement<'a> {
    space: &'a Space,
    /// C(μ − T)⁻¹Cᵀ
    core: Vec<Vec<f64>>,
}

impl Complement<'_> {
    /// Dimension of the orthogonal complement.
    pub(super) fn dim(&self) -> usize {
        self.space.n - self.space.basis.len()
    }

    /// Bv for a v in the complement, and the length of Av.
    pub(super) fn apply(
        &self,
        operator: &(impl LinearOperator + ?Sized),
        v: &[f64],
    ) -> Result<(Vec<f64>, f64)> {
        let mut image = checked_products(operator, &[v.to_vec()])?.swap_remove(0);
        let size = norm(&image);
        project(&mut image, &self.space.basis);
        let components: Vec<f64> = self.space.pending.iter().map(|p| dot(p, v)).collect();
        for (row, p) in self.core.iter().zip(&self.space.pending) {
            axpy(dot(row, &components), p, &mut image);
        }
        Ok((image, size))
    }

    /// A random unit vector in the complement.
    pub(super) fn random(&self, draws: &mut Draws) -> Vec<f64> {
        loop {
            let w = draws.gaussian(self.space.n);
            let before = norm(&w);
            // A vector that is lost to rounding is drawn again.
            if let (_, _, Some(q)) = extend(w, &self.space.basis, 1e-8 * before) {
                return q;
            }
        }
    }
}
