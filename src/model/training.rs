//! What layers do in a step of training alone.

use candle_core::{Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::Error;

/// Batch normalisation by the batch's own mean and variance, which move the running ones.
pub(super) fn normal_in_batch(
    h: &Tensor,
    running: [&Var; 2],
    epsilon: f64,
    momentum: f64,
) -> Result<Tensor> {
    let channels = h.transpose(0, 1)?;
    let rows = channels.flatten_from(1)?.contiguous()?;
    let n = rows.dim(1)?;
    if n == 1 {
        return Err(candle_core::Error::wrap(no_variance()));
    }
    let mean = rows.mean_keepdim(1)?;
    let centered = rows.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim(1)?;
    let unbiased = (&variance * (n as f64 / (n as f64 - 1.0)))?;
    for (var, batch) in running.into_iter().zip([&mean, &unbiased]) {
        let batch = batch.flatten_all()?.detach();
        var.set(&((var.as_detached_tensor() * (1.0 - momentum))? + (batch * momentum)?)?)?;
    }
    let normal = centered.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    normal.reshape(channels.shape())?.transpose(0, 1)
}

/// The error for a batch of one number.
pub(crate) fn no_variance() -> Error {
    Error::invalid(
        "batch normalisation of one number has no variance to divide by: a step of training needs a batch of \
         at least two samples, also for the samples that are left at the end of an epoch",
    )
}

/// Each number 0 with probability `rate`, or divided by 1 − `rate`.
pub(super) fn dropped(h: &Tensor, rate: f64, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let factor = |keep: bool| if keep { 1.0 / (1.0 - rate) } else { 0.0 };
    let factors = (0..h.elem_count()).map(|_| factor(rng.random::<f64>() >= rate));
    let factors = Tensor::from_iter(factors, h.device())?.to_dtype(h.dtype())?;
    h * factors.reshape(h.shape())?
}
