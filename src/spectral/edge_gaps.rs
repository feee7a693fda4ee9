//! Gaps at the edge of the spectrum of Gaussian orthogonal matrices.

use rand_distr::{ChiSquared, Distribution, StandardNormal};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::progress;
use crate::random::{Purpose, generator};

/// Number of gaps with which a gap is compared.
pub(super) const WINDOW: usize = 5;

/// Smallest size of the simulated matrices. Up to a quarter of their eigenvalues are near the edge.
const SIZE: usize = 256;

/// The gap after the first eigenvalue, over the sum of the [`WINDOW`] gaps after it. For each eigenvalue, largest first, `bounds`
/// are its lower and its upper bound; the result is a lower bound.
pub(super) fn log_gap(bounds: &[[f64; 2]]) -> f64 {
    let gap = bounds[0][0] - bounds[1][1];
    match gap > 0.0 {
        true => gap / (bounds[1][1] - bounds[1 + WINDOW][0]),
        false => 0.0,
    }
}

/// The largest of the first `tested` statistics of each of `draws` random matrices, without logarithms: near the edge of a large
/// matrix the logarithm is linear.
pub(super) fn largest_gaps(tested: usize, draws: usize, seed: u64) -> Result<Vec<f64>> {
    let n = SIZE.max(4 * (tested + WINDOW + 1));
    let draw = |index: usize| {
        progress::check()?;
        let values = gaussian_eigenvalues(n, seed, index as u64)?;
        let bounds: Vec<_> = values.iter().map(|value| [*value; 2]).collect();
        let gaps = (0..tested).map(|i| log_gap(&bounds[i..]));
        Ok(gaps.fold(0.0, f64::max))
    };
    (0..draws).into_par_iter().map(draw).collect()
}

/// The eigenvalues of a matrix of the Gaussian orthogonal ensemble, largest first, up to a scale. Householder's reduction to
/// tridiagonal form makes its entries independent: normal numbers of variance 2 on the diagonal, and χ with n − 1, …, 1 degrees of
/// freedom beside it (Dumitriu and Edelman, "Matrix Models for Beta Ensembles", 2002).
fn gaussian_eigenvalues(n: usize, seed: u64, index: u64) -> Result<Vec<f64>> {
    let mut generator = generator(Purpose::OutlierTest, seed, index);
    let mut diagonal = Vec::with_capacity(n);
    let mut beside = Vec::with_capacity(n);
    for freedom in (0..n).rev() {
        let normal: f64 = StandardNormal.sample(&mut generator);
        diagonal.push(normal * 2f64.sqrt());
        if freedom > 0 {
            let chi = ChiSquared::new(freedom as f64).map_err(|e| {
                Error::invalid(format!("χ² with {freedom} degrees of freedom: {e}"))
            })?;
            beside.push(chi.sample(&mut generator).sqrt());
        }
    }
    let mut values = tridiagonal_eigenvalues(diagonal, beside)?;
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

/// The eigenvalues of a symmetric tridiagonal matrix, by QL iterations with implicit Wilkinson shifts (Dubrulle, Martin and
/// Wilkinson, 1968).
fn tridiagonal_eigenvalues(mut diagonal: Vec<f64>, mut beside: Vec<f64>) -> Result<Vec<f64>> {
    const MAX_SWEEPS: usize = 60;
    let n = diagonal.len();
    beside.resize(n, 0.0);
    for first in 0..n {
        let mut sweeps = 0;
        loop {
            // The block from `first` to `last` is not split by a negligible entry.
            let is_negligible = |i: &usize| {
                let size = diagonal[*i].abs() + diagonal[i + 1].abs();
                beside[*i].abs() <= f64::EPSILON * size
            };
            let last = (first..n - 1).find(is_negligible).unwrap_or(n - 1);
            if last == first {
                break;
            }
            sweeps += 1;
            if sweeps > MAX_SWEEPS {
                return Err(Error::NotFinite(
                    "the eigenvalue iteration of a simulated matrix did not converge".into(),
                ));
            }
            let half = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
            let root = (half * half + 1.0).sqrt().copysign(half);
            let mut g = diagonal[last] - diagonal[first] + beside[first] / (half + root);
            let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
            let mut is_split = false;
            for i in (first..last).rev() {
                let (f, b) = (sine * beside[i], cosine * beside[i]);
                let r = (f * f + g * g).sqrt();
                beside[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= shift;
                    is_split = true;
                    break;
                }
                (sine, cosine) = (f / r, g / r);
                g = diagonal[i + 1] - shift;
                let change = (diagonal[i] - g) * sine + 2.0 * cosine * b;
                shift = sine * change;
                diagonal[i + 1] = g + shift;
                g = cosine * change - b;
            }
            if !is_split {
                diagonal[first] -= shift;
                beside[first] = g;
            }
            beside[last] = 0.0;
        }
    }
    Ok(diagonal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::symmetric_eigen;

    #[test]
    fn tridiagonal_eigenvalues_are_those_of_the_dense_matrix() -> Result<()> {
        let diagonal: Vec<f64> = (0..40).map(|i| f64::from(i * i % 7)).collect();
        let mut beside: Vec<f64> = (1..40).map(|i| f64::from(i % 5)).collect();
        beside[10] = 1e-20;
        let entry = |i: usize, j: usize| match i.abs_diff(j) {
            0 => diagonal[i],
            1 => beside[i.min(j)],
            _ => 0.0,
        };
        let (dense, _) = symmetric_eigen(40, entry)?;
        let mut values = tridiagonal_eigenvalues(diagonal.clone(), beside.clone())?;
        values.sort_by(f64::total_cmp);
        for (a, b) in values.iter().zip(&dense) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
        Ok(())
    }

    /// E λ² is n + 1 for these matrices.
    #[test]
    fn gaussian_matrices_have_the_semicircle() -> Result<()> {
        let values = (0..20).map(|index| gaussian_eigenvalues(200, 3, index));
        let values = values.collect::<Result<Vec<_>>>()?.concat();
        let square = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        assert!((square / 201.0 - 1.0).abs() < 0.01, "{square}");
        let inside = values.iter().filter(|x| x.abs() < 200f64.sqrt()).count();
        // Half of the radius 2√n contains 1/3 + √3/2π of the semicircle.
        let share = inside as f64 / values.len() as f64;
        assert!((share - 0.609).abs() < 0.01, "{share}");
        Ok(())
    }
}
