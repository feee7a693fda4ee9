//! [`LayerKind`] and [`Layered`]: models as lists of layers.

use candle_core::{D, DType, Module, Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Activation, Model, Parameters};

/// A layer, or layers in a block. Parameters go by their names; images are channels × height × width.
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
    /// Batch normalisation (Ioffe and Szegedy, 2015) with frozen statistics, as in evaluation: samples stay independent.
    BatchNorm {
        /// Name of γ, a number for each channel.
        weight: String,
        /// Name of β.
        bias: String,
        /// The mean of each channel.
        mean: Vec<f64>,
        /// The variance of each channel.
        variance: Vec<f64>,
        /// Added to the variance.
        epsilon: f64,
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
    pub(crate) fn apply(&self, parameters: &Parameters, h: &Tensor) -> Result<Tensor> {
        let var = |name: &String| -> Result<Tensor> {
            let var = parameters.get(name).map_err(candle_core::Error::wrap)?;
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
            } => {
                let channels = |values: Vec<f64>| {
                    let n = values.len();
                    Tensor::from_vec(values, n, h.device())?.to_dtype(h.dtype())
                };
                let inverse = variance
                    .iter()
                    .map(|v| 1.0 / (v + epsilon).sqrt())
                    .collect();
                let scale = (var(weight)? * channels(inverse)?)?;
                let shift = (var(bias)? - (&scale * channels(mean.clone())?)?)?;
                scaled(h, &scale, &shift)
            }
            Self::AveragePool { kernel, stride } => {
                // candle's own pooling differentiates only where squares do not overlap.
                let (n, channels, height, width) = h.dims4()?;
                let one_by_one = h.reshape((n * channels, 1, height, width))?;
                let mean = Tensor::full(
                    1.0 / (kernel * kernel) as f64,
                    (1, 1, *kernel, *kernel),
                    h.device(),
                )?;
                let y = one_by_one.conv2d(&mean.to_dtype(h.dtype())?, 0, *stride, 1, 1)?;
                let (_, _, height, width) = y.dims4()?;
                y.reshape((n, channels, height, width))
            }
            Self::MaxPool { kernel, stride } => max_pool(h, *kernel, *stride),
            Self::GlobalAveragePool => h.mean_keepdim((D::Minus1, D::Minus2)),
            Self::Residual { body, shortcut } => {
                apply_all(body, parameters, h)? + apply_all(shortcut, parameters, h)?
            }
            Self::Concat { body } => Tensor::cat(&[h, &apply_all(body, parameters, h)?], 1),
        }
    }
}

/// The largest of each square, by comparing the places of all squares one after another: candle's own has a gradient
/// that is too small by the square's area (0.11.1).
fn max_pool(h: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (_, _, height, width) = h.dims4()?;
    if kernel == 0 || stride == 0 || kernel > height.min(width) {
        candle_core::bail!("no squares of {kernel}, {stride} apart, in {height} × {width} places");
    }
    let every = |from: usize, size: usize| {
        let places = (0..=(size - kernel) / stride).map(|i| (from + i * stride) as u32);
        Tensor::from_iter(places, h.device())
    };
    let mut largest: Option<Tensor> = None;
    for i in 0..kernel {
        let rows = h.index_select(&every(i, height)?, 2)?;
        for j in 0..kernel {
            let here = rows.index_select(&every(j, width)?, 3)?;
            largest = Some(match largest {
                Some(largest) => largest.maximum(&here)?,
                None => here,
            });
        }
    }
    largest.ok_or_else(|| candle_core::Error::Msg("a square of no places".into()))
}

/// γh + β, channel by channel.
fn scaled(h: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; h.rank()];
    shape[1] = weight.elem_count();
    h.broadcast_mul(&weight.reshape(&shape[..])?)?
        .broadcast_add(&bias.reshape(&shape[..])?)
}

fn apply_all(layers: &[LayerKind], parameters: &Parameters, h: &Tensor) -> Result<Tensor> {
    let mut h = h.clone();
    for layer in layers {
        h = layer.apply(parameters, &h)?;
    }
    Ok(h)
}

/// A model that is a list of layers over named parameters, and nothing else. Cloning shares the parameters.
#[derive(Clone, Debug)]
pub struct Layered {
    layers: Vec<LayerKind>,
    parameters: Parameters,
}

impl Layered {
    /// A model of these layers; each names those of the `parameters` that it uses.
    pub fn new(layers: Vec<LayerKind>, parameters: Parameters) -> Self {
        Self { layers, parameters }
    }

    /// A copy in another floating-point type, with parameters of its own.
    ///
    /// # Errors
    /// A type other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> crate::Result<Self> {
        let copies = self.parameters.iter().map(|(name, var)| {
            let copy = var.to_dtype(dtype)?.copy()?.detach();
            Ok((name.clone(), Var::from_tensor(&copy)?))
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        Ok(Self::new(self.layers.clone(), Parameters::new(copies)?))
    }
}

impl Module for Layered {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply_all(&self.layers, &self.parameters, x)
    }
}

impl Model for Layered {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        Some(self.layers.clone())
    }
}
