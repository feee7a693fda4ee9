//! Filter normalisation: directions rescaled to the norms of the model's weights.

use super::direction::gaussian;
use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, norm, scale};

/// Which part of a direction is rescaled to the norm of the matching weights.
///
/// Each part d is scaled to d ‖w‖ / ‖d‖, where w are the model's weights of that part. A step of length 1 along a normalised
/// direction is then as large as the weights it changes, whatever their scale.
///
/// ```
/// use loss_landscape::landscape::direction::Normalization;
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let parameters = model.parameters();
/// let theta = parameters.to_flat()?;
/// let raw = direction::gaussian(parameters, 0);
/// let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
///
/// let whole = direction::normalized(parameters, &raw, Normalization::Model)?;
/// assert!((norm(&whole) - norm(&theta)).abs() < 1e-12);
/// let layers = direction::normalized(parameters, &raw, Normalization::Layer)?;
/// let weight = parameters.range("layers.0.weight")?;
/// assert!((norm(&layers[weight.clone()]) - norm(&theta[weight])).abs() < 1e-12);
/// assert!(
///     layers[parameters.range("layers.0.bias")?]
///         .iter()
///         .all(|d| *d == 0.0)
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Normalization {
    /// Each filter (Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018): the weights of one output, which are a
    /// row of a dense weight of shape `(out, in)` or a slice of a convolution's `(out, in, height, width)`. One-dimensional
    /// parameters (biases, scales and shifts of normalisation layers) are set to 0, as in the paper's figures.
    Filter,
    /// Each parameter tensor. One-dimensional parameters are set to 0.
    Layer,
    /// The whole vector θ, biases included.
    Model,
}

/// Returns a [`gaussian`] direction with [filter normalisation](Normalization::Filter), shape `(d,)`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let theta = model.parameters().to_flat()?;
/// let d = direction::filter_normalized(model.parameters(), 0)?;
/// let first = model.parameters().range("layers.0.weight")?.start;
/// let norm = |v: &[f64]| {
///     v[first..first + 2]
///         .iter()
///         .map(|v| v * v)
///         .sum::<f64>()
///         .sqrt()
/// };
/// assert!((norm(&d) - norm(&theta)).abs() < 1e-12); // weights of the first hidden unit
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`normalized`].
pub fn filter_normalized(parameters: &Parameters, seed: u64) -> Result<Vec<f64>> {
    normalized(
        parameters,
        &gaussian(parameters, seed),
        Normalization::Filter,
    )
}

/// Returns two Gaussian directions with [filter normalisation](Normalization::Filter) that are orthogonal within every filter
/// of more than one entry, and therefore overall.
///
/// Orthogonalising only the whole vectors, as is usual, would mix the first direction into the second, mostly in large
/// filters, and the plane would include rescalings of the layers that do not change the function.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0)?;
/// let inner: f64 = d1.iter().zip(&d2).map(|(a, b)| a * b).sum();
/// assert!(inner.abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`normalized`].
pub fn filter_normalized_pair(parameters: &Parameters, seed: u64) -> Result<[Vec<f64>; 2]> {
    let first = gaussian(parameters, seed);
    let mut second = normal(parameters.len(), Purpose::Direction, seed, 1);
    for (range, (_, var)) in parameters.ranges().into_iter().zip(parameters.iter()) {
        let filter = range.len() / var.dims().first().copied().unwrap_or(1);
        if filter < 2 {
            continue;
        }
        let filters = second[range.clone()].chunks_exact_mut(filter);
        for (b, a) in filters.zip(first[range].chunks_exact(filter)) {
            axpy(-dot(a, b) / dot(a, a), a, b);
        }
    }
    let normalized = |d| normalized(parameters, d, Normalization::Filter);
    Ok([normalized(&first)?, normalized(&second)?])
}

/// Rescales `direction` to the norms of the model's weights, part by part. A part that is 0 stays 0.
///
/// See [`Normalization`] for an example.
///
/// # Errors
/// `direction` has the wrong length or entries that are not finite; the result is zero although `direction` is not; the
/// parameters cannot be read from their device.
pub fn normalized(
    parameters: &Parameters,
    direction: &[f64],
    normalization: Normalization,
) -> Result<Vec<f64>> {
    parameters.check_vector(direction, "direction")?;
    let theta = parameters.to_flat()?;
    let mut direction = direction.to_vec();
    let was_zero = direction.iter().all(|d| *d == 0.0);
    if normalization == Normalization::Model {
        match_norm(&mut direction, &theta);
        return checked(direction, was_zero);
    }
    for (range, (_, var)) in parameters.ranges().into_iter().zip(parameters.iter()) {
        if var.rank() < 2 {
            direction[range].fill(0.0);
            continue;
        }
        let part = match normalization {
            Normalization::Filter => range.len() / var.dims()[0],
            Normalization::Layer | Normalization::Model => range.len(),
        };
        let parts = direction[range.clone()].chunks_exact_mut(part);
        for (d, w) in parts.zip(theta[range].chunks_exact(part)) {
            match_norm(d, w);
        }
    }
    checked(direction, was_zero)
}

/// Returns an error if the direction has become zero.
fn checked(direction: Vec<f64>, was_zero: bool) -> Result<Vec<f64>> {
    if was_zero || direction.iter().any(|d| *d != 0.0) {
        return Ok(direction);
    }
    Err(Error::invalid(
        "the normalised direction is zero: all weights that it is scaled to are zero, or the model has only \
         one-dimensional parameters; use eigenvectors of the Hessian as directions",
    ))
}

fn match_norm(d: &mut [f64], w: &[f64]) {
    let length = norm(d);
    if length > 0.0 {
        scale(d, norm(w) / length);
    }
}
