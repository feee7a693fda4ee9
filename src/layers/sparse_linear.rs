//! [`SparseLinear`]: the rules of a [`Linear`](super::Linear) layer whose inputs are mostly zeros.

use std::ops::Range;

use super::linear::LinearRules;
use super::row_product::RowProduct;
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Window, Write};
use crate::kernels::Scalar;
use crate::kernels::elementwise::{add_rows, repeat};
use crate::kernels::sparse::{SparseTile, multiply_sparse};
use crate::kernels::transpose::add_transposed;

/// A first layer y = x Wᵀ + b that multiplies only by the non-zeros of x, so rx is always zero.
///
/// Weights, and gradients, are inputs × (k · outputs) matrices: the rows that belong to an input of zero are skipped. b follows for each
/// direction.
pub(super) struct SparseLinear {
    /// The same layer with all inputs. It has a single weight.
    pub(super) dense: LinearRules,
}

impl SparseLinear {
    fn compress<T: Scalar>(&self, x: &[T]) -> SparseTile<T> {
        SparseTile::new(x, self.dense.inputs)
    }

    /// Writes or adds the outputs for weights of `k` directions.
    fn multiply<T: Scalar>(&self, weights: &[T], k: usize, x: &SparseTile<T>, y: &mut [T]) {
        let width = k * self.dense.outputs;
        let (weights, biases) = weights.split_at(self.dense.inputs * width);
        if self.dense.has_bias() {
            repeat(biases, y);
        }
        multiply_sparse(y, x.rows(), weights, width, self.dense.has_bias());
    }
}

impl<T: Scalar> Rules<T> for SparseLinear {
    fn output_len(&self) -> usize {
        Rules::<T>::output_len(&self.dense)
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn multiplies_directions_apart(&self) -> bool {
        Rules::<T>::multiplies_directions_apart(&self.dense)
    }

    fn reads_zero_directions(&self) -> bool {
        false
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn sparse_row(&self) -> Option<usize> {
        Some(self.dense.inputs)
    }

    fn transposed_gradient(&self) -> Option<[usize; 2]> {
        Some([self.dense.inputs, self.dense.outputs])
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        Rules::<T>::param_ranges(&self.dense)
    }

    fn row_products(&self) -> Vec<RowProduct> {
        Rules::<T>::row_products(&self.dense)
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let (inputs, outputs) = (self.dense.inputs, self.dense.outputs);
        let width = vectors.len() * outputs;
        let mut packed = vec![T::ZERO; inputs * width];
        for (j, vector) in vectors.iter().enumerate() {
            let weight = &vector[self.dense.weights[0].clone()];
            let (shape, pitches) = ([outputs, inputs], [inputs, width]);
            add_transposed(weight, &mut packed[j * outputs..], shape, pitches);
        }
        for range in &self.dense.biases {
            for vector in vectors {
                packed.extend_from_slice(&vector[range.clone()]);
            }
        }
        packed
    }

    fn pack_backward(&self, vectors: &[&[T]]) -> Vec<T> {
        self.dense.pack_backward(vectors)
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.multiply(&theta.forward, 1, &self.compress(x), y);
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let directions = tangent.directions;
        if directions.is_zero {
            return ry.fill(T::ZERO);
        }
        let weights = &directions.forward;
        match primal.sparse {
            Some(x) => self.multiply(weights, tangent.count(), x, ry),
            None => self.multiply(weights, tangent.count(), &self.compress(primal.x), ry),
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        self.dense.backward_tangent(primal, tangent, rdx, mode);
    }

    fn gradient_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        _mode: Mode,
    ) {
        let width = tangent.count() * self.dense.outputs;
        let (weights, biases) = gradient.split_at_mut(self.dense.inputs * width);
        let add = write == Write::Add;
        match primal.sparse {
            Some(x) => multiply_sparse(weights, x.columns(), tangent.rdy, width, add),
            None => {
                let x = self.compress(primal.x);
                multiply_sparse(weights, x.columns(), tangent.rdy, width, add);
            }
        }
        write.prepare(biases);
        if self.dense.has_bias() {
            add_rows(tangent.rdy, biases);
        }
    }

    /// Each input's row has the outputs of all directions.
    fn add_gradient(&self, gradient: &[T], window: &mut Window) {
        let (inputs, outputs) = (self.dense.inputs, self.dense.outputs);
        let width = window.vectors.len() * outputs;
        let (weights, biases) = gradient.split_at(inputs * width);
        let weight = &self.dense.weights[0];
        let overlap = window.overlap(weight);
        let rows = match overlap.is_empty() {
            true => 0..0,
            false => {
                let [first, end] = [overlap.start, overlap.end].map(|i| i - weight.start);
                first / outputs..end.div_ceil(outputs)
            }
        };
        for j in 0..window.vectors.len() {
            for input in rows.clone() {
                let start = weight.start + input * outputs;
                let row = &weights[input * width + j * outputs..][..outputs];
                window.add(j, start..start + outputs, row);
            }
            for range in &self.dense.biases {
                window.add(j, range.clone(), &biases[j * outputs..][..outputs]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check};

    /// With and without a bias, and with rows of zeros.
    #[test]
    fn derivatives_match_differences() {
        for (positions, inputs, outputs, samples, k) in
            [(1, 5, 4, 3, 2), (1, 70, 17, 66, 3), (3, 6, 4, 2, 1)]
        {
            let weight = 2..2 + inputs * outputs;
            let bias = weight.end..weight.end + outputs;
            for biases in [vec![bias.clone()], vec![]] {
                let dense = LinearRules {
                    positions,
                    inputs,
                    outputs,
                    weights: vec![weight.clone()],
                    biases,
                };
                let sizes = [positions * inputs, positions * outputs, bias.end + 1];
                let mut tile = Tile::random(sizes, samples, k, 3);
                tile.rx = None;
                for (i, x) in tile.x.iter_mut().enumerate() {
                    if i % 3 > 0 || i / inputs == 1 {
                        *x = 0.0;
                    }
                }
                check(&SparseLinear { dense }, &tile, 1e-10);
            }
        }
    }
}
