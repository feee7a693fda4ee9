//! Functions of candle tensors that are accurate and differentiable twice where candle's own are not.

use candle_core::{Result, Tensor};

/// ln(1 + eˣ) = max(x, 0) + ln(1 + exp(−|x|)), right for every x and differentiable twice: candle takes 1 for the derivatives of
/// max(x, 0) and |x| at 0, and together they give ½.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + ln_1p(&x.abs()?.neg()?.exp()?)?
}

/// ln(1 + x) for x ≥ 0, right where 1 + x is rounded to 1.
pub(crate) fn ln_1p(x: &Tensor) -> Result<Tensor> {
    let sum = (x + 1.0)?;
    // The rounding of the sum, put right to first order. As a constant it leaves the derivative at 1 / (1 + x).
    let lost = ((x - (&sum - 1.0)?)? / &sum)?.detach();
    sum.log()? + lost
}
