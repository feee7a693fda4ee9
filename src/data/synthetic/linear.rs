//! Datasets with linear class boundaries.

use candle_core::Device;

use super::{labelled, standard_normal};
use crate::data::Dataset;
use crate::error::{Error, Result, counted};
use crate::random::{Purpose, generator};
use crate::vector::{axpy, dot, gaussian, norm, scale};

/// Two classes separated by the hyperplane w·x = 0 with distance at least `margin` to it, up to rounding. Labels alternate:
/// 0 (w·x < 0) and 1 (w·x > 0).
///
/// The unit vector w has a random direction. Samples have the coordinate ±(|z| + `margin`) along w, with z standard normal,
/// and are standard normal orthogonal to w.
///
/// # Shapes
/// Inputs `(n, dim)`, `f64`; labels `(n,)`.
///
/// ```
/// use loss_landscape::data::synthetic::linearly_separable;
/// use loss_landscape::prelude::*;
///
/// let data = linearly_separable(60, 1, 0.5, 0, &Device::Cpu)?; // in one dimension w = ±1
/// let inputs = data.inputs().flatten_all()?.to_vec1::<f64>()?;
/// assert!(inputs.iter().all(|x| x.abs() > 0.5 - 1e-12));
/// assert!(inputs.chunks(2).all(|pair| pair[0] * pair[1] < 0.0)); // labels alternate
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
            "expected at least 2 samples and 1 dimension, found {} in {}",
            counted(n, "sample"),
            counted(dim, "dimension")
        )));
    }
    if !(margin.is_finite() && margin >= 0.0) {
        return Err(Error::invalid(format!(
            "margin must be finite and at least 0, found {margin}"
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

/// 1,000 samples of 20 standard normal features. The label is 1 if x₀ + x₁ > 0 and 0 otherwise; the other 18 features carry no
/// information.
///
/// # Shapes
/// Inputs `(1000, 20)`, `f64`; labels `(1000,)`.
///
/// ```
/// use loss_landscape::data::synthetic::sum_of_two;
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
/// Errors in candle, such as a device without enough memory.
pub fn sum_of_two(seed: u64, device: &Device) -> Result<Dataset> {
    const FEATURES: usize = 20;
    let samples = gaussian(1_000 * FEATURES, seed);
    let labels = samples
        .chunks_exact(FEATURES)
        .map(|x| u32::from(x[0] + x[1] > 0.0))
        .collect();
    labelled(samples, labels, device)
}
