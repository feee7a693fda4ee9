//! [`Simple`]: eigenvalues that occur once, recognised from what several probes find.

use super::Quadrature;
use super::krylov::{combine, products};
use crate::vector::largest;

/// A pair counts as found once its residual is below this share of the largest |node|.
const FOUND: f64 = 1e-3;

/// Two probes that found the same eigenvector u agree on vᵀu, for v of length √n, to this.
const AGREED: f64 = 1e-3;

/// Below this many rows two probes are equal up to their sign too often to tell anything.
const FEWEST_ROWS: usize = 16;

/// Eigenvalues of multiplicity 1 with their eigenvectors.
///
/// A probe v finds of an eigenvalue's eigenspace only v's projection. Of a simple eigenvalue's this is the one eigenvector u
/// for every probe, and the quadrature's weight is (vᵀu)²; where several eigenvectors belong to the eigenvalue, or to a
/// cluster that is not resolved, another probe's weight is larger than that.
///
/// A simple eigenvalue's share of the spectrum is 1/n, without any error.
pub(super) struct Simple {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl Simple {
    /// What a first probe finds: its nodes with their vectors in terms of `basis`, and their residuals.
    pub(super) fn candidates(
        nodes: &[f64],
        vectors: &[Vec<f64>],
        residuals: &[f64],
        basis: &[Vec<f64>],
    ) -> Self {
        let size = largest(nodes);
        let enough = basis[0].len() >= FEWEST_ROWS;
        let found: Vec<usize> = (0..nodes.len())
            .filter(|i| enough && residuals[*i] <= FOUND * size)
            .collect();
        let coefficients: Vec<Vec<f64>> = found.iter().map(|i| vectors[*i].clone()).collect();
        Self {
            values: found.iter().map(|i| nodes[*i]).collect(),
            vectors: combine(basis, &coefficients),
        }
    }

    /// Keeps those that a further probe, with this unit start vector, agrees on.
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
                new && length * (found - expected.abs()).abs() <= AGREED
            })
            .collect();
        let (mut values, mut vectors) = (agrees.iter(), agrees.iter());
        self.values.retain(|_| *values.next().unwrap_or(&false));
        self.vectors.retain(|_| *vectors.next().unwrap_or(&false));
    }

    /// Gives these eigenvalues of an n × n matrix their weight 1/n, and the other nodes what is left.
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

/// Index of the node next to x.
fn nearest(nodes: &[f64], x: f64) -> usize {
    let above = nodes.partition_point(|node| *node < x);
    let below = above.saturating_sub(1);
    match above < nodes.len() && (nodes[above] - x).abs() < (nodes[below] - x).abs() {
        true => above,
        false => below,
    }
}
