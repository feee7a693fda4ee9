//! [`Normalization`]: directions rescaled to the norms of the weights, filter by filter or layer by layer.

use super::direction::gaussian;
use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, norm, scale};

/// What of a direction gets the length of what of the model. What it is called after is scaled as
/// d ← d ‖w‖ / ‖d‖ with the model's own w, so that a step of 1 is as large as the weights that it
/// changes, whatever scale they have.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let parameters = model.parameters();
/// let theta = parameters.to_flat()?;
/// let raw = direction::gaussian(parameters, 0);
/// let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
///
/// let whole = direction::normalized(parameters, &raw, Normalization::Model)?;
/// assert!((length(&whole) - length(&theta)).abs() < 1e-12);
/// let layers = direction::normalized(parameters, &raw, Normalization::Layer)?;
/// let weight = parameters.range("layers.0.weight")?;
/// assert!((length(&layers[weight.clone()]) - length(&theta[weight])).abs() < 1e-12);
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
    /// Each filter (Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018): what feeds
    /// one output, a row of a dense weight (out × in), a slice of a convolution's (out × in ×
    /// height × width). Parameters of one dimension (biases, scales and shifts of normalisation
    /// layers) get 0, as in the paper's pictures.
    Filter,
    /// Each parameter tensor as a whole. Those of one dimension get 0 here too.
    Layer,
    /// θ as a whole, biases and all.
    Model,
}

/// A [`gaussian`] direction, [normalised](Normalization::Filter) filter by filter.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let theta = model.parameters().to_flat()?;
/// let d = direction::filter_normalized(model.parameters(), 0)?;
/// let first = model.parameters().range("layers.0.weight")?.start;
/// let length = |v: &[f64]| {
///     v[first..first + 2]
///         .iter()
///         .map(|v| v * v)
///         .sum::<f64>()
///         .sqrt()
/// };
/// assert!((length(&d) - length(&theta)).abs() < 1e-12); // what feeds the first hidden unit
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

/// Two [filter-normalised](Normalization::Filter) Gaussian directions that are orthogonal in every
/// filter (of more than one entry), and so as a whole.
///
/// Orthogonal as a whole alone, as is usual, would turn the second by the first one's share in large
/// filters, and the plane would see rescalings of the layers that leave the function alone.
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

/// `direction` scaled to the model's lengths, part by part. A part that is 0 stays 0.
///
/// See [`Normalization`] for an example.
///
/// # Errors
/// A direction that is not in θ-space; one that is zero afterwards, but was not; candle's, when a device cannot be read.
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
        match_lengths(&mut direction, &theta);
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
            match_lengths(d, w);
        }
    }
    checked(direction, was_zero)
}

/// Refuses a direction that has become zero.
fn checked(direction: Vec<f64>, was_zero: bool) -> Result<Vec<f64>> {
    if was_zero || direction.iter().any(|d| *d != 0.0) {
        return Ok(direction);
    }
    Err(Error::invalid(
        "the normalised direction is zero: all weights that it would be scaled to are zero, or the model has only \
         parameters of one dimension; take an eigenvector, or a direction without normalisation",
    ))
}

fn match_lengths(d: &mut [f64], w: &[f64]) {
    let length = norm(d);
    if length > 0.0 {
        scale(d, norm(w) / length);
    }
}
