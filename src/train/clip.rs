//! Gradient clipping by the global norm.

use candle_core::Var;
use candle_core::backprop::GradStore;
use rayon::prelude::*;

use super::CHUNK;
use crate::error::{Error, Result};
use crate::kernels::Scalar;

/// Added to the norm, as in `torch.nn.utils.clip_grad_norm_`.
const EPSILON: f64 = 1e-6;

/// Checks that the largest norm is finite and above 0.
pub(super) fn check(norm: f64) -> Result<()> {
    match norm > 0.0 && norm.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "gradients are clipped to the norm {norm}: give a finite number above 0"
        ))),
    }
}

/// c/(‖g‖ + ε) for the largest norm c, or `None` if this is at least 1.
fn factor(norm: Option<f64>, squared_norm: f64) -> Option<f64> {
    let factor = norm? / (squared_norm.sqrt() + EPSILON);
    (factor < 1.0).then_some(factor)
}

/// Clips a gradient with this ‖g‖².
pub(super) fn clip<T: Scalar>(norm: Option<f64>, gradient: &mut [T], squared_norm: f64) {
    let Some(factor) = factor(norm, squared_norm).map(T::from_f64) else {
        return;
    };
    let chunks = gradient.par_chunks_mut(CHUNK);
    chunks.for_each(|chunk| chunk.iter_mut().for_each(|g| *g = *g * factor));
}

/// As [`clip`], for gradients from candle's graph.
pub(super) fn clip_tensors(
    norm: Option<f64>,
    vars: &[Var],
    gradients: &mut GradStore,
    squared_norm: f64,
) -> Result<()> {
    let Some(factor) = factor(norm, squared_norm) else {
        return Ok(());
    };
    for var in vars {
        if let Some(gradient) = gradients.get(var) {
            let clipped = (gradient * factor)?;
            gradients.insert(var, clipped);
        }
    }
    Ok(())
}
