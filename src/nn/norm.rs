//! [`LayerNorm`] and [`RmsNorm`] that differentiate twice.

use candle_core::{Module, Result, Tensor};
use candle_nn::{LayerNormConfig, VarBuilder};

use super::ops;

/// Layer normalisation: [`candle_nn::LayerNorm`] computed by [`ops::layer_norm`]. candle's has no derivative.
///
/// # Shapes
/// (…, features), to the same shape.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let ones = Tensor::ones(2, DType::F64, &Device::Cpu)?;
/// let layer = nn::LayerNorm::new(ones.clone(), ones.zeros_like()?, 0.0);
/// let x = Tensor::new(&[[1.0, 3.0]], &Device::Cpu)?;
/// assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, [[-1.0, 1.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    /// A layer with this weight and bias, shape (features,), and ε.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        candle_nn::LayerNorm::new(weight, bias, eps).into()
    }

    /// The same without a bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        candle_nn::LayerNorm::new_no_bias(weight, eps).into()
    }

    /// The scales.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The shifts.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }
}

impl From<candle_nn::LayerNorm> for LayerNorm {
    fn from(layer: candle_nn::LayerNorm) -> Self {
        Self(layer)
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.weight(), self.bias());
        ops::normalize(x, weight, bias, self.eps(), self.0.remove_mean())
    }
}

/// Root-mean-square normalisation: [`candle_nn::RmsNorm`] computed by [`ops::rms_norm`]. candle's has no derivative.
///
/// # Shapes
/// (…, features), to the same shape.
#[derive(Clone, Debug)]
pub struct RmsNorm(candle_nn::RmsNorm);

impl RmsNorm {
    /// A layer with this weight, shape (features,), and ε.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        candle_nn::RmsNorm::new(weight, eps).into()
    }

    /// The scales.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }
}

impl From<candle_nn::RmsNorm> for RmsNorm {
    fn from(layer: candle_nn::RmsNorm) -> Self {
        Self(layer)
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::normalize(x, self.weight(), None, self.eps(), false)
    }
}

/// Replaces [`candle_nn::layer_norm()`]: reads `weight` and `bias` from `vb` under the same names, initialised as 1 and 0.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
/// let norm = nn::layer_norm(3, 1e-5, vb.pp("norm"))?; // was candle_nn::layer_norm
/// let out = candle_nn::linear(3, 2, vb.pp("out"))?;
/// let x = Tensor::new(&[[1.0, 2.0, 4.0], [0.0, 1.0, -1.0]], &Device::Cpu)?;
/// let data = Dataset::classification(&x, &Tensor::new(&[0u32, 1], &Device::Cpu)?)?;
/// let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| {
///     out.forward(&norm.forward(x)?)
/// })?;
/// assert!(objective.derivative_check().hvp < 1e-6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Tensors in `vb` of other shapes.
pub fn layer_norm<C: Into<LayerNormConfig>>(
    size: usize,
    config: C,
    vb: VarBuilder,
) -> Result<LayerNorm> {
    Ok(candle_nn::layer_norm(size, config, vb)?.into())
}

/// Replaces [`candle_nn::layer_norm_no_bias`].
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
    Ok(candle_nn::layer_norm_no_bias(size, eps, vb)?.into())
}

/// Replaces [`candle_nn::rms_norm`]: reads `weight` from `vb`, initialised as 1.
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
    Ok(candle_nn::rms_norm(size, eps, vb)?.into())
}
