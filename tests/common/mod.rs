//! Matrices whose spectrum is known, and numbers to fill others with.
#![allow(dead_code)] // no test uses all of them

use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;

/// Numbers in [-1, 1] that look random and never change.
pub fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Every entry within `tolerance` times the largest expected one.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * size,
            "entry {i}: {f} is not {e} (largest {size})"
        );
    }
}

/// A diagonal matrix.
pub struct OnDiagonal(pub Vec<f64>);

impl LinearOperator for OnDiagonal {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        Ok(v.iter().zip(&self.0).map(|(v, d)| v * d).collect())
    }
}

/// 2 on the diagonal, −1 beside it: eigenvalues 2 − 2cos(kπ/(n+1)).
pub struct Laplacian(pub usize);

impl Laplacian {
    /// Its eigenvalues, largest first.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let angle = |k: usize| k as f64 * std::f64::consts::PI / (self.0 as f64 + 1.0);
        (1..=self.0)
            .rev()
            .map(|k| 2.0 - 2.0 * angle(k).cos())
            .collect()
    }
}

impl LinearOperator for Laplacian {
    fn dim(&self) -> usize {
        self.0
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let at = |i: isize| {
            if i < 0 {
                0.0
            } else {
                *v.get(i as usize).unwrap_or(&0.0)
            }
        };
        let entry = |i: isize| 2.0 * at(i) - at(i - 1) - at(i + 1);
        Ok((0..v.len() as isize).map(entry).collect())
    }
}

/// A dense matrix with these eigenvalues and random eigenvectors.
pub fn with_eigenvalues(eigenvalues: &[f64], seed: u64) -> Dense {
    let n = eigenvalues.len();
    let mut matrix = Array2::from_diag(&loss_landscape::ndarray::arr1(eigenvalues));
    // Reflections I − 2uuᵀ from both sides.
    for round in 0..6 {
        let mut u = loss_landscape::ndarray::Array1::from(numbers(n, 100 * seed + round + 1));
        u /= u.dot(&u).sqrt();
        let outer = |a: &loss_landscape::ndarray::Array1<f64>,
                     b: &loss_landscape::ndarray::Array1<f64>| {
            Array2::from_shape_fn((n, n), |(i, j)| a[i] * b[j])
        };
        let left = u.dot(&matrix);
        matrix = &matrix - &(outer(&u, &left) * 2.0);
        let right = matrix.dot(&u);
        matrix = &matrix - &(outer(&right, &u) * 2.0);
    }
    Dense::new(matrix).unwrap()
}

/// An operator whose products fail.
pub struct Broken;

impl LinearOperator for Broken {
    fn dim(&self) -> usize {
        40
    }

    fn apply(&self, _: &[f64]) -> Result<Vec<f64>, Error> {
        Err(Error::Invalid("no more today".into()))
    }
}
