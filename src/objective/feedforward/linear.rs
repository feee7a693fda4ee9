//! [`Linear`]: y = x Wᵀ + b.

use std::ops::Range;

use super::Scalar;
use super::layer::{Arranged, At, Layer};
use super::matrix::{Matrix, multiply};
use crate::simd::vectorised;

/// A dense layer with W of `outputs` × `inputs` and b at these places of θ.
///
/// Its gradient holds W for each direction, then b for each.
pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) weight: Range<usize>,
    pub(super) bias: Range<usize>,
}

impl<T: Scalar> Layer<T> for Linear {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn places(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone(), self.bias.clone()]
    }

    /// V₁, V₂, …, each outputs × inputs, then the biases b₁, b₂, ….
    fn arrange_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut arranged = Vec::with_capacity(vectors.len() * (self.inputs + 1) * self.outputs);
        for place in [&self.weight, &self.bias] {
            for vector in vectors {
                arranged.extend_from_slice(&vector[place.clone()]);
            }
        }
        arranged
    }

    /// [V₁ V₂ …], outputs × (k · inputs).
    fn arrange_backward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut arranged = Vec::with_capacity(vectors.len() * self.weight.len());
        for row in 0..self.outputs {
            for vector in vectors {
                let weight = &vector[self.weight.clone()];
                arranged.extend_from_slice(&weight[row * self.inputs..][..self.inputs]);
            }
        }
        arranged
    }

    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], _notes: &mut [T]) {
        let (weights, bias) = theta.forward.split_at(self.inputs * self.outputs);
        let samples = y.len() / self.outputs;
        repeat(bias, y);
        let weights = Matrix::new(weights, self.outputs, self.inputs).t();
        multiply(y, Matrix::new(x, samples, self.inputs), weights, true);
    }

    fn forward_tangent(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
        at: &At<T>,
        rx: Option<&[T]>,
        ry: &mut [T],
    ) {
        let (inputs, outputs, k) = (self.inputs, self.outputs, directions.count);
        let (weights, biases) = directions.forward.split_at(k * inputs * outputs);
        repeat(biases, ry);
        let weights = Matrix::new(weights, k * outputs, inputs).t();
        multiply(ry, Matrix::new(at.x, at.samples, inputs), weights, true);
        if let Some(rx) = rx {
            let weights = Matrix::new(&theta.forward, outputs, inputs).t();
            multiply(ry, Matrix::new(rx, at.samples * k, inputs), weights, true);
        }
    }

    fn backward_tangent(
        &self,
        (theta, at): (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        _rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    ) {
        let (inputs, outputs, k) = (self.inputs, self.outputs, directions.count);
        let weights = Matrix::new(&theta.backward, outputs, inputs);
        multiply(
            rdx,
            Matrix::new(rdy, at.samples * k, outputs),
            weights,
            false,
        );
        if !gauss_newton {
            let weights = Matrix::new(&directions.backward, outputs, k * inputs);
            multiply(rdx, Matrix::new(at.dy, at.samples, outputs), weights, true);
        }
    }

    fn gradient_tangent(
        &self,
        (_, at): (&Arranged<T>, &At<T>),
        rx: Option<&[T]>,
        rdy: &[T],
        gradient: &mut [T],
        first: bool,
        gauss_newton: bool,
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let k = rdy.len() / (at.samples * outputs);
        let (weights, biases) = gradient.split_at_mut(k * self.weight.len());
        let rows = Matrix::new(rdy, at.samples, k * outputs);
        multiply(
            weights,
            rows.t(),
            Matrix::new(at.x, at.samples, inputs),
            !first,
        );
        sum_rows(rdy, biases, first);
        if let (Some(rx), false) = (rx, gauss_newton) {
            let dy = Matrix::new(at.dy, at.samples, outputs);
            for (j, weight) in weights.chunks_exact_mut(self.weight.len()).enumerate() {
                let rx = Matrix::strided(&rx[j * inputs..], at.samples, inputs, k * inputs);
                multiply(weight, dy.t(), rx, true);
            }
        }
    }

    fn add_gradient(&self, gradient: &[T], vectors: &mut [Vec<f64>]) {
        let (weights, biases) = gradient.split_at(vectors.len() * self.weight.len());
        for (j, vector) in vectors.iter_mut().enumerate() {
            let add = |target: &mut [f64], part: &[T]| {
                for (t, p) in target.iter_mut().zip(part) {
                    *t += p.f64();
                }
            };
            let (w, b) = (self.weight.len(), self.bias.len());
            add(&mut vector[self.weight.clone()], &weights[j * w..][..w]);
            add(&mut vector[self.bias.clone()], &biases[j * b..][..b]);
        }
    }
}

vectorised! {
    /// Writes `row` into every row.
    fn repeat<T: Scalar>(row: &[T], rows: &mut [T]) {
        for target in rows.chunks_exact_mut(row.len()) {
            target.copy_from_slice(row);
        }
    }

    /// Adds the rows up, onto `sum` unless `first`.
    fn sum_rows<T: Scalar>(rows: &[T], sum: &mut [T], first: bool) {
        if first {
            sum.fill(T::ZERO);
        }
        for row in rows.chunks_exact(sum.len()) {
            for (s, r) in sum.iter_mut().zip(row) {
                *s += *r;
            }
        }
    }
}
