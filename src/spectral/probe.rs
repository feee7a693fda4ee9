//! A random search for eigenvalues that a space misses, with the probability of overlooking one.

use std::f64::consts::PI;

use super::full::symmetric_eigen;
use super::krylov::{Draws, orthogonalize};
use super::space::{Complement, ROUNDING};
use crate::error::Result;
use crate::operator::LinearOperator;
use crate::vector::{axpy, norm, scale};

/// Largest probability with which an eigenvalue beyond a threshold is missed.
pub(super) const MISS_PROBABILITY: f64 = 1e-3;

/// A bound beyond which no eigenvalue should have been missed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Threshold {
    /// Eigenvalues above this number are searched for.
    Above(f64),
    /// Eigenvalues below this number are searched for.
    Below(f64),
}

impl Threshold {
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Above(mu) | Self::Below(mu) => mu,
        }
    }

    /// How far `x` stays on the side where eigenvalues are allowed.
    fn distance(self, x: f64) -> f64 {
        match self {
            Self::Above(mu) => mu - x,
            Self::Below(mu) => x - mu,
        }
    }
}

/// The result of a search.
pub(super) enum Outcome {
    /// A unit vector, orthogonal to the basis, that shows an eigenvalue beyond the threshold.
    Found(Vec<f64>),
    /// No eigenvalue beyond the threshold was missed, but for a probability of [`MISS_PROBABILITY`].
    Nothing,
    /// The budget of products was too small to tell.
    Unknown,
}

/// Searches for eigenvalues beyond `threshold` that the space misses: those of its Schur complement `b`. The search is a
/// Lanczos recurrence that starts from one random vector and takes at most `budget` products; a vector that is found takes
/// as many again. Also returns the number of products.
pub(super) fn run(
    operator: &(impl LinearOperator + ?Sized),
    b: &Complement,
    threshold: Threshold,
    budget: usize,
    draws: &mut Draws,
) -> Result<(Outcome, usize)> {
    let start = b.random(draws);
    let mut chain = Chain::new(start.clone());
    let mut bound = Bound::new(b.dim(), threshold);
    while chain.len() < budget {
        chain.extend(operator, b)?;
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

/// A Lanczos recurrence that keeps only its last two vectors, so that it takes no memory. Their components along an
/// eigenvector follow the recurrence even when the vectors lose their orthogonality.
struct Chain {
    /// The last two vectors; none if the recurrence is closed.
    recent: Vec<Vec<f64>>,
    alpha: Vec<f64>,
    beta: Vec<f64>,
    /// The largest length of a product.
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
    fn extend(&mut self, operator: &(impl LinearOperator + ?Sized), b: &Complement) -> Result<()> {
        let last = self.recent.len() - 1;
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
            self.recent.remove(0);
        }
        Ok(())
    }

    /// The Ritz vector furthest beyond the threshold, by the same recurrence once more.
    fn ritz_vector(
        &self,
        threshold: Threshold,
        operator: &(impl LinearOperator + ?Sized),
        b: &Complement,
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

/// What the Lanczos recurrence of a random unit vector u proves about eigenvalues beyond a threshold μ.
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
    /// The largest |pᵢ(μ)|.
    largest: f64,
    /// The last off-diagonal entry of the recurrence.
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

    /// Adds a row of the recurrence: the diagonal entry `alpha` and the off-diagonal entry `beta`, 0 if it is closed.
    fn extend(&mut self, alpha: f64, beta: f64) {
        let rest = self.threshold.distance(alpha) * self.current - self.beta * self.previous;
        self.previous = self.current;
        self.current = match (beta == 0.0, rest < 0.0) {
            (false, _) => rest / beta,
            // A closed recurrence contains every eigenvector that u has a component along.
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

    /// An upper bound of the probability that an eigenvalue lies beyond the threshold, as long as no Ritz value does.
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

    /// The bound after each step of the recurrence of `start` on a diagonal matrix.
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
    fn the_bound_holds_for_an_eigenvector_that_is_there() {
        for sign in [1.0, -1.0] {
            let mut diagonal: Vec<f64> = (0..N).map(|i| 0.2 * (i as f64).sin()).collect();
            diagonal[7] = sign;
            let threshold = match sign > 0.0 {
                true => Threshold::Above(1.0),
                false => Threshold::Below(-1.0),
            };
            for seed in 0..20 {
                let u = unit(seed);
                let chance = u[7].abs() * (2.0 * N as f64 / PI).sqrt();
                for bound in bounds(&diagonal, &u, threshold, 6) {
                    assert!(bound >= chance.min(1.0) * (1.0 - 1e-9), "{bound} {chance}");
                }
            }
        }
    }

    #[test]
    fn the_bound_falls_where_no_eigenvalue_is() {
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
