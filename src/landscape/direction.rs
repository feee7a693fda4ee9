//! Directions: vectors in θ-space to look along.
//!
//! | direction | |
//! | --- | --- |
//! | random | [`gaussian`], [`filter_normalized`], [`filter_normalized_pair`], or any other [`normalized`] |
//! | down or up the slope | [`Objective::gradient`](crate::objective::Objective::gradient) |
//! | from one model to another | [`difference`] |
//! | along an eigenvector | [`Eigenpair::vector`](crate::spectral::Eigenpair::vector) |
//! | along a training | the components of [`Pca`](crate::embedding::Pca) |

use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, minus, norm, scale};

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

/// Independent standard normal entries, drawn from `seed`; length about √n.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[20, 50, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let d = direction::gaussian(model.parameters(), 0); // 1101 entries
/// let mean_square = d.iter().map(|d| d * d).sum::<f64>() / d.len() as f64;
/// assert!((mean_square - 1.0).abs() < 0.2);
/// assert_ne!(d, direction::gaussian(model.parameters(), 1));
/// # Ok::<(), Error>(())
/// ```
pub fn gaussian(parameters: &Parameters, seed: u64) -> Vec<f64> {
    normal(parameters.len(), Purpose::Direction, seed, 0)
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

/// θ₂ − θ₁, the way from one model to another.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let [a, b] = [0, 1].map(|seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu));
/// let (a, b) = (a?, b?);
/// let way = direction::difference(a.parameters(), b.parameters())?;
/// let from = a.parameters().to_flat()?;
/// let there: Vec<f64> = from.iter().zip(&way).map(|(a, d)| a + d).collect();
/// assert_eq!(there, b.parameters().to_flat()?);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Models with other parameter names or shapes.
pub fn difference(from: &Parameters, to: &Parameters) -> Result<Vec<f64>> {
    let (ours, theirs) = (from.shapes(), to.shapes());
    if let Some((a, b)) = ours.iter().zip(&theirs).find(|(a, b)| a != b) {
        return Err(Error::invalid(format!(
            "no way leads from one model to the other: parameter `{}` of shape {:?} stands where \
             the other has `{}` of shape {:?}",
            a.0, a.1, b.0, b.1
        )));
    }
    if ours.len() != theirs.len() {
        return Err(Error::invalid(format!(
            "no way leads from a model of {} parameters to one of {}",
            from.len(),
            to.len()
        )));
    }
    Ok(minus(&to.to_flat()?, &from.to_flat()?))
}

/// `b` without its component along `a`, scaled back to its old length.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let turned = direction::orthogonalized(&[3.0, 4.0], &[1.0, 0.0])?;
/// assert_eq!(turned, [0.0, 5.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a zero vector, parallel vectors.
pub fn orthogonalized(b: &[f64], a: &[f64]) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        return Err(Error::invalid(format!(
            "directions of {} and {} entries do not belong to one model",
            a.len(),
            b.len()
        )));
    }
    let length = norm(b);
    let mut rest = b.to_vec();
    axpy(-dot(a, b) / dot(a, a), a, &mut rest);
    let left = norm(&rest);
    // Zero vectors make NaN.
    if left.is_nan() || left <= 1e-8 * length {
        return Err(parallel());
    }
    scale(&mut rest, length / left);
    Ok(rest)
}

pub(super) fn parallel() -> Error {
    Error::invalid("the two directions are parallel, or one of them is zero: they span no plane")
}
