//! [`RelativeFlatness`]: the trace of each layer's Hessian, weighted by the products of its units' weights.

use serde::{Deserialize, Serialize};

use super::weights::{WeightMatrix, weight_matrices, write_layers};
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::objective::Objective;
use crate::operator::{Block, Hessian, LinearOperator};
use crate::spectral::{Estimate, Trace};
use crate::vector::axpy;

/// The relative flatness of each layer (Petzka, Kamp, Adilova, Sminchisescu and Boley, "Relative Flatness and Generalization",
/// 2021),
///
/// κ = Σ ⟨wₛ, wₜ⟩ tr(Hₛₜ)
///
/// over the pairs of units s, t of the layer, with rows wₛ of its weight matrix and the blocks Hₛₜ of the Hessian of these rows.
/// It does not change under rescalings of layers that leave the function unchanged. Low values mean flat.
///
/// The theorem behind it bounds the generalisation gap at a minimum by κ of one layer, whose inputs are taken as features. It
/// assumes that labels change little where the features change little. κ is computed for each parameter with two or more axes, of
/// which the first numbers the units; the paper is on fully connected layers.
///
/// κ is the trace of (F ⊗ 1)ᵀ H (F ⊗ 1) with FFᵀ = WWᵀ, which [`Trace`] estimates.
///
/// ```
/// use loss_landscape::landscape::RelativeFlatness;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w², whose layer has the weight w = 3: κ = w² ∂²L/∂w² = 9 · 8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 3.0])?;
/// let found = RelativeFlatness::measure(&Objective::of(&model, &data, Loss::Mse)?)?;
/// assert_eq!(found.layers[0].0, "layers.0.weight");
/// assert!((found.layers[0].1.value - 72.0).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RelativeFlatness {
    /// Name of each weight, and κ.
    pub layers: Vec<(String, Estimate)>,
}

impl RelativeFlatness {
    /// Estimates κ of each layer at the model's θ, by the default settings of [`Trace`].
    ///
    /// # Errors
    /// A product that fails or is not finite; no parameter with two axes.
    pub fn measure(objective: &Objective) -> Result<Self> {
        let theta = objective.parameters().to_flat()?;
        let hessian = objective.hessian().at(theta)?;
        let layers = weight_matrices(objective)?.into_iter().map(|weight| {
            let operator = Weighted::new(&hessian, &weight)?;
            Ok((weight.name, Trace::default().trace(&operator)?))
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

/// (F ⊗ 1)ᵀ H (F ⊗ 1) for a factor F of WWᵀ, on matrices with the rows of F's columns and the columns of W.
struct Weighted<'a> {
    hessian: Block<&'a Hessian>,
    /// F, row by row.
    factor: Vec<f64>,
    units: usize,
    rank: usize,
    inputs: usize,
}

impl<'a> Weighted<'a> {
    fn new(hessian: &'a Hessian, weight: &WeightMatrix) -> Result<Self> {
        let (units, inputs) = (weight.units, weight.inputs);
        let (factor, rank) = match units <= inputs {
            true => (root_of_gram(weight)?, units),
            false => (weight.values.clone(), inputs),
        };
        Ok(Self {
            hessian: Block::new(hessian, weight.range.clone())?,
            factor,
            units,
            rank,
            inputs,
        })
    }
}

/// A square F with FFᵀ = WWᵀ, row by row: the eigenvectors of WWᵀ times the roots of the eigenvalues.
fn root_of_gram(weight: &WeightMatrix) -> Result<Vec<f64>> {
    let n = weight.units;
    let (values, vectors) = symmetric_eigen(n, |i, j| weight.gram(i.min(j), i.max(j)))?;
    let mut factor = vec![0.0; n * n];
    for (column, (value, vector)) in values.iter().zip(&vectors).enumerate() {
        for (row, entry) in vector.iter().enumerate() {
            factor[row * n + column] = value.max(0.0).sqrt() * entry;
        }
    }
    Ok(factor)
}

impl LinearOperator for Weighted<'_> {
    fn dim(&self) -> usize {
        self.rank * self.inputs
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut moved = Vec::with_capacity(vectors.len());
        for v in vectors {
            let mut product = vec![0.0; self.units * self.inputs];
            for (row, out) in self
                .factor
                .chunks(self.rank)
                .zip(product.chunks_mut(self.inputs))
            {
                for (f, v) in row.iter().zip(v.chunks(self.inputs)) {
                    axpy(*f, v, out);
                }
            }
            moved.push(product);
        }
        let products = self.hessian.apply_block(&moved)?;
        let back = products.iter().map(|product| {
            let mut back = vec![0.0; self.dim()];
            for (row, product) in self
                .factor
                .chunks(self.rank)
                .zip(product.chunks(self.inputs))
            {
                for (f, out) in row.iter().zip(back.chunks_mut(self.inputs)) {
                    axpy(*f, product, out);
                }
            }
            back
        });
        Ok(back.collect())
    }

    fn epsilon(&self) -> f64 {
        self.hessian.epsilon()
    }
}

impl std::fmt::Display for RelativeFlatness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_layers(f, "relative flatness", &self.layers)
    }
}
