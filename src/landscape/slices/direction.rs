//! Directions: vectors in θ-space to look along.
//!
//! | direction | |
//! | --- | --- |
//! | random | [`gaussian`], [`filter_normalized`], [`filter_normalized_pair`], or any other [`normalized`] |
//! | down or up the slope | [`Objective::gradient`](crate::objective::Objective::gradient) |
//! | from one model to another | [`difference`] |
//! | along an eigenvector | [`Eigenpair::vector`](crate::spectral::Eigenpair::vector) |
//! | along a training | the components of [`Pca`](crate::embedding::Pca) |

pub use super::filter_normalization::{
    Normalization, filter_normalized, filter_normalized_pair, normalized,
};

use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, minus, norm, scale};

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
