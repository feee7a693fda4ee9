//! Directions: vectors in parameter space, along which the loss is evaluated.
//!
//! | direction | |
//! | --- | --- |
//! | random | [`gaussian`], [`filter_normalized`], [`filter_normalized_pair`]; any other one after [`normalized`] |
//! | steepest ascent | [`Objective::gradient`](crate::objective::Objective::gradient) |
//! | from one model to another | [`difference`] |
//! | eigenvector | [`Eigenpair::vector`](crate::spectral::Eigenpair::vector) |
//! | principal components of a training trajectory | [`Pca::components`](crate::embedding::Pca) |

pub use super::filter_normalization::{
    Normalization, filter_normalized, filter_normalized_pair, normalized,
};

use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, minus, norm, scale};

/// Returns a vector of independent standard normal entries, shape `(d,)`. Its norm is about √d.
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

/// Returns θ₂ − θ₁, the direction from one model to another, shape `(d,)`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let [a, b] = [0, 1].map(|seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu));
/// let (a, b) = (a?, b?);
/// let d = direction::difference(a.parameters(), b.parameters())?;
/// let start = a.parameters().to_flat()?;
/// let end: Vec<f64> = start.iter().zip(&d).map(|(a, d)| a + d).collect();
/// assert_eq!(end, b.parameters().to_flat()?);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// The models' parameter names or shapes differ.
pub fn difference(from: &Parameters, to: &Parameters) -> Result<Vec<f64>> {
    let (ours, theirs) = (from.shapes(), to.shapes());
    if let Some((a, b)) = ours.iter().zip(&theirs).find(|(a, b)| a != b) {
        return Err(Error::invalid(format!(
            "the models have different parameters: `{}` of shape {:?} in the first, \
             `{}` of shape {:?} in the second; a direction between two models needs one architecture",
            a.0, a.1, b.0, b.1
        )));
    }
    if ours.len() != theirs.len() {
        return Err(Error::invalid(format!(
            "the models have different numbers of parameters: {} and {}",
            from.len(),
            to.len()
        )));
    }
    Ok(minus(&to.to_flat()?, &from.to_flat()?))
}

/// Returns the component of `b` orthogonal to `a`, rescaled to the norm of `b`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let orthogonal = direction::orthogonalized(&[3.0, 4.0], &[1.0, 0.0])?;
/// assert_eq!(orthogonal, [0.0, 5.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// The vectors differ in length, are parallel, or one of them is zero.
pub fn orthogonalized(b: &[f64], a: &[f64]) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        return Err(Error::invalid(format!(
            "the directions have different lengths: {} and {}",
            a.len(),
            b.len()
        )));
    }
    let length = norm(b);
    let mut orthogonal = b.to_vec();
    axpy(-dot(a, b) / dot(a, a), a, &mut orthogonal);
    let remaining = norm(&orthogonal);
    // NaN for zero vectors.
    if remaining.is_nan() || remaining <= 1e-8 * length {
        return Err(parallel());
    }
    scale(&mut orthogonal, length / remaining);
    Ok(orthogonal)
}

pub(super) fn parallel() -> Error {
    Error::invalid(
        "the two directions are parallel, or one of them is zero: they do not span a plane",
    )
}
