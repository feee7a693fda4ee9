//! [`SimpleEigenvalues`]: eigenvalues of multiplicity 1, recognised by comparing several probes.

use super::Quadrature;
use super::orthonormal::{combine, products};
use crate::vector::largest;

/// Largest residual of a converged pair, relative to the largest |node|.
const MAX_RESIDUAL: f64 = 1e-3;

/// Largest difference of vᵀu, for v of length √n, between two probes that found the same eigenvector u.
const MAX_DIFFERENCE: f64 = 1e-3;

/// Smallest number of rows. With fewer, two probes are too often equal up to their sign.
const MIN_ROWS: usize = 16;

/// Eigenvalues of multiplicity 1 with their eigenvectors.
///
/// The Krylov space of a probe v contains only the projection of v onto an eigenspace. For a simple eigenvalue this is the
/// eigenvector u for every probe, and the weight in the quadrature is (vᵀu)². If the eigenvalue has several eigenvectors, or is
/// an unresolved cluster, the weight of another probe is larger.
///
/// The exact weight of a simple eigenvalue in the spectral density is 1/n.
pub(super) struct SimpleEigenvalues {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl SimpleEigenvalues {
    /// The converged nodes of a first probe, with their vectors in coordinates of `basis` and their residuals.
    pub(super) fn candidates(
        nodes: &[f64],
        vectors: &[Vec<f64>],
        residuals: &[f64],
        basis: &[Vec<f64>],
    ) -> Self {
        let size = largest(nodes);
        let enough = basis[0].len() >= MIN_ROWS;
        let found: Vec<usize> = (0..nodes.len())
            .filter(|i| enough && residuals[*i] <= MAX_RESIDUAL * size)
            .collect();
        let coefficients: Vec<Vec<f64>> = found.iter().map(|i| vectors[*i].clone()).collect();
        Self {
            values: found.iter().map(|i| nodes[*i]).collect(),
            vectors: combine(basis, &coefficients),
        }
    }

    /// Keeps the eigenvalues that another probe, with this unit start vector, confirms.
    pub(super) fn confirm(&mut self, start: &[f64], quadrature: &Quadrature) {
        if self.values.is_empty() {
            return;
        }
        let length = (start.len() as f64).sqrt();
        let expected = products(&self.vectors, &[start.to_vec()]).concat();
        let mut taken = vec![false; quadrature.nodes.len()];
        let agrees: Vec<bool> = (self.values.iter().zip(expected))
            .map(|(value, expected)| {
                let i = nearest(&quadrature.nodes, *value);
                let found = quadrature.weights[i].sqrt();
                let new = !std::mem::replace(&mut taken[i], true);
                new && length * (found - expected.abs()).abs() <= MAX_DIFFERENCE
            })
            .collect();
        let (mut values, mut vectors) = (agrees.iter(), agrees.iter());
        self.values.retain(|_| *values.next().unwrap_or(&false));
        self.vectors.retain(|_| *vectors.next().unwrap_or(&false));
    }

    /// Sets the weight of these eigenvalues of an n × n matrix to 1/n, and scales the other weights so that all sum to 1.
    pub(super) fn apply(&self, quadrature: &mut Quadrature, n: usize) {
        let mut simple = vec![false; quadrature.nodes.len()];
        for value in &self.values {
            simple[nearest(&quadrature.nodes, *value)] = true;
        }
        let rest: f64 = (quadrature.weights.iter().zip(&simple))
            .filter(|(_, simple)| !**simple)
            .map(|(weight, _)| weight)
            .sum();
        let left = 1.0 - self.values.len() as f64 / n as f64;
        for (weight, simple) in quadrature.weights.iter_mut().zip(&simple) {
            *weight = match simple {
                true => 1.0 / n as f64,
                false => *weight * left / rest,
            };
        }
    }
}

/// Index of the node nearest to x.
fn nearest(nodes: &[f64], x: f64) -> usize {
    let above = nodes.partition_point(|node| *node < x);
    let below = above.saturating_sub(1);
    match above < nodes.len() && (nodes[above] - x).abs() < (nodes[below] - x).abs() {
        true => above,
        false => below,
    }
}
