//! [`LayerKind`] and [`Layered`]: models as lists of layers.

use candle_core::{D, Module, Result, Tensor};
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
    fn apply(&self, parameters: &Parameters, h: &Tensor) -> Result<Tensor> {
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
            Self::GlobalAveragePool => h.mean_keepdim((D::Minus1, D::Minus2)),
            Self::Residual { body, shortcut } => {
                apply_all(body, parameters, h)? + apply_all(shortcut, parameters, h)?
            }
            Self::Concat { body } => Tensor::cat(&[h, &apply_all(body, parameters, h)?], 1),
        }
    }
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
