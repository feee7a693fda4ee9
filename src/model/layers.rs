//! [`LayerKind`] and [`Layered`]: models as lists of layers.

use candle_core::{D, DType, Module, Result, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::training::{dropped, normal_in_batch};
use super::{Activation, Model, Parameters};
use crate::error::Error;
use crate::nn;

/// A layer, or layers in a block. Parameters go by their names; images are channels × height × width.
///
/// See [`Layered`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LayerKind {
    /// h ← h Wᵀ + b, on each sample as one vector.
    Linear {
        /// Name of W, outputs × inputs.
        weight: String,
        /// Name of b.
        bias: String,
    },
    /// h ← φ(h)
    Activation(Activation),
    /// Each sample as one vector.
    Flatten,
    /// Each sample as an image of these channels, height and width.
    Unflatten([usize; 3]),
    /// A 2-D convolution (cross-correlation, as everywhere in the field), zeros around the image.
    Conv2d {
        /// Name of the kernels: channels out × channels in / groups × height × width.
        weight: String,
        /// Name of a number for each channel out, if there is one.
        bias: Option<String>,
        /// Step between places.
        stride: usize,
        /// Rows and columns of zeros on each side.
        padding: usize,
        /// Step within the kernel.
        dilation: usize,
        /// Groups of channels that do not mix.
        groups: usize,
    },
    /// Group normalisation (Wu and He, 2018): each group of channels of each sample to mean 0 and variance 1, then
    /// γh + β, channel by channel. With one group and images of one place it is layer normalisation.
    GroupNorm {
        /// Name of γ, a number for each channel.
        weight: String,
        /// Name of β.
        bias: String,
        /// Groups of neighbouring channels.
        groups: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Batch normalisation (Ioffe and Szegedy, 2015): each channel to mean 0 and variance 1, then γh + β.
    ///
    /// In a step of training mean and biased variance are the batch's own, over its samples and places, and move
    /// the running ones: r ← (1 − m)r + m s with the batch's mean or unbiased variance s. Everywhere else they are
    /// the running ones as they stand, and samples stay independent.
    BatchNorm {
        /// Name of γ, a number for each channel.
        weight: String,
        /// Name of β.
        bias: String,
        /// Name of the running mean among the [statistics](Parameters::statistics), a number for each channel.
        mean: String,
        /// Name of the running variance.
        variance: String,
        /// Added to the variance.
        epsilon: f64,
        /// m, between 0 and 1; 0.1 is usual.
        momentum: f64,
    },
    /// Dropout (Srivastava et al., 2014): in a step of training each number is 0 with this probability below 1, or else
    /// divided by 1 − rate; everywhere else nothing happens to it.
    ///
    /// Models with dropout are trained through candle's automatic differentiation, and analysed by hand-derived rules.
    Dropout {
        /// The probability.
        rate: f64,
    },
    /// The mean of each square of `kernel` × `kernel` places, `stride` apart.
    AveragePool {
        /// Side of the square.
        kernel: usize,
        /// Step between squares.
        stride: usize,
    },
    /// The largest of each square of `kernel` × `kernel` places, `stride` apart.
    MaxPool {
        /// Side of the square.
        kernel: usize,
        /// Step between squares.
        stride: usize,
    },
    /// The mean of each channel.
    GlobalAveragePool,
    /// h ← body(h) + shortcut(h): a residual block (He et al., 2016). Without layers in it the shortcut is h itself.
    Residual {
        /// The layers that learn a difference.
        body: Vec<LayerKind>,
        /// The layers beside them, such as a projection where shapes change.
        shortcut: Vec<LayerKind>,
    },
    /// h ← (h, body(h)), channel after channel: a layer of a dense block (Huang et al., 2017).
    Concat {
        /// The layers whose channels are appended.
        body: Vec<LayerKind>,
    },
}

impl LayerKind {
    /// The forward pass; that of a step of training if there is something to draw from.
    pub(crate) fn apply(
        &self,
        parameters: &Parameters,
        h: &Tensor,
        training: Option<&mut ChaCha8Rng>,
    ) -> Result<Tensor> {
        let var = |name: &String| -> Result<Tensor> {
            let var = parameters.get(name).map_err(wrapped)?;
            Ok(var.as_tensor().clone())
        };
        match self {
            Self::Linear { weight, bias } => h
                .flatten_from(1)?
                .matmul(&var(weight)?.t()?)?
                .broadcast_add(&var(bias)?),
            Self::Activation(activation) => activation.apply(h),
            Self::Flatten => h.flatten_from(1),
            Self::Unflatten([channels, height, width]) => {
                h.reshape((h.dim(0)?, *channels, *height, *width))
            }
            Self::Conv2d {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                let y = h.conv2d(&var(weight)?, *padding, *stride, *dilation, *groups)?;
                match bias {
                    Some(bias) => y.broadcast_add(&var(bias)?.reshape((1, (), 1, 1))?),
                    None => Ok(y),
                }
            }
            Self::GroupNorm {
                weight,
                bias,
                groups,
                epsilon,
            } => {
                let grouped = h.reshape((h.dim(0)?, *groups, ()))?;
                let centered = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
                let deviation = (centered.sqr()?.mean_keepdim(2)? + *epsilon)?.sqrt()?;
                let normal = centered.broadcast_div(&deviation)?.reshape(h.shape())?;
                scaled(&normal, &var(weight)?, &var(bias)?)
            }
            Self::BatchNorm {
                weight,
                bias,
                mean,
                variance,
                epsilon,
                momentum,
            } => {
                if !(*epsilon >= 0.0 && (0.0..=1.0).contains(momentum)) {
                    candle_core::bail!(
                        "no batch normalisation with epsilon {epsilon} and momentum {momentum}: give one ≥ 0 \
                         and one from 0 to 1"
                    );
                }
                let statistic = |name| parameters.statistic(name).map_err(wrapped);
                let running = [statistic(mean)?, statistic(variance)?];
                let normal = match training {
                    Some(_) => normal_in_batch(h, running, *epsilon, *momentum)?,
                    None => {
                        let [mean, variance] =
                            running.map(|var| by_channel(h, &var.as_detached_tensor()));
                        let deviation = (variance? + *epsilon)?.sqrt()?;
                        h.broadcast_sub(&mean?)?.broadcast_div(&deviation)?
                    }
                };
                scaled(&normal, &var(weight)?, &var(bias)?)
            }
            Self::Dropout { rate } => {
                if !(0.0..1.0).contains(rate) {
                    candle_core::bail!(
                        "no dropout at a rate of {rate}: give one from 0 to below 1"
                    );
                }
                match training {
                    Some(rng) => dropped(h, *rate, rng),
                    None => Ok(h.clone()),
                }
            }
            Self::AveragePool { kernel, stride } => nn::ops::avg_pool2d(h, *kernel, *stride),
            Self::MaxPool { kernel, stride } => nn::ops::max_pool2d(h, *kernel, *stride),
            Self::GlobalAveragePool => h.mean_keepdim((D::Minus1, D::Minus2)),
            Self::Residual { body, shortcut } => {
                let mut training = training;
                apply_all(body, parameters, h, training.as_deref_mut())?
                    + apply_all(shortcut, parameters, h, training)?
            }
            Self::Concat { body } => {
                Tensor::cat(&[h, &apply_all(body, parameters, h, training)?], 1)
            }
        }
    }
}

/// A number for each channel, beside h.
fn by_channel(h: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; h.rank()];
    shape[1] = numbers.elem_count();
    numbers.reshape(shape)
}

/// γh + β, channel by channel.
fn scaled(h: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    h.broadcast_mul(&by_channel(h, weight)?)?
        .broadcast_add(&by_channel(h, bias)?)
}

fn apply_all(
    layers: &[LayerKind],
    parameters: &Parameters,
    h: &Tensor,
    mut training: Option<&mut ChaCha8Rng>,
) -> Result<Tensor> {
    let mut h = h.clone();
    for layer in layers {
        h = layer.apply(parameters, &h, training.as_deref_mut())?;
    }
    Ok(h)
}

fn wrapped(error: Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// A model that is a list of layers over named parameters, and nothing else. Cloning shares the parameters.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // A residual block h ← h + (hWᵀ + b) on two numbers, with W = −I and b = (1, 2).
/// let weight = Var::new(&[[-1.0, 0.0], [0.0, -1.0]], &Device::Cpu)?;
/// let bias = Var::new(&[1.0, 2.0], &Device::Cpu)?;
/// let parameters = Parameters::new([("w".to_owned(), weight), ("b".to_owned(), bias)])?;
/// let linear = LayerKind::Linear {
///     weight: "w".to_owned(),
///     bias: "b".to_owned(),
/// };
/// let block = LayerKind::Residual {
///     body: vec![linear],
///     shortcut: Vec::new(),
/// };
/// let model = Layered::new(vec![block], parameters);
/// let y = model.forward(&Tensor::new(&[[5.0, 7.0]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[1.0, 2.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Layered {
    layers: Vec<LayerKind>,
    parameters: Parameters,
}

impl Layered {
    /// A model of these layers; each names those of the `parameters` that it uses. A name that is not
    /// among them is an error of the forward pass.
    pub fn new(layers: Vec<LayerKind>, parameters: Parameters) -> Self {
        Self { layers, parameters }
    }

    /// A copy in another floating-point type, with parameters and running statistics of its own.
    ///
    /// # Errors
    /// A type other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> crate::Result<Self> {
        let parameters = self.parameters.to_dtype(dtype)?;
        Ok(Self::new(self.layers.clone(), parameters))
    }
}

impl Module for Layered {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply_all(&self.layers, &self.parameters, x, None)
    }
}

impl Model for Layered {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        Some(self.layers.clone())
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        apply_all(&self.layers, &self.parameters, x, Some(&mut rng))
    }
}
