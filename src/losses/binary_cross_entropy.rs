//! Binary cross-entropy of several outputs: value, gradient and curvature.
//!
//! As in `cross_entropy`, σ(z) and σ(−z) are computed without differences of nearly equal numbers.

use candle_core::Tensor;

use super::cross_entropy::{exp, sigmoids};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::tensor_functions::softplus;

/// The mean over each sample's outputs, in candle's graph.
///
/// # Shapes
/// `outputs` and `values` (n, …), to (n,).
pub(super) fn per_sample(outputs: &Tensor, values: &Tensor) -> Result<Tensor> {
    let present = (values * softplus(&outputs.neg()?)?)?;
    let absent = (values.affine(-1.0, 1.0)? * softplus(outputs)?)?;
    Ok((present + absent)?.flatten_from(1)?.mean(1)?)
}

/// The sum over the samples, of `size` outputs each.
pub(super) fn sum<T: Scalar>(z: &[T], values: &[T], size: usize) -> f64 {
    let losses = z.iter().zip(values).map(|(z, value)| {
        let (z, value) = (z.f64(), value.f64());
        let tail = exp(-z.abs()).ln_1p();
        value * ((-z).max(0.0) + tail) + (1.0 - value) * (z.max(0.0) + tail)
    });
    losses.sum::<f64>() / size as f64
}

/// Writes the gradient of each sample's loss in z.
pub(super) fn gradient<T: Scalar>(z: &[T], values: &[T], size: usize, dz: &mut [T]) {
    let share = 1.0 / size as f64;
    for ((d, z), value) in dz.iter_mut().zip(z).zip(values) {
        let (z, value) = (z.f64(), value.f64());
        let [positive, negative] = sigmoids(z, exp(-z.abs()));
        *d = T::from_f64(share * ((1.0 - value) * positive - value * negative));
    }
}

/// Writes rdz = σ(z) σ(−z) rz / `size` for each sample and each tangent.
pub(super) fn curvature_product<T: Scalar>(z: &[T], size: usize, rz: &[T], rdz: &mut [T]) {
    let (share, k) = (1.0 / size as f64, rz.len() / z.len());
    let samples = rz
        .chunks_exact(k * size)
        .zip(rdz.chunks_exact_mut(k * size));
    for (z, (rz, rdz)) in z.chunks_exact(size).zip(samples) {
        for (rz, rdz) in rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size)) {
            for ((z, rz), rdz) in z.iter().zip(rz).zip(rdz) {
                let e = exp(-z.f64().abs());
                *rdz = T::from_f64(share * (e / ((1.0 + e) * (1.0 + e)))) * *rz;
            }
        }
    }
}

/// Writes dz = √(σ(z) σ(−z) / `size`) w.
pub(super) fn curvature_root<T: Scalar>(z: &[T], size: usize, weights: &[f64], dz: &mut [T]) {
    let share = 1.0 / size as f64;
    for ((d, z), w) in dz.iter_mut().zip(z).zip(weights) {
        let e = exp(-z.f64().abs());
        *d = T::from_f64((share * e).sqrt() / (1.0 + e) * w);
    }
}
