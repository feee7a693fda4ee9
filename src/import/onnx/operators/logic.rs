//! Types, comparisons and selection.

use candle_core::{DType, Device, Tensor};

use super::super::evaluate::{Call, Failure};
use super::super::graph::Kind;
use super::super::tensors::Type;
use super::broadcast_shape;

/// Conversion between floats, integers and booleans. All floats have the model's type.
pub(super) fn cast(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let kind = match call.node.op.as_str() {
        "CastLike" => Kind::of(call.input(1)?),
        _ => {
            let to = call.node.int_or("to", 1)?;
            let kind = i32::try_from(to).map_err(|_| format!("unknown type {to}"));
            kind.and_then(Type::of)
                .map_err(|problem| call.problem(format_args!("converts to {problem}")))?
                .kind()
        }
    };
    Ok(match (Kind::of(x), kind) {
        (from, to) if from == to => x.clone(),
        (_, Kind::Float) => x.to_dtype(call.dtype)?.to_device(call.device)?,
        (_, Kind::Integer) => x.detach().to_device(&Device::Cpu)?.to_dtype(DType::I64)?,
        (_, Kind::Boolean) => x.detach().ne(0.0)?,
    })
}

/// The same values as a vector of the broadcast shape, on the host.
fn values<T: candle_core::WithDType>(x: &Tensor, shape: &[usize]) -> Result<Vec<T>, Failure> {
    let x = x.to_device(&Device::Cpu)?.broadcast_as(shape)?;
    Ok(x.flatten_all()?.to_vec1()?)
}

pub(super) fn compare(call: &Call) -> Result<Tensor, Failure> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = broadcast_shape(call, &[a.dims(), b.dims()])?;
    let op = call.node.op.as_str();
    if Kind::of(a) != Kind::of(b) {
        return Err(call.problem("compares entries of different types"));
    }
    if Kind::of(a) == Kind::Float {
        let (a, b) = (a.detach(), b.detach());
        return Ok(match op {
            "Equal" => a.broadcast_eq(&b)?,
            "Greater" => a.broadcast_gt(&b)?,
            "Less" => a.broadcast_lt(&b)?,
            "GreaterOrEqual" => a.broadcast_ge(&b)?,
            _ => a.broadcast_le(&b)?,
        });
    }
    let [a, b] = [a.to_dtype(DType::I64)?, b.to_dtype(DType::I64)?];
    let pairs = values::<i64>(&a, &shape)?
        .into_iter()
        .zip(values::<i64>(&b, &shape)?);
    let compared = pairs.map(|(a, b)| match op {
        "Equal" => a == b,
        "Greater" => a > b,
        "Less" => a < b,
        "GreaterOrEqual" => a >= b,
        _ => a <= b,
    });
    let compared: Vec<u8> = compared.map(u8::from).collect();
    Ok(Tensor::from_vec(compared, shape, &Device::Cpu)?)
}

pub(super) fn logic(call: &Call) -> Result<Tensor, Failure> {
    let op = call.node.op.as_str();
    if op == "IsNaN" {
        let x = call.floats(0)?.detach();
        return Ok(x.ne(&x)?);
    }
    let operand = |i: usize| {
        let x = call.input(i)?;
        match Kind::of(x) {
            Kind::Boolean => Ok(x),
            kind => Err(call.problem(format_args!(
                "has {kind:?} entries as input {i}, expected booleans"
            ))),
        }
    };
    let a = operand(0)?;
    if op == "Not" {
        return Ok(a.eq(0u8)?);
    }
    let b = operand(1)?;
    let shape = broadcast_shape(call, &[a.dims(), b.dims()])?;
    let pairs = values::<u8>(a, &shape)?
        .into_iter()
        .zip(values::<u8>(b, &shape)?);
    let both = pairs.map(|(a, b)| match (op, a != 0, b != 0) {
        ("And", a, b) => a && b,
        ("Or", a, b) => a || b,
        (_, a, b) => a != b,
    });
    let both: Vec<u8> = both.map(u8::from).collect();
    Ok(Tensor::from_vec(both, shape, a.device())?)
}

/// `Where`: entries of the second input where the first is true, and of the third elsewhere.
pub(super) fn select(call: &Call) -> Result<Tensor, Failure> {
    let (condition, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if Kind::of(condition) != Kind::Boolean || Kind::of(a) != Kind::of(b) {
        return Err(call.problem("needs booleans, and two inputs of one type"));
    }
    let shape = broadcast_shape(call, &[condition.dims(), a.dims(), b.dims()])?;
    let condition = condition.to_device(a.device())?.broadcast_as(&shape[..])?;
    Ok(condition.where_cond(&a.broadcast_as(&shape[..])?, &b.broadcast_as(&shape[..])?)?)
}
