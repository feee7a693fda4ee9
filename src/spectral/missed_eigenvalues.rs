//! A random search for eigenvalues that a Krylov space misses, with a bound on the probability of missing one.

use std::f64::consts::PI;

use super::orthonormal::orthogonalize;
use super::probe_loop::Sampler;
use super::schur_complement::SchurComplement;
use super::thick_restart::ROUNDING;
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::recycled;
use crate::vector::{axpy, norm, scale};

/// Largest probability of missing an eigenvalue beyond a threshold.
pub(super) const MISS_PROBABILITY: f64 = 1e-3;

/// A number beyond which missed eigenvalues are searched for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Threshold {
    /// Searches for eigenvalues above this number.
    Above(f64),
    /// Searches for eigenvalues below this number.
    Below(f64),
}

impl Threshold {
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Above(mu) | Self::Below(mu) => mu,
        }
    }

    /// Distance of `x` from the threshold, positive if x is not beyond it.
    fn distance(self, x: f64) -> f64 {
        match self {
            Self::Above(mu) => mu - x,
            Self::Below(mu) => x - mu,
        }
    }
}

/// The result of a search.
pub(super) enum Outcome {
    /// A unit vector, orthogonal to the basis, whose Rayleigh quotient is beyond the threshold.
    Found(Vec<f64>),
    /// No eigenvalue beyond the threshold was missed, up to a probability of [`MISS_PROBABILITY`].
    Nothing,
    /// The budget of products was too small.
    Unknown,
}

/// Searches for eigenvalues beyond `threshold` that the space misses: those of its Schur complement `b`. The search is a
/// Lanczos recurrence from one random vector with at most `budget` products; if it finds an eigenvalue, the recurrence is
/// repeated to compute its vector. Also returns the number of products.
pub(super) fn search(
    operator: &dyn LinearOperator,
    b: &SchurComplement,
    threshold: Threshold,
    budget: usize,
    sampler: &mut Sampler,
    progress: &mut Progress,
) -> Result<(Outcome, usize)> {
    let start = b.random(sampler);
    let mut chain = Chain::new(start.clone());
    let mut bound = Bound::new(b.dim(), threshold);
    while chain.len() < budget {
        chain.extend(operator, b)?;
        progress.tick(|| format!("search for missed eigenvalues, {} products", chain.len()));
        bound.extend(chain.alpha[chain.len() - 1], chain.beta[chain.len() - 1]);
        if bound.has_found() {
            let found = chain.ritz_vector(threshold, operator, b, start)?;
            return Ok((Outcome::Found(found), 2 * chain.len()));
        }
        if bound.miss_probability() <= MISS_PROBABILITY {
            return Ok((Outcome::Nothing, chain.len()));
        }
    }
    Ok((Outcome::Unknown, chain.len()))
}

/// A Lanczos recurrence that stores only its last two vectors. Their components along an eigenvector follow the recurrence even
/// if the vectors lose orthogonality.
struct Chain {
    /// The last two vectors; empty if the Krylov space is exhausted.
    recent: Vec<Vec<f64>>,
    alpha: Vec<f64>,
    beta: Vec<f64>,
    /// Largest length of a product.
    size: f64,
}

impl Chain {
    fn new(start: Vec<f64>) -> Self {
        Self {
            recent: vec![start],
            alpha: Vec::new(),
            beta: Vec::new(),
            size: 0.0,
        }
    }

    fn len(&self) -> usize {
        self.alpha.len()
    }

    /// Multiplies the last vector.
    fn extend(&mut self, operator: &dyn LinearOperator, b: &SchurComplement) -> Result<()> {
        let (last, kept) = (self.recent.len() - 1, recycled::kept());
        let (mut image, size) = b.apply(operator, &self.recent[last])?;
        self.size = self.size.max(size);
        let components = orthogonalize(&mut image, &self.recent);
        self.alpha.push(components[last]);
        let length = norm(&image);
        if length <= ROUNDING * self.size {
            self.beta.push(0.0);
            self.recent.clear();
            return Ok(());
        }
        self.beta.push(length);
        scale(&mut image, 1.0 / length);
        self.recent.push(image);
        if self.recent.len() > 2 {
            recycled::keep([self.recent.remove(0)].into_iter());
            // Products that use no kept memory leave one vector more each time.
            recycled::keep_at_most(kept.max(1));
        }
        Ok(())
    }

    /// Computes the Ritz vector furthest beyond the threshold, by repeating the recurrence.
    fn ritz_vector(
        &self,
        threshold: Threshold,
        operator: &dyn LinearOperator,
        b: &SchurComplement,
        start: Vec<f64>,
    ) -> Result<Vec<f64>> {
        let entry = |i: usize, j: usize| match i.abs_diff(j) {
            0 => self.alpha[i],
            1 => self.beta[i.min(j)],
            _ => 0.0,
        };
        let (_, mut vectors) = symmetric_eigen(self.len(), entry)?;
        let coefficients = match threshold {
            Threshold::Above(_) => vectors.swap_remove(self.len() - 1),
            Threshold::Below(_) => vectors.swap_remove(0),
        };
        let mut sum = vec![0.0; start.len()];
        let mut chain = Self::new(start);
        for coefficient in coefficients {
            if let Some(vector) = chain.recent.last() {
                axpy(coefficient, vector, &mut sum);
                chain.extend(operator, b)?;
            }
        }
        let length = norm(&sum);
        scale(&mut sum, 1.0 / length);
        Ok(sum)
    }
}

/// A bound on the probability that the Lanczos recurrence of a random unit vector u misses an eigenvalue beyond a threshold μ.
///
/// An eigenvector x with eigenvalue μ has the component uᵀx·pᵢ(μ) along the i-th vector of the recurrence, with its
/// orthonormal polynomials pᵢ. No component exceeds 1, so |uᵀx| ≤ 1/maxᵢ |pᵢ(μ)|; beyond μ the polynomials are larger still.
/// For a random u in d dimensions, |uᵀx| ≤ a has a probability of at most a√(2d/π).
struct Bound {
    dim: usize,
    threshold: Threshold,
    /// |pᵢ₋₁(μ)|
    previous: f64,
    /// |pᵢ(μ)|, negative if a Ritz value lies beyond μ.
    current: f64,
    /// Largest |pᵢ(μ)| so far.
    largest: f64,
    /// Last off-diagonal entry of the recurrence.
    beta: f64,
}

impl Bound {
    fn new(dim: usize, threshold: Threshold) -> Self {
        Self {
            dim,
            threshold,
            previous: 0.0,
            current: 1.0,
            largest: 1.0,
            beta: 0.0,
        }
    }

    /// Adds a row of the recurrence: the diagonal entry `alpha` and the off-diagonal entry `beta`, 0 if the Krylov space is
    /// exhausted.
    fn extend(&mut self, alpha: f64, beta: f64) {
        let rest = self.threshold.distance(alpha) * self.current - self.beta * self.previous;
        self.previous = self.current;
        self.current = match (beta == 0.0, rest < 0.0) {
            (false, _) => rest / beta,
            // An exhausted Krylov space contains every eigenvector that u has a component along.
            (true, false) => f64::INFINITY,
            (true, true) => f64::NEG_INFINITY,
        };
        self.largest = self.largest.max(self.current);
        self.beta = beta;
    }

    /// Whether a Ritz value lies beyond the threshold.
    fn has_found(&self) -> bool {
        self.current < 0.0
    }

    /// Upper bound on the probability that an eigenvalue lies beyond the threshold, if no Ritz value does.
    fn miss_probability(&self) -> f64 {
        ((2.0 * self.dim as f64 / PI).sqrt() / self.largest).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal};
    use crate::vector::dot;

    const N: usize = 300;

    fn unit(seed: u64) -> Vec<f64> {
        let mut u = normal(N, Purpose::Lanczos, seed, 0);
        let length = norm(&u);
        scale(&mut u, 1.0 / length);
        u
    }

    /// Returns the bound after each step of the recurrence of `start` on a diagonal matrix.
    fn bounds(diagonal: &[f64], start: &[f64], threshold: Threshold, steps: usize) -> Vec<f64> {
        let mut bound = Bound::new(N, threshold);
        let mut basis: Vec<Vec<f64>> = vec![start.to_vec()];
        (0..steps)
            .map(|i| {
                let mut w: Vec<f64> = basis[i].iter().zip(diagonal).map(|(v, d)| v * d).collect();
                let alpha = dot(&basis[i], &w);
                orthogonalize(&mut w, &basis);
                let beta = norm(&w);
                scale(&mut w, 1.0 / beta);
                basis.push(w);
                bound.extend(alpha, beta);
                bound.miss_probability()
            })
            .collect()
    }

    #[test]
    fn the_bound_holds_for_an_existing_eigenvector() {
        for sign in [1.0, -1.0] {
            let mut diagonal: Vec<f64> = (0..N).map(|i| 0.2 * (i as f64).sin()).collect();
            diagonal[7] = sign;
            let threshold = match sign > 0.0 {
                true => Threshold::Above(1.0),
                false => Threshold::Below(-1.0),
            };
            for seed in 0..20 {
                let u = unit(seed);
                let exact = u[7].abs() * (2.0 * N as f64 / PI).sqrt();
                for bound in bounds(&diagonal, &u, threshold, 6) {
                    assert!(bound >= exact.min(1.0) * (1.0 - 1e-9), "{bound} {exact}");
                }
            }
        }
    }

    #[test]
    fn the_bound_decreases_without_an_eigenvalue() {
        let diagonal: Vec<f64> = (0..N).map(|i| 0.2 * (i as f64).sin()).collect();
        for threshold in [Threshold::Above(1.0), Threshold::Below(-1.0)] {
            let found = bounds(&diagonal, &unit(0), threshold, 8);
            assert!(found[7] < 1e-5, "{found:?}");
        }
    }

    #[test]
    fn a_ritz_value_beyond_the_threshold_is_found() {
        for (threshold, found) in [
            (Threshold::Above(1.5), true),
            (Threshold::Above(2.5), false),
            (Threshold::Below(0.5), true),
            (Threshold::Below(-0.5), false),
        ] {
            // The recurrence of [[1, 1], [1, 1]], whose eigenvalues are 0 and 2.
            let mut bound = Bound::new(10, threshold);
            bound.extend(1.0, 1.0);
            bound.extend(1.0, 0.0);
            assert_eq!(bound.has_found(), found, "{threshold:?}");
            assert!(found || bound.miss_probability() == 0.0);
        }
    }
}
