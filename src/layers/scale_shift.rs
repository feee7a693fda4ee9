//! [`ScaleShift`]: a scale γ and a shift β per channel, the parameters of normalisation layers.

use std::ops::Range;

use candle_core::Tensor;

use super::rules::{Packed, Write};
use super::{Layer, LayerInit, Misfit, Shape, param};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// γ and β at these ranges of θ. Vectors and gradients are packed as γ₁, β₁, γ₂, β₂, ….
pub(crate) struct ScaleShift {
    pub(crate) channels: usize,
    weight: Range<usize>,
    bias: Range<usize>,
}

impl ScaleShift {
    /// γ and β of equal length.
    pub(crate) fn new(weight: Range<usize>, bias: Range<usize>) -> Self {
        debug_assert_eq!(weight.len(), bias.len());
        Self {
            channels: weight.len(),
            weight,
            bias,
        }
    }

    pub(crate) fn pack<T: Scalar>(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut packed = Vec::with_capacity(vectors.len() * 2 * self.channels);
        for vector in vectors {
            packed.extend_from_slice(&vector[self.weight.clone()]);
            packed.extend_from_slice(&vector[self.bias.clone()]);
        }
        packed
    }

    /// γ and β of several channels in vector `j`.
    pub(crate) fn channel_params<'a, T: Scalar>(
        &self,
        packed: &'a Packed<T>,
        j: usize,
        channels: Range<usize>,
    ) -> [&'a [T]; 2] {
        let n = self.channels;
        let (weight, bias) = packed.forward[2 * n * j..][..2 * n].split_at(n);
        [&weight[channels.clone()], &bias[channels]]
    }

    /// Writes dγ and dβ of each direction and channel to a gradient, or adds them.
    pub(crate) fn write<T: Scalar>(&self, totals: &[[f64; 2]], gradient: &mut [T], write: Write) {
        write.prepare(gradient);
        let directions = gradient.chunks_exact_mut(2 * self.channels);
        for (gradient, totals) in directions.zip(totals.chunks_exact(self.channels)) {
            for (c, [weight, bias]) in totals.iter().enumerate() {
                gradient[c] += T::from_f64(*weight);
                gradient[self.channels + c] += T::from_f64(*bias);
            }
        }
    }

    pub(crate) fn param_ranges(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone(), self.bias.clone()]
    }

    /// Adds γ = 1 and β = 0 to a network's initial parameters, and returns their names.
    pub(crate) fn init(init: &mut LayerInit, name: &str, channels: usize) -> Result<[String; 2]> {
        let weight = init.constant(format!("{name}.weight"), 1.0, channels)?;
        let bias = init.constant(format!("{name}.bias"), 0.0, channels)?;
        Ok([weight, bias])
    }
}

/// Returns an error unless a parameter has one value per channel.
pub(crate) fn check_len(
    layer: &impl Layer,
    input: &Shape,
    parameters: &Parameters,
    name: &str,
    channels: usize,
) -> Result<(), Misfit> {
    check_dims(
        layer,
        input,
        name,
        param(layer, input, parameters, name)?,
        channels,
    )
}

/// Returns an error unless the tensor of this name has one value per channel.
pub(crate) fn check_dims(
    layer: &impl Layer,
    input: &Shape,
    name: &str,
    tensor: &Tensor,
    channels: usize,
) -> Result<(), Misfit> {
    let shape = tensor.dims();
    match shape == [channels] {
        true => Ok(()),
        false => Err(Misfit::new(
            layer,
            input,
            format!("`{name}` of shape ({channels},), one number per channel, not {shape:?}"),
        )),
    }
}

/// Checks a layer that normalises over the last axis and scales or shifts by parameters of one number per feature.
pub(crate) fn check_last_axis(
    layer: &impl Layer,
    input: &Shape,
    parameters: &Parameters,
    epsilon: f64,
    names: &[&String],
) -> Result<(), Misfit> {
    check_epsilon(layer, input, epsilon)?;
    if input.dims().is_empty() || input.len() == 0 {
        return Err(Misfit::new(layer, input, "at least one feature".into()));
    }
    let mut names = names.iter();
    names.try_for_each(|name| check_len(layer, input, parameters, name, input.last()))
}

/// Checks the number that is added to a variance.
pub(crate) fn check_epsilon(layer: &impl Layer, input: &Shape, epsilon: f64) -> Result<(), Misfit> {
    match epsilon >= 0.0 {
        true => Ok(()),
        false => Err(Misfit::new(
            layer,
            input,
            format!("an epsilon ≥ 0, not {epsilon}"),
        )),
    }
}

/// Reshapes one value per channel to broadcast with x of shape (n, channels, …).
pub(crate) fn per_channel(x: &Tensor, numbers: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[1] = numbers.elem_count();
    numbers.reshape(shape)
}

/// γ x + β, channel by channel, in candle's graph.
pub(crate) fn scaled(x: &Tensor, weight: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_mul(&per_channel(x, weight)?)?
        .broadcast_add(&per_channel(x, bias)?)
}
