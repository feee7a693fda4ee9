//! [`Eigenbasis`]: a block as a diagonal matrix in the eigenbasis of a Kronecker product.

use std::ops::Range;

use crate::engine::FactorBlock;
use crate::error::{Result, check_finite};
use crate::kernels::matrix::{Matrix, multiply};
use crate::kernels::symmetric_eigen;

/// The matrix (U ⊗ V)ᵀ diag(values) (U ⊗ V) on the parameters [W b] of a layer, where the rows of U and V are the eigenvectors of
/// the factors.
#[derive(Debug)]
pub(super) struct Eigenbasis {
    weights: Vec<Range<usize>>,
    biases: Vec<Range<usize>>,
    /// Number of columns of [W b].
    inputs: usize,
    outputs: usize,
    /// V, shape (inputs, inputs).
    input_vectors: Vec<f64>,
    /// U, shape (outputs, outputs).
    output_vectors: Vec<f64>,
    /// Eigenvalues, shape (outputs, inputs).
    pub(super) values: Vec<f64>,
}

impl Eigenbasis {
    /// The Kronecker product of two factors.
    pub(super) fn new(block: FactorBlock) -> Result<Self> {
        let eigen = |n: usize, factor: &[f64], side: &str| {
            check_finite(factor, &format!("the Kronecker factor of a layer's {side}"))?;
            let (values, vectors) = symmetric_eigen(n, |i, j| factor[i * n + j])?;
            // Eigenvalues of a sum of squares below zero are rounding.
            let values: Vec<f64> = values.into_iter().map(|value| value.max(0.0)).collect();
            Ok::<_, crate::error::Error>((values, vectors.concat()))
        };
        let (of_inputs, input_vectors) = eigen(block.inputs, &block.input_factor, "inputs")?;
        let (of_outputs, output_vectors) = eigen(block.outputs, &block.output_factor, "outputs")?;
        let rows = of_outputs.iter();
        let values = rows.flat_map(|b| of_inputs.iter().map(move |a| b * a));
        Ok(Self {
            values: values.collect(),
            weights: block.weights,
            biases: block.biases,
            inputs: block.inputs,
            outputs: block.outputs,
            input_vectors,
            output_vectors,
        })
    }

    /// V and U.
    pub(super) fn vectors(&self) -> [Vec<f64>; 2] {
        [self.input_vectors.clone(), self.output_vectors.clone()]
    }

    /// Multiplies the block's part of v, in the eigenbasis, by `f` of each eigenvalue. Returns [W b] of the product.
    pub(super) fn apply(&self, v: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
        let (m, n) = (self.outputs, self.inputs);
        let columns = |vectors| Matrix::new(vectors, n, n);
        let rows = |vectors| Matrix::new(vectors, m, m);
        let mut a = self.gather(v);
        let mut b = vec![0.0; m * n];
        multiply(
            &mut b,
            rows(&self.output_vectors),
            Matrix::new(&a, m, n),
            false,
        );
        multiply(
            &mut a,
            Matrix::new(&b, m, n),
            columns(&self.input_vectors).t(),
            false,
        );
        for (a, value) in a.iter_mut().zip(&self.values) {
            *a *= f(*value);
        }
        multiply(
            &mut b,
            rows(&self.output_vectors).t(),
            Matrix::new(&a, m, n),
            false,
        );
        multiply(
            &mut a,
            Matrix::new(&b, m, n),
            columns(&self.input_vectors),
            false,
        );
        a
    }

    /// [W b] of a vector in θ-space.
    fn gather(&self, v: &[f64]) -> Vec<f64> {
        let width = self.width();
        let rows = self
            .weights
            .iter()
            .flat_map(|range| v[range.clone()].chunks_exact(width));
        let mut biases = self.biases.iter().flat_map(|range| &v[range.clone()]);
        let mut gathered = Vec::with_capacity(self.outputs * self.inputs);
        for row in rows {
            gathered.extend_from_slice(row);
            gathered.extend(biases.next());
        }
        gathered
    }

    /// Writes [W b] to a vector in θ-space.
    pub(super) fn scatter(&self, gathered: &[f64], v: &mut [f64]) {
        let width = self.width();
        let mut rows = gathered.chunks_exact(self.inputs);
        for range in &self.weights {
            for (row, gathered) in v[range.clone()].chunks_exact_mut(width).zip(&mut rows) {
                row.copy_from_slice(&gathered[..width]);
            }
        }
        let last = gathered.iter().skip(width).step_by(self.inputs);
        let biases = self.biases.iter().flat_map(Clone::clone);
        for (i, bias) in biases.zip(last) {
            v[i] = *bias;
        }
    }

    /// Number of columns of W.
    fn width(&self) -> usize {
        self.inputs - usize::from(!self.biases.is_empty())
    }

    /// Ranges of the block in θ.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range<usize>> {
        self.weights.iter().chain(&self.biases)
    }
}
