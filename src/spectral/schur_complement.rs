//! [`SchurComplement`]: the operator that shows which eigenvalues a Krylov space misses.

use std::slice;

use super::orthonormal::{extend, project};
use super::probe_loop::Sampler;
use super::thick_restart::{KrylovSpace, Ritz};
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};
use crate::vector::{axpy, dot, norm};

/// The operator B = (I − QQᵀ)A(I − QQᵀ) + P C(μ − T)⁻¹Cᵀ Pᵀ on the orthogonal complement of a space's basis Q: the Schur
/// complement of A − μ with respect to Q, plus μ.
///
/// By the additivity of inertia (Haynsworth, 1968), A has as many eigenvalues above μ as T and B together, and as many below.
/// A therefore has an eigenvalue beyond μ that T does not show if and only if B has one.
pub(super) struct SchurComplement<'a> {
    space: &'a KrylovSpace,
    /// C(μ − T)⁻¹Cᵀ
    core: Vec<Vec<f64>>,
}

impl<'a> SchurComplement<'a> {
    /// For the threshold μ. `ritz` are the Ritz pairs of `space`.
    pub(super) fn new(space: &'a KrylovSpace, ritz: &Ritz, mu: f64) -> Self {
        let p = space.pending().len();
        let mut core = vec![vec![0.0; p]; p];
        for (i, value) in ritz.values.iter().enumerate() {
            let residual = space.residual_vector(ritz, i);
            for (row, r) in core.iter_mut().zip(&residual) {
                axpy(r / (mu - value), &residual, row);
            }
        }
        Self { space, core }
    }

    /// Dimension of the orthogonal complement.
    pub(super) fn dim(&self) -> usize {
        self.space.dim() - self.space.basis().len()
    }

    /// Returns Bv for a v in the complement, and ‖Av‖.
    pub(super) fn apply(
        &self,
        operator: &dyn LinearOperator,
        v: &Vec<f64>,
    ) -> Result<(Vec<f64>, f64)> {
        let mut image = checked_products(operator, slice::from_ref(v))?.swap_remove(0);
        let size = norm(&image);
        project(&mut image, self.space.basis());
        let pending = self.space.pending();
        let components: Vec<f64> = pending.iter().map(|p| dot(p, v)).collect();
        for (row, p) in self.core.iter().zip(pending) {
            axpy(dot(row, &components), p, &mut image);
        }
        Ok((image, size))
    }

    /// Draws a random unit vector in the complement.
    pub(super) fn random(&self, sampler: &mut Sampler) -> Vec<f64> {
        loop {
            let w = sampler.gaussian(self.space.dim());
            let before = norm(&w);
            // A vector that is lost to rounding is drawn again.
            if let (_, _, Some(q)) = extend(w, self.space.basis(), 1e-8 * before) {
                return q;
            }
        }
    }
}
