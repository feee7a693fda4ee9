//! Normalisation and dropout.

use candle_core::{D, Tensor};
use rand_chacha::ChaCha8Rng;

use super::super::evaluate::{Call, Failure, Mode};
use super::super::graph::Node;
use super::Outputs;
use crate::layers::{BatchNorm, Dropout, LayerKind, Pass, forward};
use crate::parameters::Parameters;

/// A vector of one number per channel, along axis 1 of a tensor of rank `rank`.
fn per_channel(x: &Tensor, rank: usize) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; rank.max(2)];
    shape[1] = x.elem_count();
    x.reshape(shape)
}

/// x γ + β with one γ and β per channel.
fn scaled(x: &Tensor, scale: &Tensor, shift: &Tensor) -> candle_core::Result<Tensor> {
    let rank = x.rank();
    x.broadcast_mul(&per_channel(scale, rank)?)?
        .broadcast_add(&per_channel(shift, rank)?)
}

/// (x − mean)/√(variance + ε) over the last axis, with the biased variance.
fn standardised(x: &Tensor, epsilon: f64) -> candle_core::Result<Tensor> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    centered.broadcast_div(&(variance + epsilon)?.sqrt()?)
}

pub(super) fn batch(call: &mut Call) -> Result<Tensor, Failure> {
    let epsilon = call.node.float_or("epsilon", 1e-5)?;
    if call.floats(0)?.rank() < 2 {
        return Err(call.problem("needs inputs of shape (n, channels, …)"));
    }
    let channels = call.input(0)?.dims()[1];
    for i in 1..5 {
        let len = call.floats(i)?.elem_count();
        if len != channels {
            return Err(call.problem(format_args!(
                "has {len} entries as input {i}, and {channels} channels"
            )));
        }
    }
    let x = call.floats(0)?.clone();
    if let Mode::Training { parameters, rng } = &mut *call.mode
        && let Some(layer) = trained(call.node, parameters, epsilon)?
    {
        return Ok(as_layer(layer, &x, parameters, rng)?);
    }
    let rank = x.rank();
    let mean = per_channel(call.floats(3)?, rank)?;
    let deviation = (per_channel(call.floats(4)?, rank)? + epsilon)?.sqrt()?;
    let normal = x.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
    Ok(scaled(&normal, call.floats(1)?, call.floats(2)?)?)
}

/// The layer of a batch normalisation whose statistics and parameters are the model's.
fn trained(
    node: &Node,
    parameters: &Parameters,
    epsilon: f64,
) -> Result<Option<LayerKind>, Failure> {
    let name = |i: usize| node.required_input(i).map(str::to_owned);
    let layer = BatchNorm {
        weight: name(1)?,
        bias: name(2)?,
        mean: name(3)?,
        variance: name(4)?,
        epsilon,
        momentum: 1.0 - node.float_or("momentum", 0.9)?,
    };
    let are_parameters = [&layer.weight, &layer.bias].map(|name| parameters.get(name).is_ok());
    let are_statistics =
        [&layer.mean, &layer.variance].map(|name| parameters.statistic(name).is_ok());
    let is_trained = are_parameters == [true; 2] && are_statistics == [true; 2];
    Ok(is_trained.then(|| layer.into()))
}

/// The training pass of a layer.
fn as_layer(
    layer: LayerKind,
    x: &Tensor,
    parameters: &Parameters,
    rng: &mut ChaCha8Rng,
) -> candle_core::Result<Tensor> {
    let mut pass = Pass::Training(Box::new(rng.clone()));
    let y = forward(&[layer], x, parameters, &mut pass)?;
    if let Pass::Training(after) = pass {
        *rng = *after;
    }
    Ok(y)
}

/// Drops entries in a training step.
pub(super) fn dropout(call: &mut Call) -> Outputs {
    let x = call.input(0)?.clone();
    let rate = match call.node.float_or("ratio", 0.5)? {
        _ if call.optional(1).is_some() => call.number(1, 0.5)?,
        rate => rate,
    };
    Ok(vec![match call.mode {
        Mode::Training { parameters, rng } => {
            as_layer(Dropout::new(rate).into(), &x, parameters, rng)?
        }
        Mode::Inference => x,
    }])
}

/// Normalisation of each channel of each sample.
pub(super) fn instance(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    if x.rank() < 3 {
        return Err(call.problem("needs inputs of shape (n, channels, height, width)"));
    }
    let normal = standardised(&x.flatten_from(2)?, call.node.float_or("epsilon", 1e-5)?)?;
    let normal = normal.reshape(x.shape())?;
    Ok(scaled(&normal, call.floats(1)?, call.floats(2)?)?)
}

/// Normalisation of groups of channels of each sample. Scales and shifts are per group before version 21, then per channel.
pub(super) fn group(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    let groups = usize::try_from(call.node.int_or("num_groups", 0)?).unwrap_or(0);
    let channels = x.dims().get(1).copied().unwrap_or(0);
    if groups == 0 || channels % groups != 0 {
        return Err(call.problem(format_args!("has {groups} groups for {channels} channels")));
    }
    let n = x.dim(0)?;
    let rows = x.reshape((n, groups, ()))?;
    let normal = standardised(&rows, call.node.float_or("epsilon", 1e-5)?)?;
    let (scale, shift) = (call.floats(1)?, call.floats(2)?);
    Ok(match scale.elem_count() == channels {
        true => scaled(&normal.reshape(x.shape())?, scale, shift)?,
        false => scaled(&normal, scale, shift)?.reshape(x.shape())?,
    })
}

/// Normalisation over the axes from `axis` on.
pub(super) fn layer(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    let axis = call.axis_of_first(-1)?;
    let epsilon = call.node.float_or("epsilon", 1e-5)?;
    let rows = x.flatten_from(axis)?;
    let normal = match call.node.op.as_str() {
        "LayerNormalization" => standardised(&rows, epsilon)?,
        _ => rows.broadcast_div(&(rows.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?)?,
    };
    let mut y = normal.reshape(x.shape())?.broadcast_mul(call.floats(1)?)?;
    if call.optional(2).is_some() {
        y = y.broadcast_add(call.floats(2)?)?;
    }
    Ok(y)
}
