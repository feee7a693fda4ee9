//! Building blocks for custom candle models that are fast and twice differentiable: [`conv2d`], [`layer_norm`] and [`rms_norm`]
//! replace candle's functions of these names, and the functions in [`ops`] replace candle's, or a tensor's own.
//!
//! candle's fused operations for transformers have no derivative: `LayerNorm`, `RmsNorm`, `softmax_last_dim`, `rope`. The
//! counterparts here have the same names and arguments. `candle_nn`'s embedding and linear layers differentiate twice. [`seq`]
//! replaces candle's, whose sequences of layers cannot be shared between threads.
//!
//! candle's convolution is slow on the CPU, and has no gradient where its stride leaves a different number of rows
//! than columns; its average pooling is differentiable only for squares that do not overlap, and the gradient of its
//! maximum pooling is too small by the square's area (0.11.1). A model built from these parts works with
//! [`Objective::from_fn`](crate::objective::Objective::from_fn) like any other; the convolution uses the same kernels
//! as the hand-derived rules for [`Layered`](crate::model::Layered) models.
//!
//! ```
//! use loss_landscape::candle_nn::{Conv2dConfig, linear};
//! use loss_landscape::prelude::*;
//!
//! # fn main() -> Result<(), Error> {
//! let vars = VarMap::new();
//! let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
//! let config = Conv2dConfig { padding: 1, ..Default::default() };
//! let first = nn::conv2d(1, 4, 3, config, vb.pp("first"))?; // was candle_nn::conv2d
//! let second = nn::conv2d(4, 8, 3, config, vb.pp("second"))?;
//! let last = linear(8, 10, vb.pp("last"))?;
//!
//! let data = Mnist::load(&Device::Cpu)?.train.first(32)?;
//! let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| {
//!     let h = first.forward(&x.reshape(((), 1, 28, 28))?)?.tanh()?;
//!     let h = second.forward(&nn::ops::max_pool2d(&h, 2, 2)?)?.tanh()?;
//!     last.forward(&h.mean((2, 3))?)
//! })?;
//! println!("{}", objective.derivative_check());
//! assert!(objective.derivative_check().gradient < 1e-2); // in `f32`
//! let sharpest = objective.hessian().top(1)?;
//! assert_eq!(sharpest.dim, objective.dim());
//! # Ok(())
//! # }
//! ```

mod batched_convolution;
mod norm;
pub mod ops;
mod sequential;
mod trilinear;

pub use norm::{LayerNorm, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm};
pub use sequential::{Sequential, seq};

use candle_core::{Module, Result, Tensor};
use candle_nn::{Conv2dConfig, VarBuilder};

/// Two-dimensional convolution: [`candle_nn::Conv2d`] computed by [`ops::conv2d`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // The mean of each pixel and its right neighbour.
/// let weight = Tensor::new(&[0.5, 0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
/// let layer = nn::Conv2d::new(weight, None, Default::default());
/// let image = Tensor::new(&[1.0, 3.0, 7.0], &Device::Cpu)?.reshape((1, 1, 1, 3))?;
/// let means = layer.forward(&image)?.flatten_all()?.to_vec1::<f64>()?;
/// assert_eq!(means, [2.0, 5.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d(candle_nn::Conv2d);

impl Conv2d {
    /// A convolution with this weight, shape (channels out, channels in / groups, height, width), and an optional
    /// bias of shape (channels out,).
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        candle_nn::Conv2d::new(weight, bias, config).into()
    }

    /// The kernels.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The biases.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// Padding, stride, dilation and groups.
    pub fn config(&self) -> &Conv2dConfig {
        self.0.config()
    }
}

impl From<candle_nn::Conv2d> for Conv2d {
    fn from(conv: candle_nn::Conv2d) -> Self {
        Self(conv)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !ops::has_kernels(x) {
            return self.0.forward(x);
        }
        let config = self.config();
        let numbers = [
            config.padding,
            config.stride,
            config.dilation,
            config.groups,
        ];
        ops::convolution(x, self.weight(), self.bias(), numbers)
    }
}

/// Counterpart of [`candle_nn::conv2d`]: a convolution with square kernels and a bias. Reads `weight` and `bias` from
/// `vb` under the same names, initialised from the same distributions.
///
/// ```
/// use loss_landscape::candle_nn::Conv2dConfig;
/// use loss_landscape::prelude::*;
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
/// let layer = nn::conv2d(
///     2,
///     4,
///     3,
///     Conv2dConfig {
///         padding: 1,
///         ..Default::default()
///     },
///     vb,
/// )?;
/// assert_eq!(Parameters::try_from(&vars)?.len(), 4 * 2 * 3 * 3 + 4);
/// let image = Tensor::ones((1, 2, 5, 5), DType::F64, &Device::Cpu)?;
/// assert_eq!(layer.forward(&image)?.dims(), [1, 4, 5, 5]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Tensors in `vb` of other shapes; zero groups.
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    check_groups(&config)?;
    Ok(candle_nn::conv2d(in_channels, out_channels, kernel_size, config, vb)?.into())
}

/// The same without a bias: [`candle_nn::conv2d_no_bias`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
/// let layer = nn::conv2d_no_bias(2, 4, 3, Default::default(), vb)?;
/// assert!(layer.bias().is_none());
/// let image = Tensor::zeros((1, 2, 5, 5), DType::F64, &Device::Cpu)?;
/// assert_eq!(layer.forward(&image)?.dims(), [1, 4, 3, 3]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    check_groups(&config)?;
    Ok(candle_nn::conv2d_no_bias(in_channels, out_channels, kernel_size, config, vb)?.into())
}

/// candle divides by the number of groups.
fn check_groups(config: &Conv2dConfig) -> Result<()> {
    if config.groups == 0 {
        candle_core::bail!("a convolution of 0 groups: give 1, or a divisor of both channels");
    }
    Ok(())
}
