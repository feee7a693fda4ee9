//! Datasets in the plane.

use std::f64::consts::PI;

use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Distribution;

use super::{labelled, normal};
use crate::data::Dataset;
use crate::error::{Error, Result, counted};

/// Two interleaved half circles of radius 1 in the plane, one per class. Labels alternate: 0, 1, 0, …. `noise` is the standard
/// deviation of the Gaussian noise added to each coordinate.
///
/// # Shapes
/// Inputs `(n, 2)`, `f64`; labels `(n,)`.
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
            "two moons need at least 2 samples, found {n}"
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

/// Spirals around the origin, one per class. Labels repeat 0, 1, …, `classes` − 1. A sample of class c at radius r, uniform in
/// [0.1, 1), has the angle 2π (c / `classes` + `turns` · r). `noise` is the standard deviation of the Gaussian noise added to
/// each coordinate.
///
/// Generalises Lang and Witbrock, "Learning to Tell Two Spirals Apart", 1988, who have 2 classes and 3 turns.
///
/// # Shapes
/// Inputs `(n, 2)`, `f64`; labels `(n,)`.
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
            "spirals need at least 2 classes and a sample of each, found {} for {classes}",
            counted(n, "sample")
        )));
    }
    if !turns.is_finite() {
        return Err(Error::invalid(format!(
            "turns must be finite, found {turns}"
        )));
    }
    in_the_plane(n, classes, noise, seed, device, |class, random| {
        let radius = 0.1 + 0.9 * random;
        let angle = 2.0 * PI * (class as f64 / classes as f64 + turns * radius);
        (radius * angle.cos(), radius * angle.sin())
    })
}

/// Draws samples of alternating classes from curves that map [0, 1) to the plane.
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
