//! [`Lanczos`]: the largest eigenvalues of a matrix known by its products.

use rayon::prelude::*;

use super::full::symmetric_eigen;
use super::{Eigenpair, Spectrum};
use crate::error::{Error, Result, check_finite};
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::vector::{axpy, dot, gaussian, norm, scale};

/// Lanczos' iteration (1950) with full reorthogonalisation, twice (Kahan and Parlett: "twice is
/// enough"), so that no eigenvalue comes out more often than it is there.
///
/// Where the Krylov space is exhausted before the matrix is, as with multiple eigenvalues, the
/// iteration goes on from a fresh random vector until a second one finds nothing new at the top.
#[derive(Clone, Debug, PartialEq)]
pub struct Lanczos {
    /// Largest residual, in units of the largest |λ|, at which a pair counts as found.
    pub tolerance: f64,
    /// Seed of the random start vectors.
    pub seed: u64,
    /// Products after which to give up and return what there is, besides one for each pair.
    pub max_products: usize,
}

impl Default for Lanczos {
    /// Tolerance 10⁻⁵, seed 0, at most 1,000 products.
    fn default() -> Self {
        Self {
            tolerance: 1e-5,
            seed: 0,
            max_products: 1_000,
        }
    }
}

/// Steps until the next look at the tridiagonal matrix, whose cost grows with their cube.
fn until_next_look(steps: usize) -> usize {
    (steps / 10).max(5)
}

impl Lanczos {
    /// The `k` largest eigenvalues of A = `operator`, with eigenvectors and residuals ‖Av − λv‖
    /// that are recomputed with one more product each.
    ///
    /// For m steps on an n × n matrix it keeps m vectors of length n.
    ///
    /// # Errors
    /// `k` = 0, `k` > n; products that fail or are not finite. Running out of products is no
    /// error: the result then says that it has not [converged](Spectrum::converged).
    pub fn largest(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Spectrum> {
        let n = operator.dim();
        if k == 0 || k > n {
            return Err(Error::invalid(format!(
                "{k} eigenvalues of a {n} × {n} matrix cannot be computed: ask for 1 to {n}"
            )));
        }
        let ritz = self.iterate(operator, k)?;
        let mut pairs = Vec::with_capacity(k);
        for (_, vector) in ritz.pairs {
            let mut image = operator.apply(&vector)?;
            let value = dot(&vector, &image);
            axpy(-value, &vector, &mut image);
            pairs.push(Eigenpair {
                value,
                residual: norm(&image),
                vector,
            });
        }
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Spectrum {
            products: ritz.products + pairs.len(),
            dim: n,
            converged: ritz.converged,
            pairs,
        })
    }

    fn iterate(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Ritz> {
        let n = operator.dim();
        let last = self.max_products.max(k).min(n);
        let mut progress = Progress::start("Lanczos");
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let (mut alpha, mut beta) = (Vec::new(), Vec::new());
        let mut starts = 0;
        let mut fresh = |basis: &[Vec<f64>]| loop {
            let mut q = gaussian(n, self.seed.wrapping_add(starts << 32));
            starts += 1;
            let before = norm(&q);
            orthogonalize(&mut q, basis);
            let length = norm(&q);
            // A vector that is lost to rounding is drawn again: n vectors fit, and fewer are there.
            if length > 1e-8 * before {
                scale(&mut q, 1.0 / length);
                return q;
            }
        };

        let mut next_look = until_next_look(0);
        let mut scale_of_a: f64 = 0.0;
        let mut exhausted: Option<Vec<f64>> = None;
        let mut q = fresh(&basis);
        loop {
            let mut w = operator.apply(&q)?;
            check_finite(&w, "the matrix-vector product")?;
            alpha.push(dot(&q, &w));
            scale_of_a = scale_of_a.max(norm(&w));
            basis.push(q);
            orthogonalize(&mut w, &basis);
            let length = norm(&w);
            let m = basis.len();
            let closed = length <= 1e-12 * scale_of_a;
            let coupling = if closed { 0.0 } else { length };

            let done = m == last;
            if done || closed || m >= next_look {
                next_look = m + until_next_look(m);
                let (values, vectors) = tridiagonal_eigen(&alpha, &beta)?;
                let top = |i: usize| m - 1 - i;
                let largest = values[0].abs().max(values[m - 1].abs());
                let error = |i: usize| coupling * vectors[top(i)][m - 1].abs();
                let found = (0..k.min(m))
                    .take_while(|&i| error(i) <= self.tolerance * largest)
                    .count();
                progress.tick(|| format!("{m} products, {found} of {k} eigenvalues found"));

                // A closed space holds every eigenvalue, but of a multiple one only one copy.
                let tops: Vec<f64> = (0..k.min(m)).map(|i| values[top(i)]).collect();
                let settled = match &exhausted {
                    _ if m == n => true,
                    None => !closed && found == k,
                    Some(before) => closed && found == k && same(before, &tops, largest),
                };
                if settled || done {
                    let combine = |i: usize| combination(&basis, &vectors[top(i)]);
                    return Ok(Ritz {
                        pairs: (0..k).map(|i| (values[top(i)], combine(i))).collect(),
                        products: m,
                        converged: settled,
                    });
                }
                if closed {
                    exhausted = Some(tops);
                }
            }
            if closed {
                q = fresh(&basis);
            } else {
                scale(&mut w, 1.0 / length);
                q = w;
            }
            beta.push(coupling);
        }
    }
}

struct Ritz {
    pairs: Vec<(f64, Vec<f64>)>,
    products: usize,
    converged: bool,
}

/// Takes the components along `basis` out of `w`, twice.
fn orthogonalize(w: &mut [f64], basis: &[Vec<f64>]) {
    const CHUNK: usize = 4096;
    for _ in 0..2 {
        let components: Vec<f64> = basis.par_iter().map(|q| dot(q, w)).collect();
        w.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, w)| {
            let start = chunk * CHUNK;
            for (c, q) in components.iter().zip(basis) {
                axpy(-c, &q[start..start + w.len()], w);
            }
        });
    }
}

/// Σⱼ cⱼ qⱼ, of length 1.
fn combination(basis: &[Vec<f64>], coefficients: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; basis[0].len()];
    for (c, q) in coefficients.iter().zip(basis) {
        axpy(*c, q, &mut sum);
    }
    let length = norm(&sum);
    scale(&mut sum, 1.0 / length);
    sum
}

fn tridiagonal_eigen(alpha: &[f64], beta: &[f64]) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    symmetric_eigen(alpha.len(), |i, j| match i.abs_diff(j) {
        0 => alpha[i],
        1 => beta[i.min(j)],
        _ => 0.0,
    })
}

fn same(a: &[f64], b: &[f64], size: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-10 * size)
}
