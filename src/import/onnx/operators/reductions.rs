//! Sums, means and other reductions, and softmax.

use candle_core::{D, Tensor};

use super::super::evaluate::{Call, Failure};
use super::super::graph::Kind;
use super::unsupported;
use crate::nn;

/// The axes of a reduction in descending order; all if none are given.
fn axes(call: &Call, rank: usize) -> Result<Option<Vec<usize>>, Failure> {
    let axes = call.ints_of("axes", 1)?.unwrap_or_default();
    if axes.is_empty() && call.node.int_or("noop_with_empty_axes", 0)? == 1 {
        return Ok(None);
    }
    let axes = axes.into_iter().map(|axis| call.axis(axis, rank));
    let mut axes = axes.collect::<Result<Vec<_>, _>>()?;
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    axes.sort_unstable();
    axes.dedup();
    axes.reverse();
    Ok(Some(axes))
}

pub(super) fn reduce(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let Some(axes) = axes(call, x.rank())? else {
        return Ok(x.clone());
    };
    let reduced = match Kind::of(x) {
        Kind::Integer => integers(call, x, &axes)?,
        _ => floats(call, call.floats(0)?, &axes)?,
    };
    if call.node.int_or("keepdims", 1)? == 1 {
        return Ok(reduced);
    }
    // The axes descend.
    let squeezed = axes.iter().try_fold(reduced, |x, axis| x.squeeze(*axis));
    Ok(squeezed?)
}

fn floats(call: &Call, x: &Tensor, axes: &[usize]) -> Result<Tensor, Failure> {
    let each = |f: &dyn Fn(&Tensor, usize) -> candle_core::Result<Tensor>, x: &Tensor| {
        axes.iter().try_fold(x.clone(), |x, axis| f(&x, *axis))
    };
    let sum = |x: &Tensor| x.sum_keepdim(axes);
    let largest = |x: &Tensor| each(&|x, axis| x.max_keepdim(axis), x);
    let count: usize = axes.iter().map(|axis| x.dims()[*axis]).product();
    Ok(match call.node.op.as_str() {
        "ReduceSum" => sum(x)?,
        "ReduceMean" if count == 0 => return Err(call.problem("takes the mean of no entries")),
        "ReduceMean" => (sum(x)? / count as f64)?,
        "ReduceSumSquare" => sum(&x.sqr()?)?,
        "ReduceL1" => sum(&x.abs()?)?,
        "ReduceL2" => sum(&x.sqr()?)?.sqrt()?,
        "ReduceLogSum" => sum(x)?.log()?,
        "ReduceLogSumExp" => {
            let largest = largest(&x.detach())?;
            (sum(&x.broadcast_sub(&largest)?.exp()?)?.log()? + largest)?
        }
        "ReduceMax" => largest(x)?,
        "ReduceMin" => each(&|x, axis| x.min_keepdim(axis), x)?,
        _ => return Err(unsupported(call)),
    })
}

/// Reductions of all entries, as in computations of shapes.
fn integers(call: &Call, x: &Tensor, axes: &[usize]) -> Result<Tensor, Failure> {
    if axes.len() != x.rank() {
        return Err(call.problem("reduces some axes of integers, which is not supported"));
    }
    let values: Vec<i64> = x.flatten_all()?.to_vec1()?;
    let values = values.into_iter();
    let value = match call.node.op.as_str() {
        "ReduceSum" => values.reduce(i64::wrapping_add),
        "ReduceProd" => values.reduce(i64::wrapping_mul),
        "ReduceMax" => values.max(),
        "ReduceMin" => values.min(),
        _ => return Err(unsupported(call)),
    };
    let value = value.ok_or_else(|| call.problem("reduces no entries"))?;
    Ok(Tensor::from_vec(
        vec![value],
        vec![1; x.rank()],
        x.device(),
    )?)
}

pub(super) fn softmax(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    let is_old = call.node.opset < 13;
    let axis = call.axis_of_first(if is_old { 1 } else { -1 })?;
    // Before version 13, all axes from `axis` on are one.
    if is_old && axis + 1 != x.rank() {
        return Err(
            call.problem("is over several axes: export the model with opset_version 13 or later")
        );
    }
    if x.dims().contains(&0) {
        return Ok(x.clone());
    }
    Ok(match call.node.op.as_str() {
        "Softmax" => nn::ops::softmax(x, axis)?,
        _ => {
            let shifted = x.broadcast_sub(&x.detach().max_keepdim(axis)?)?;
            let sum = shifted.exp()?.sum_keepdim(axis)?;
            shifted.broadcast_sub(&sum.log()?)?
        }
    })
}

/// Sums of the integers up to each position of an axis.
pub(super) fn cumulative_sum(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axis = call.ints(1)?;
    let [axis] = axis[..] else {
        return Err(call.problem("needs one axis"));
    };
    let axis = call.axis(axis, x.rank())?;
    let is_plain = ["exclusive", "reverse"].map(|name| call.node.int_or(name, 0));
    if Kind::of(x) != Kind::Integer || is_plain != [Ok(0), Ok(0)] {
        return Err(call.problem("is supported only for integers, neither exclusive nor reversed"));
    }
    let last = x.rank() - 1;
    let moved = x.transpose(axis, last)?.contiguous()?;
    let mut values: Vec<i64> = moved.flatten_all()?.to_vec1()?;
    for row in values.chunks_mut(moved.dim(D::Minus1)?.max(1)) {
        let mut sum = 0i64;
        for value in row {
            sum = sum.wrapping_add(*value);
            *value = sum;
        }
    }
    let sums = Tensor::from_vec(values, moved.dims(), x.device())?;
    Ok(sums.transpose(axis, last)?.contiguous()?)
}
