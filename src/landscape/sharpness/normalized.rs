//! [`NormalizedSharpness`]: the curvature of each layer times the size of its weights, in the best units.

use serde::{Deserialize, Serialize};

use super::weights::{WeightMatrix, weight_matrices, write_layers};
use crate::error::Result;
use crate::objective::Objective;
use crate::operator::{Block, LinearOperator, Scaled};
use crate::spectral::{Diagonal, Estimate, Spectral, Trace};

/// The normalised sharpness of each layer (Tsuzuku, Sato and Sugiyama, "Normalized Flat Minima", 2020),
///
/// min Σ hᵢⱼ aᵢ²bⱼ² + wᵢⱼ²/(aᵢ²bⱼ²) over scales a, b > 0 of the rows and columns of its weights W,
///
/// where h is the diagonal of the Gauss-Newton matrix. aᵢbⱼ is the standard deviation of Gaussian noise on wᵢⱼ: the first part is
/// twice the noise's increase of the loss, to second order, and the second is the part of a PAC-Bayes bound that grows with
/// the weights. The minimum does not change if the inputs or outputs of units are rescaled such that the function stays the same.
///
/// The scales are found for an estimate of h from [`SAMPLES`](Self::SAMPLES) products with the layer's block, or for h itself in
/// layers with at most as many weights. Their value is then estimated anew, with other random vectors, so that its error is that
/// of a trace. With an estimate of h it is an upper bound of the minimum.
///
/// ```
/// use loss_landscape::landscape::NormalizedSharpness;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² with w = 3: min 8a² + 9/a² = 2√(8 · 9).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 3.0])?;
/// let found = NormalizedSharpness::measure(&Objective::of(&model, &data, Loss::Mse)?, 0)?;
/// assert!((found.layers[0].1.value - 2.0 * 72f64.sqrt()).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NormalizedSharpness {
    /// Name of each weight, and its normalised sharpness.
    pub layers: Vec<(String, Estimate)>,
}

/// Largest relative decrease of the objective in a round that counts as converged.
const CONVERGED: f64 = 1e-10;

/// Maximum number of rounds; the problem is convex in ln a and ln b.
const MAX_ROUNDS: usize = 1000;

impl NormalizedSharpness {
    /// Largest number of products for the diagonal of the Gauss-Newton matrix.
    pub const SAMPLES: usize = 100;

    /// Estimates the normalised sharpness of each layer at the model's θ. The penalty λ‖θ‖² is left out.
    ///
    /// # Errors
    /// A product that fails or is not finite; no parameter with two axes.
    pub fn measure(objective: &Objective, seed: u64) -> Result<Self> {
        let theta = objective.parameters().to_flat()?;
        let matrix = objective.clone().with_l2(0.0)?.gauss_newton().at(theta)?;
        let layers = weight_matrices(objective)?.into_iter().map(|weight| {
            let block = Block::new(&matrix, weight.range.clone())?;
            let diagonal = match block.dim() <= Self::SAMPLES {
                true => block.dense()?.matrix().diag().to_vec(),
                false => Diagonal::estimate(&block, Self::SAMPLES, seed)?.values,
            };
            let curvatures: Vec<f64> = diagonal.iter().map(|h| h.max(0.0)).collect();
            let noise = best_noise(&weight, &curvatures);
            let squares = weight.values.iter().zip(&noise);
            let size: f64 = squares
                .filter(|(_, noise)| **noise > 0.0)
                .map(|(w, noise)| (w / noise).powi(2))
                .sum();
            let trace = Trace::default()
                .with_seed(seed)
                .trace(&Scaled::new(block, noise)?)?;
            // min over s of s²A + B/s² is 2√(AB), with the relative error of A halved.
            let value = 2.0 * (trace.value.abs() * size).sqrt();
            let relative = match trace.value > 0.0 {
                true => 0.5 * trace.standard_error / trace.value,
                false => 0.0,
            };
            let estimate = Estimate {
                value,
                standard_error: relative * value,
                products: trace.products + Self::SAMPLES.min(weight.values.len()),
                ..trace
            };
            Ok((weight.name, estimate))
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

/// Returns aᵢbⱼ for each weight, by exact minimisation over a and over b in turn. Rows and columns without curvature or without
/// weights contribute nothing, and get 0.
fn best_noise(weight: &WeightMatrix, curvatures: &[f64]) -> Vec<f64> {
    let (rows, columns) = (weight.units, weight.inputs);
    // a² and b²
    let (mut a, mut b) = (vec![1.0; rows], vec![1.0; columns]);
    let mut last = f64::INFINITY;
    for _ in 0..MAX_ROUNDS {
        let mut total = 0.0;
        for axis in 0..2 {
            let len = [rows, columns][axis];
            let (mut rises, mut sizes) = (vec![0.0; len], vec![0.0; len]);
            for i in 0..rows {
                for j in 0..columns {
                    let (k, other) = [(i, b[j]), (j, a[i])][axis];
                    if other > 0.0 {
                        rises[k] += curvatures[i * columns + j] * other;
                        sizes[k] += weight.values[i * columns + j].powi(2) / other;
                    }
                }
            }
            let scales = [&mut a, &mut b][axis].iter_mut();
            total = 0.0;
            for (scale, (rise, size)) in scales.zip(rises.iter().zip(&sizes)) {
                *scale = match *rise > 0.0 && *size > 0.0 {
                    true => (size / rise).sqrt(),
                    false => 0.0,
                };
                total += 2.0 * (rise * size).sqrt();
            }
        }
        if last - total <= CONVERGED * total {
            break;
        }
        last = total;
    }
    let noise = a.iter().flat_map(|a| b.iter().map(move |b| (a * b).sqrt()));
    noise.collect()
}

impl std::fmt::Display for NormalizedSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_layers(f, "normalised sharpness", &self.layers)
    }
}
