//! [`LayerKind`] and [`Layered`]: models as lists of layers.

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Activation, Mlp, Model, Parameters};

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

    /// A small convolutional network for images of 1 × 28 × 28 and ten classes: seven 3 × 3 convolutions with 16, 16, 16,
    /// 32, 32, 64 and 64 channels, the fourth and sixth of stride 2, an activation after each, global average pooling
    /// and a dense layer. Its parameters are `layers.0.weight` to `layers.7.bias`, uniform in ±1/√n for n inputs
    /// of a unit, drawn from `seed`: the same seed gives the same bits.
    ///
    /// # Errors
    /// candle's, when the device is out of memory.
    pub fn cnn(activation: Activation, seed: u64, device: &Device) -> crate::Result<Self> {
        const CHANNELS: [usize; 8] = [1, 16, 16, 16, 32, 32, 64, 64];
        let mut layers = vec![LayerKind::Unflatten([1, 28, 28])];
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut vars = Vec::new();
        let mut draw = |i: usize, outputs: usize, inputs: &[usize]| -> Result<(String, String)> {
            let shape = [&[outputs], inputs].concat();
            let names = (format!("layers.{i}.weight"), format!("layers.{i}.bias"));
            let bound = 1.0 / (inputs.iter().product::<usize>() as f64).sqrt();
            for (name, shape) in [(&names.0, shape), (&names.1, vec![outputs])] {
                let values = (0..shape.iter().product())
                    .map(|_| rng.random_range(-bound..bound) as f32)
                    .collect();
                vars.push((name.clone(), Var::from_vec(values, shape, device)?));
            }
            Ok(names)
        };
        for (i, pair) in CHANNELS.windows(2).enumerate() {
            let (weight, bias) = draw(i, pair[1], &[pair[0], 3, 3])?;
            layers.push(LayerKind::Conv2d {
                weight,
                bias: Some(bias),
                stride: if i == 3 || i == 5 { 2 } else { 1 },
                padding: 1,
                dilation: 1,
                groups: 1,
            });
            layers.push(LayerKind::Activation(activation));
        }
        let (weight, bias) = draw(7, 10, &[64])?;
        layers.push(LayerKind::GlobalAveragePool);
        layers.push(LayerKind::Linear { weight, bias });
        Ok(Self::new(layers, Parameters::new(vars)?))
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

/// A multilayer perceptron with the same parameters.
impl From<&Mlp> for Layered {
    fn from(mlp: &Mlp) -> Self {
        Self::new(mlp.layers().unwrap_or_default(), mlp.parameters().clone())
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
