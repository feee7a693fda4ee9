//! Directions: vectors in θ-space to look along.

use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::vector::{self, axpy, dot, norm, scale};

/// Independent standard normal entries, drawn from `seed`; length about √n.
pub fn gaussian(parameters: &Parameters, seed: u64) -> Vec<f64> {
    vector::gaussian(parameters.len(), seed)
}

/// A Gaussian direction, filter-normalised (Li et al., "Visualizing the Loss Landscape of Neural
/// Nets", 2018): each filter d of it is scaled to the length of the model's filter w,
/// d ← d ‖w‖ / ‖d‖.
///
/// A filter is what feeds one output: a row of a dense weight (out × in), a slice of a
/// convolution's (out × in × height × width). Parameters of one dimension (biases, normalisation
/// scales) get 0, as in the paper's pictures.
///
/// # Errors
/// candle's, when a device cannot be read.
pub fn filter_normalized(parameters: &Parameters, seed: u64) -> Result<Vec<f64>> {
    let theta = parameters.to_flat()?;
    let mut direction = vector::gaussian(parameters.len(), seed);
    for (range, (_, var)) in parameters.ranges().into_iter().zip(parameters.iter()) {
        if var.rank() < 2 {
            direction[range].fill(0.0);
            continue;
        }
        let filter = range.len() / var.dims()[0];
        let pairs = direction[range.clone()]
            .chunks_exact_mut(filter)
            .zip(theta[range].chunks_exact(filter));
        for (d, w) in pairs {
            let factor = norm(w) / norm(d);
            scale(d, factor);
        }
    }
    Ok(direction)
}

/// `b` without its component along `a`, scaled back to its old length.
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
        return Err(Error::invalid(
            "the two directions are parallel, or one of them is zero: they span no plane",
        ));
    }
    scale(&mut rest, length / left);
    Ok(rest)
}
