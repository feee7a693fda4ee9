//! Classes in the plane.

use std::f64::consts::PI;

use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Distribution;

use super::{labelled, normal};
use crate::data::Dataset;
use crate::error::{Error, Result};

/// Two interleaved half circles in the plane, one class each: `n` samples of shape `(n, 2)`,
/// `f64`, labels 0 and 1 in turn. `noise` is the standard deviation of the Gaussian added to
/// each coordinate, in units of the circles' radius.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.0, 0, &Device::Cpu)?;
/// for (p, label) in data.inputs().to_vec2::<f64>()?.iter().zip(data.labels()?) {
///     let center = [[0.0, 0.0], [1.0, 0.5]][label as usize];
///     assert!(((p[0] - center[0]).hypot(p[1] - center[1]) - 1.0).abs() < 1e-12);
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// `n` < 2, a negative or infinite `noise`.
pub fn two_moons(n: usize, noise: f64, seed: u64, device: &Device) -> Result<Dataset> {
    if n < 2 {
        return Err(Error::invalid(format!(
            "two moons of {n} samples cannot be drawn: ask for at least 2"
        )));
    }
    in_the_plane(n, 2, noise, seed, device, |class, random| {
        let angle = PI * random;
        match class {
            0 => (angle.cos(), angle.sin()),
            _ => (1.0 - angle.cos(), 0.5 - angle.sin()),
        }
    })
}

/// Spirals around the origin, one for each of `classes` classes: `n` samples of shape `(n, 2)`,
/// `f64`, labels 0, 1, …, `classes` − 1 in turn. At radius r, uniform in [0.1, 1), class c stands at
/// the angle 2π (c / `classes` + `turns` · r). `noise` is the standard deviation of the Gaussian
/// added to each coordinate.
///
/// After Lang and Witbrock, "Learning to Tell Two Spirals Apart", 1988, who have 2 classes and 3
/// turns.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = spirals(60, 3, 1.0, 0.0, 0, &Device::Cpu)?;
/// assert_eq!(data.labels()?[..4], [0, 1, 2, 0]);
/// for p in data.inputs().to_vec2::<f64>()? {
///     assert!((0.1..1.0).contains(&p[0].hypot(p[1])));
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Fewer than two `classes`, fewer samples than classes, infinite `turns`, a negative or infinite
/// `noise`.
pub fn spirals(
    n: usize,
    classes: usize,
    turns: f64,
    noise: f64,
    seed: u64,
    device: &Device,
) -> Result<Dataset> {
    if classes < 2 || n < classes {
        return Err(Error::invalid(format!(
            "{classes} spirals of {n} samples in all cannot be drawn: ask for at least 2 classes and \
             a sample of each"
        )));
    }
    if !turns.is_finite() {
        return Err(Error::invalid(format!("{turns} turns must be finite")));
    }
    in_the_plane(n, classes, noise, seed, device, |class, random| {
        let radius = 0.1 + 0.9 * random;
        let angle = 2.0 * PI * (class as f64 / classes as f64 + turns * radius);
        (radius * angle.cos(), radius * angle.sin())
    })
}

/// Classes in turn, each on a curve that maps [0, 1) to the plane.
fn in_the_plane(
    n: usize,
    classes: usize,
    noise: f64,
    seed: u64,
    device: &Device,
    curve: impl Fn(usize, f64) -> (f64, f64),
) -> Result<Dataset> {
    let noise = normal(noise)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut points = Vec::with_capacity(2 * n);
    for i in 0..n {
        let (x, y) = curve(i % classes, rng.random());
        points.push(x + noise.sample(&mut rng));
        points.push(y + noise.sample(&mut rng));
    }
    let labels = (0..n).map(|i| (i % classes) as u32).collect();
    labelled(points, labels, device)
}
