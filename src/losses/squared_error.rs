//! Mean squared error: value, gradient and curvature.

use candle_core::Tensor;

use crate::error::Result;
use crate::kernels::Scalar;

/// The mean over each sample's outputs, in candle's graph.
///
/// # Shapes
/// `outputs` and `values` (n, …), to (n,).
pub(super) fn per_sample(outputs: &Tensor, values: &Tensor) -> Result<Tensor> {
    let squares = (outputs - values)?.sqr()?;
    Ok(match squares.rank() {
        2 => squares.mean(1)?,
        _ => squares.flatten_from(1)?.mean(1)?,
    })
}

/// The sum over the samples, of `size` outputs each.
pub(super) fn sum<T: Scalar>(z: &[T], values: &[T], size: usize) -> f64 {
    let residuals = z.iter().zip(values).map(|(z, v)| z.f64() - v.f64());
    residuals.map(|r| r * r).sum::<f64>() / size as f64
}

/// Writes the gradient of each sample's loss in z.
pub(super) fn gradient<T: Scalar>(z: &[T], values: &[T], size: usize, dz: &mut [T]) {
    let factor = T::from_f64(2.0 / size as f64);
    for ((d, z), v) in dz.iter_mut().zip(z).zip(values) {
        *d = factor * (*z - *v);
    }
}

/// Writes rdz = (2/size) rz.
pub(super) fn curvature_product<T: Scalar>(size: usize, rz: &[T], rdz: &mut [T]) {
    let factor = T::from_f64(2.0 / size as f64);
    for (r, z) in rdz.iter_mut().zip(rz) {
        *r = factor * *z;
    }
}

/// Writes dz = √(2/size) w.
pub(super) fn curvature_root<T: Scalar>(size: usize, weights: &[f64], dz: &mut [T]) {
    let factor = (2.0 / size as f64).sqrt();
    for (d, w) in dz.iter_mut().zip(weights) {
        *d = T::from_f64(factor * w);
    }
}
