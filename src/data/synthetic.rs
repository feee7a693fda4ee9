//! Small synthetic sets, drawn from a seed.

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::Dataset;
use crate::error::{Error, Result};

/// Two interleaved half circles in the plane, one class each: `n` samples of shape `(n, 2)`,
/// `f64`, labels 0 and 1 in turn. `noise` is the standard deviation of the Gaussian added to
/// each coordinate, in units of the circles' radius.
///
/// # Errors
/// `n` < 2, a negative or infinite `noise`.
pub fn two_moons(n: usize, noise: f64, seed: u64, device: &Device) -> Result<Dataset> {
    if n < 2 {
        return Err(Error::invalid(format!(
            "two moons of {n} samples cannot be drawn: ask for at least 2"
        )));
    }
    let normal = Normal::new(0.0, noise)
        .ok()
        .filter(|_| noise >= 0.0)
        .ok_or_else(|| Error::invalid(format!("noise {noise} must be finite and not negative")))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut points = Vec::with_capacity(2 * n);
    for i in 0..n {
        let angle = std::f64::consts::PI * rng.random::<f64>();
        let (x, y) = match i % 2 {
            0 => (angle.cos(), angle.sin()),
            _ => (1.0 - angle.cos(), 0.5 - angle.sin()),
        };
        points.push(x + normal.sample(&mut rng));
        points.push(y + normal.sample(&mut rng));
    }
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
    Dataset::classification(
        &Tensor::from_vec(points, (n, 2), device)?,
        &Tensor::from_vec(labels, n, device)?,
    )
}
