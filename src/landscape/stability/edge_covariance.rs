//! [`edge_covariance`]: the covariance of the oscillations that keep eigenvalues at the edge of stability.

use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::vector::dot;

/// Largest number of iterations.
const ITERATIONS: usize = 500;

/// Ends the iterations when no entry changes by more than this fraction of the largest.
const CHANGE: f64 = 1e-8;

/// Returns the positive semidefinite X for which `excess` − c Σ Xₖₗ ⟨gᵢⱼ, gₖₗ⟩ is negative semidefinite, with a product of 0 with X. gᵢⱼ are
/// the gradients of the entries uᵢᵀHuⱼ.
///
/// X minimises ½ c ‖Σ Xᵢⱼgᵢⱼ‖² − ⟨X, excess⟩ over the positive semidefinite matrices, here by projected gradient descent.
pub(super) fn edge_covariance(
    gradients: &[Vec<Vec<f64>>],
    excess: impl Fn(usize, usize) -> f64,
    c: f64,
) -> Result<Vec<Vec<f64>>> {
    let m = gradients.len();
    let flat: Vec<&Vec<f64>> = gradients.iter().flatten().collect();
    let symmetric = |i: usize| {
        let (row, column) = (i / m, i % m);
        0.5 * (excess(row, column) + excess(column, row))
    };
    let wanted: Vec<f64> = (0..m * m).map(symmetric).collect();
    let gram: Vec<Vec<f64>> = flat
        .iter()
        .map(|a| flat.iter().map(|b| c * dot(a, b)).collect())
        .collect();
    let (values, _) = symmetric_eigen(m * m, |i, j| gram[i.max(j)][i.min(j)])?;
    let largest = values.last().copied().unwrap_or_default();
    let mut x = vec![0.0; m * m];
    if largest <= 0.0 {
        return Ok(x.chunks(m).map(<[f64]>::to_vec).collect());
    }
    for _ in 0..ITERATIONS {
        let moved: Vec<f64> = (0..m * m)
            .map(|i| x[i] - (dot(&gram[i], &x) - wanted[i]) / largest)
            .collect();
        let entry = |i: usize, j: usize| 0.5 * (moved[i * m + j] + moved[j * m + i]);
        let (values, vectors) = symmetric_eigen(m, entry)?;
        let projected = |i: usize| {
            let (row, column) = (i / m, i % m);
            let terms = values.iter().zip(&vectors);
            terms
                .map(|(value, v)| value.max(0.0) * v[row] * v[column])
                .sum()
        };
        let next: Vec<f64> = (0..m * m).map(projected).collect();
        let size = next.iter().fold(0.0, |s: f64, x| s.max(x.abs()));
        let changes = next.iter().zip(&x).map(|(a, b)| (a - b).abs());
        let change = changes.fold(0.0, f64::max);
        x = next;
        if change <= CHANGE * size {
            break;
        }
    }
    Ok(x.chunks(m).map(<[f64]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One eigenvalue: the excess over the squared gradient, or 0 below the edge.
    #[test]
    fn one_eigenvalue_has_a_closed_form() {
        let gradients = [vec![vec![3.0, 4.0]]];
        let found = |excess: f64| edge_covariance(&gradients, |_, _| excess, 0.5).unwrap()[0][0];
        assert!((found(1.0) - 1.0 / 12.5).abs() < 1e-12);
        assert_eq!(found(-1.0), 0.0);
    }

    /// Two eigenvalues: the remaining excess is negative semidefinite, and 0 on the range of the covariance.
    #[test]
    fn two_eigenvalues_are_complementary() {
        let off = vec![0.1, 0.2, 0.5];
        let gradients = [
            vec![vec![1.0, 0.2, 0.0], off.clone()],
            vec![off, vec![0.3, 1.5, 0.1]],
        ];
        for excess in [
            [[1.0, 0.3], [0.3, 0.5]],
            [[1.0, 0.0], [0.0, -0.5]],
            [[-1.0, 0.1], [0.1, -2.0]],
        ] {
            let x = edge_covariance(&gradients, |i, j| excess[i][j], 0.5).unwrap();
            let rest = |i: usize, j: usize| {
                let terms = (0..4)
                    .map(|k| x[k / 2][k % 2] * dot(&gradients[i][j], &gradients[k / 2][k % 2]));
                excess[i][j] - 0.5 * terms.sum::<f64>()
            };
            let (values, _) = symmetric_eigen(2, rest).unwrap();
            let (own, _) = symmetric_eigen(2, |i, j| x[i][j]).unwrap();
            assert!(values[1] < 1e-6 && own[0] > -1e-12, "{values:?} {own:?}");
            let inner: f64 = (0..4).map(|k| x[k / 2][k % 2] * rest(k / 2, k % 2)).sum();
            assert!(inner.abs() < 1e-6, "{inner}");
        }
    }
}
