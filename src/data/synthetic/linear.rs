//! Classes that a plane parts.

use candle_core::Device;

use super::{labelled, standard_normal};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};
use crate::vector::{axpy, dot, gaussian, norm, scale};

/// Two classes on either side of the plane w·x = 0 through the origin, none closer to it than
/// `margin` (up to rounding): `n` samples of shape `(n, dim)`, `f64`, labels 0 (w·x < 0) and 1
/// (w·x > 0) in turn.
///
/// The unit vector w has a random direction. Samples are the two halves of a standard normal cloud,
/// pulled apart: along w they stand at ±(|z| + `margin`) with z standard normal, and across it they
/// are standard normal.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = linearly_separable(60, 1, 0.5, 0, &Device::Cpu)?; // in one dimension w = ±1
/// let inputs = data.inputs().flatten_all()?.to_vec1::<f64>()?;
/// assert!(inputs.iter().all(|x| x.abs() > 0.5 - 1e-12));
/// assert!(inputs.chunks(2).all(|pair| pair[0] * pair[1] < 0.0)); // classes in turn
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// `n` < 2, `dim` = 0, a negative or infinite `margin`.
pub fn linearly_separable(
    n: usize,
    dim: usize,
    margin: f64,
    seed: u64,
    device: &Device,
) -> Result<Dataset> {
    if n < 2 || dim == 0 {
        return Err(Error::invalid(format!(
            "two classes of {n} samples in {dim} dimensions cannot be drawn: ask for at least 2 \
             samples and 1 dimension"
        )));
    }
    if !(margin.is_finite() && margin >= 0.0) {
        return Err(Error::invalid(format!(
            "margin {margin} must be finite and not negative"
        )));
    }
    let mut rng = generator(Purpose::LinearlySeparable, seed, 0);
    let mut w = standard_normal(dim, &mut rng);
    let length = norm(&w);
    scale(&mut w, 1.0 / length);

    let mut samples = standard_normal(n * dim, &mut rng);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
    for (x, label) in samples.chunks_exact_mut(dim).zip(&labels) {
        let side = 2.0 * f64::from(*label) - 1.0;
        let z = dot(&w, x);
        axpy(side * (z.abs() + margin) - z, &w, x);
    }
    labelled(samples, labels, device)
}

/// 1,000 samples of 20 standard normal features, shape `(1000, 20)`, `f64`, with label 1 where
/// x₀ + x₁ > 0 and 0 elsewhere: the other 18 features say nothing.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = sum_of_two(0, &Device::Cpu)?;
/// assert_eq!(data.inputs().dims(), [1000, 20]);
/// for (x, label) in data.inputs().to_vec2::<f64>()?.iter().zip(data.labels()?) {
///     assert_eq!(x[0] + x[1] > 0.0, label == 1);
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// candle's, when the device cannot hold them.
pub fn sum_of_two(seed: u64, device: &Device) -> Result<Dataset> {
    const FEATURES: usize = 20;
    let samples = gaussian(1_000 * FEATURES, seed);
    let labels = samples
        .chunks_exact(FEATURES)
        .map(|x| u32::from(x[0] + x[1] > 0.0))
        .collect();
    labelled(samples, labels, device)
}
