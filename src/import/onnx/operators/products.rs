//! Matrix products.

use candle_core::{D, Tensor};

use super::super::evaluate::{Call, Failure};
use super::broadcast_shape;

pub(super) fn matmul(call: &Call) -> Result<Tensor, Failure> {
    let (a, b) = (call.floats(0)?, call.floats(1)?);
    if a.rank() == 0 || b.rank() == 0 {
        return Err(call.problem("multiplies a number, expected vectors or matrices"));
    }
    // Vectors become a row or a column, whose axis is removed again.
    let left = if a.rank() == 1 {
        a.unsqueeze(0)?
    } else {
        a.clone()
    };
    let right = if b.rank() == 1 {
        b.unsqueeze(1)?
    } else {
        b.clone()
    };
    let (rows, inner) = (left.dim(D::Minus2)?, left.dim(D::Minus1)?);
    let (other, columns) = (right.dim(D::Minus2)?, right.dim(D::Minus1)?);
    if inner != other {
        return Err(call.problem(format_args!(
            "cannot multiply matrices of shape {:?} and {:?}",
            a.dims(),
            b.dims()
        )));
    }
    let leading = [
        &left.dims()[..left.rank() - 2],
        &right.dims()[..right.rank() - 2],
    ];
    let leading = broadcast_shape(call, &leading)?;
    let product = match right.rank() {
        // One product for all leading axes.
        2 => {
            let all: usize = left.dims()[..left.rank() - 1].iter().product();
            let left = left.contiguous()?.reshape((all, inner))?;
            left.matmul(&right.contiguous()?)?
        }
        _ => {
            let both = [(&left, rows), (&right, other)].map(|(x, rows)| {
                let columns = x.dim(D::Minus1)?;
                let shape = [&leading[..], &[rows, columns]].concat();
                x.broadcast_as(shape)?.contiguous()
            });
            let [left, right] = both;
            left?.matmul(&right?)?
        }
    };
    let mut shape = leading;
    shape.extend((a.rank() > 1).then_some(rows));
    shape.extend((b.rank() > 1).then_some(columns));
    Ok(product.reshape(shape)?)
}

/// α A B + β C, with A and B transposed or not.
pub(super) fn gemm(call: &Call) -> Result<Tensor, Failure> {
    let node = call.node;
    let side = |i: usize, transposed: &str| -> Result<Tensor, Failure> {
        let x = call.floats(i)?;
        if x.rank() != 2 {
            return Err(call.problem(format_args!(
                "has input {i} of shape {:?}, expected a matrix",
                x.dims()
            )));
        }
        Ok(match node.int_or(transposed, 0)? {
            0 => x.contiguous()?,
            _ => x.t()?,
        })
    };
    let (a, b) = (side(0, "transA")?, side(1, "transB")?);
    let scaled = |x: Tensor, factor: f64| if factor == 1.0 { Ok(x) } else { x * factor };
    let product = scaled(a.matmul(&b)?, node.float_or("alpha", 1.0)?)?;
    match call.optional(2) {
        None => Ok(product),
        Some(_) => {
            let c = scaled(call.floats(2)?.clone(), node.float_or("beta", 1.0)?)?;
            Ok(product.broadcast_add(&c)?)
        }
    }
}
