//! Arithmetic, element by element.

use candle_core::Tensor;

use super::super::evaluate::{Call, Failure};
use super::super::graph::Kind;
use super::{broadcast_shape, unsupported};
use crate::layers::Activation;
use crate::tensor_functions::entries;

/// Both operands of one kind, or an error.
fn operands<'a>(call: &'a Call) -> Result<(&'a Tensor, &'a Tensor, Kind), Failure> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let kinds = [Kind::of(a), Kind::of(b)];
    match kinds[0] == kinds[1] {
        true => Ok((a, b, kinds[0])),
        false => Err(call.problem(format_args!(
            "mixes {:?} and {:?} entries",
            kinds[0], kinds[1]
        ))),
    }
}

pub(super) fn binary(call: &Call) -> Result<Tensor, Failure> {
    let op = call.node.op.as_str();
    if op == "Pow" {
        return pow(call);
    }
    let (a, b, kind) = operands(call)?;
    let shape = broadcast_shape(call, &[a.dims(), b.dims()])?;
    match kind {
        Kind::Integer => integers(call, (a, b), &shape),
        Kind::Boolean => Err(call.problem("has booleans as inputs, expected numbers")),
        Kind::Float => {
            // A constant number costs no broadcast and no derivative.
            let number = |x: &Tensor, other: &Tensor| -> Result<Option<f64>, Failure> {
                let is_number = x.elem_count() == 1 && !x.track_op() && x.rank() <= other.rank();
                match is_number {
                    true => Ok(Some(entries(x)?[0])),
                    false => Ok(None),
                }
            };
            let (left, right) = (number(a, b)?, number(b, a)?);
            Ok(match (op, left, right) {
                ("Add", _, Some(c)) => a.affine(1.0, c)?,
                ("Add", Some(c), _) => b.affine(1.0, c)?,
                ("Sub", _, Some(c)) => a.affine(1.0, -c)?,
                ("Sub", Some(c), _) => b.affine(-1.0, c)?,
                ("Mul", _, Some(c)) => a.affine(c, 0.0)?,
                ("Mul", Some(c), _) => b.affine(c, 0.0)?,
                ("Add", ..) => a.broadcast_add(b)?,
                ("Sub", ..) => a.broadcast_sub(b)?,
                ("Mul", ..) => a.broadcast_mul(b)?,
                ("Div", ..) => a.broadcast_div(b)?,
                _ => return Err(call.problem("has floats as inputs, expected integers")),
            })
        }
    }
}

/// Arithmetic on integers wraps around, as on the machine.
fn integers(call: &Call, (a, b): (&Tensor, &Tensor), shape: &[usize]) -> Result<Tensor, Failure> {
    let op = call.node.op.as_str();
    let values = |x: &Tensor| -> Result<Vec<i64>, Failure> {
        Ok(x.broadcast_as(shape)?.flatten_all()?.to_vec1()?)
    };
    let compute = |(a, b): (i64, i64)| match (op, b) {
        ("Add", _) => Some(a.wrapping_add(b)),
        ("Sub", _) => Some(a.wrapping_sub(b)),
        ("Mul", _) => Some(a.wrapping_mul(b)),
        ("Pow", _) => Some(a.wrapping_pow(u32::try_from(b).ok()?)),
        (_, 0) => None,
        ("Div", _) => Some(a.wrapping_div(b)),
        // The remainder has the sign of the divisor, or of the dividend if `fmod` is set.
        ("Mod", _) => {
            let remainder = a.wrapping_rem(b);
            let is_fmod = call.node.int_or("fmod", 0) == Ok(1);
            let is_other_sign = remainder != 0 && (remainder < 0) != (b < 0);
            Some(if is_other_sign && !is_fmod {
                remainder + b
            } else {
                remainder
            })
        }
        _ => None,
    };
    let results: Option<Vec<i64>> = values(a)?
        .into_iter()
        .zip(values(b)?)
        .map(compute)
        .collect();
    let results = results
        .ok_or_else(|| call.problem("divides an integer by 0, or has a negative exponent"))?;
    Ok(Tensor::from_vec(results, shape, a.device())?)
}

fn pow(call: &Call) -> Result<Tensor, Failure> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = broadcast_shape(call, &[a.dims(), b.dims()])?;
    match (Kind::of(a), Kind::of(b)) {
        (Kind::Integer, Kind::Integer) => integers(call, (a, b), &shape),
        (Kind::Float, _) if b.elem_count() == 1 && !b.track_op() => {
            let exponent = call.number(1, 1.0)?;
            let power = match exponent {
                0.5 => a.sqrt()?,
                1.0 => a.clone(),
                2.0 => a.sqr()?,
                3.0 => (a.sqr()? * a)?,
                -1.0 => a.recip()?,
                -0.5 => a.sqrt()?.recip()?,
                _ => a.powf(exponent)?,
            };
            Ok(power.broadcast_as(shape)?)
        }
        (Kind::Float, Kind::Float) => Ok(a.broadcast_pow(b)?),
        _ => Err(call.problem("has a base or an exponent of an unsupported type")),
    }
}

/// Sum, mean, maximum or minimum of all inputs.
pub(super) fn variadic(call: &Call) -> Result<Tensor, Failure> {
    let op = call.node.op.as_str();
    let shapes: Vec<&[usize]> = call.inputs.iter().flatten().map(Tensor::dims).collect();
    let shape = broadcast_shape(call, &shapes)?;
    let mut total = call.input(0)?.clone();
    for i in 1..call.inputs.len() {
        let next = call.input(i)?;
        if Kind::of(next) != Kind::of(&total) {
            return Err(call.problem("mixes entries of different types"));
        }
        total = match (op, Kind::of(next)) {
            ("Max", _) => total.broadcast_maximum(next)?,
            ("Min", _) => total.broadcast_minimum(next)?,
            (_, Kind::Float) => total.broadcast_add(next)?,
            _ => return Err(call.problem("has integers as inputs, expected floats")),
        };
    }
    let total = total.broadcast_as(shape)?;
    match op {
        "Mean" => Ok((total / call.inputs.len() as f64)?),
        _ => Ok(total),
    }
}

/// x where it is positive, and `negative` elsewhere. Unlike max(x, 0), it has one derivative at 0.
fn where_positive(x: &Tensor, negative: &Tensor) -> candle_core::Result<Tensor> {
    is_positive(x)?.where_cond(x, negative)
}

fn is_positive(x: &Tensor) -> candle_core::Result<Tensor> {
    x.detach().gt(0.0)
}

/// eˣ − 1 where x is negative, and 0 elsewhere: the exponential of a large x would overflow.
fn negative_exponential(x: &Tensor) -> candle_core::Result<Tensor> {
    let negative = is_positive(x)?.where_cond(&x.zeros_like()?, x)?;
    negative.exp()? - 1.0
}

/// x between two bounds, each if it is there.
fn clamp(x: &Tensor, bounds: [Option<f64>; 2]) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for (i, bound) in bounds.into_iter().enumerate() {
        let Some(bound) = bound.filter(|bound| bound.is_finite()) else {
            continue;
        };
        let at_bound = Tensor::full(bound, x.shape(), x.device())?.to_dtype(x.dtype())?;
        let is_outside = match i {
            0 => x.detach().lt(&at_bound)?,
            _ => x.detach().gt(&at_bound)?,
        };
        x = is_outside.where_cond(&at_bound, &x)?;
    }
    Ok(x)
}

pub(super) fn clip(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    let bound = |i: usize| match call.optional(i) {
        None => Ok(None),
        Some(_) => call.number(i, 0.0).map(Some),
    };
    Ok(clamp(x, [bound(1)?, bound(2)?])?)
}

pub(super) fn prelu(call: &Call) -> Result<Tensor, Failure> {
    let (x, slope) = (call.floats(0)?, call.floats(1)?);
    Ok(where_positive(x, &x.broadcast_mul(slope)?)?)
}

pub(super) fn unary(call: &Call) -> Result<Tensor, Failure> {
    let (op, node) = (call.node.op.as_str(), call.node);
    let x = call.input(0)?;
    if Kind::of(x) == Kind::Integer {
        let f: fn(i64) -> i64 = match op {
            "Neg" => i64::wrapping_neg,
            "Abs" => i64::wrapping_abs,
            "Sign" => i64::signum,
            _ => return Err(unsupported(call)),
        };
        let values: Vec<i64> = x.flatten_all()?.to_vec1()?;
        let values: Vec<i64> = values.into_iter().map(f).collect();
        return Ok(Tensor::from_vec(values, x.dims(), x.device())?);
    }
    let number = |name: &str, default: f64| node.float_or(name, default);
    let x = call.floats(0)?;
    let hard_sigmoid =
        |slope: f64, shift: f64| clamp(&x.affine(slope, shift)?, [Some(0.0), Some(1.0)]);
    let sigmoid = candle_nn::ops::sigmoid;
    Ok(match op {
        "Relu" => Activation::Relu.apply(x)?,
        "Sigmoid" => Activation::Sigmoid.apply(x)?,
        "Tanh" => Activation::Tanh.apply(x)?,
        "Softplus" => Activation::Softplus.apply(x)?,
        "Gelu" => match node.text_or("approximate", "none")? {
            "tanh" => Activation::GeluTanh.apply(x)?,
            _ => Activation::Gelu.apply(x)?,
        },
        "Swish" => (x * sigmoid(&(x * number("alpha", 1.0)?)?)?)?,
        "Mish" => (x * Activation::Softplus.apply(x)?.tanh()?)?,
        "HardSigmoid" => hard_sigmoid(number("alpha", 0.2)?, number("beta", 0.5)?)?,
        "HardSwish" => (x * hard_sigmoid(1.0 / 6.0, 0.5)?)?,
        "LeakyRelu" => where_positive(x, &(x * number("alpha", 0.01)?)?)?,
        "Elu" => where_positive(x, &(negative_exponential(x)? * number("alpha", 1.0)?)?)?,
        "Celu" => {
            let alpha = number("alpha", 1.0)?;
            where_positive(x, &(negative_exponential(&(x / alpha)?)? * alpha)?)?
        }
        "Selu" => {
            let (alpha, gamma) = (number("alpha", 1.673_263_2)?, number("gamma", 1.050_701)?);
            (where_positive(x, &(negative_exponential(x)? * alpha)?)? * gamma)?
        }
        "ThresholdedRelu" => {
            let is_above = x.detach().gt(number("alpha", 1.0)?)?;
            is_above.where_cond(x, &x.zeros_like()?)?
        }
        "Softsign" => (x / (x.abs()? + 1.0)?)?,
        "Abs" => x.abs()?,
        "Neg" => x.neg()?,
        "Exp" => x.exp()?,
        "Log" => x.log()?,
        "Sqrt" => x.sqrt()?,
        "Reciprocal" => x.recip()?,
        "Erf" => x.erf()?,
        "Sin" => x.sin()?,
        "Cos" => x.cos()?,
        "Floor" => x.floor()?,
        "Ceil" => x.detach().ceil()?,
        "Round" => x.round()?,
        _ => x.sign()?,
    })
}
