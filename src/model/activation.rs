//! [`Activation`]: the non-linearities of the models, each differentiable twice in candle.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// An element-wise non-linearity.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[0.0], &Device::Cpu)?;
/// let at_zero =
///     |activation: Activation| Ok::<_, Error>(activation.apply(&x)?.to_vec1::<f64>()?[0]);
/// assert_eq!(at_zero(Activation::Sigmoid)?, 0.5);
/// assert!((at_zero(Activation::Softplus)? - 2f64.ln()).abs() < 1e-15);
/// for activation in [Activation::Tanh, Activation::Relu, Activation::Gelu] {
///     assert_eq!(at_zero(activation)?, 0.0);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// σ(x) = 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// max(x, 0); its derivative at 0 is taken to be 1, as in candle
    Relu,
    /// x Φ(x) with the Gaussian distribution function Φ, by erf and not its tanh approximation
    /// (Hendrycks and Gimpel, 2016)
    Gelu,
    /// ln(1 + eˣ)
    Softplus,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 5] = [
        Self::Sigmoid,
        Self::Tanh,
        Self::Relu,
        Self::Gelu,
        Self::Softplus,
    ];

    /// The activation of each element of `x`.
    ///
    /// # Errors
    /// candle's, for a tensor that is not floating point.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Sigmoid => candle_nn::ops::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
            // candle's own GELU has derivative constants of six digits.
            Self::Gelu => (x * 0.5)? * ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?,
            Self::Softplus => softplus(x),
        }
    }
}

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
