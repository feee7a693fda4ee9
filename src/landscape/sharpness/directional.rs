//! [`directional_sharpness`]: curvature of the loss along one direction.

use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::vector::{dot, norm};

/// Returns vᵀHv / ‖v‖², the curvature of the loss along `v`.
///
/// ```
/// use loss_landscape::landscape::directional_sharpness;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w².
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let mean = directional_sharpness(&objective, &[3.0, 3.0])?;
/// assert!((mean - (2.0 + 8.0) / 2.0).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// `v` is zero, has the wrong length or entries that are not finite; the Hessian–vector product fails.
pub fn directional_sharpness(objective: &Objective, v: &[f64]) -> Result<f64> {
    let square = norm(v).powi(2);
    if square == 0.0 {
        return Err(Error::invalid("the vector is zero: it has no direction"));
    }
    Ok(dot(&objective.hvp(v)?, v) / square)
}
