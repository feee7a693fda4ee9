//! [`Architecture`]: the zoo's networks, by name.

mod convolutional;
mod perceptrons;
mod transformers;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{Activation, LayerKind, Layered};
use crate::error::{Error, Result, counted};
use crate::layers::{BatchNorm, Concat, GroupNorm, LayerInit, Residual};

/// Networks to compare, with their default settings:
///
/// | name | layers | widths | activation | normalisation |
/// | --- | --- | --- | --- | --- |
/// | `toy` | one hidden layer: 2-3-1 has 13 parameters | 3 | tanh | |
/// | `shallow` | one hidden layer | 64 | ReLU | |
/// | `deep` | six hidden layers | 64 | ReLU | |
/// | `residual` | a dense layer, four residual blocks of two | 64 | ReLU | |
/// | `dense` | four layers, each reading the outputs of all before it | 32 | ReLU | |
/// | `cnn` | seven 3 × 3 convolutions, the fourth and sixth of stride 2 | 16, 16, 16, 32, 32, 64, 64 | tanh | |
/// | `resnet20` | a convolution, three stages of three residual blocks of two | 16, 32, 64 | ReLU | groups of channels, 8 |
/// | `resnet18` | the same, four stages of two blocks | 64, 128, 256, 512 | ReLU | groups, 8 |
/// | `densenet` | a convolution, three dense blocks of four, halved between | 16, then 12 more each | ReLU | groups, 4 |
/// | `gpt` | four blocks of causal attention with four heads and of a perceptron; context 64 | 128, 512 in perceptrons | GELU | LayerNorm |
/// | `vit` | four blocks of attention with four heads and of a perceptron; patches of 4 × 4 pixels | 64, 256 in perceptrons | GELU | LayerNorm |
///
/// The first five take a sample as a vector. `gpt` takes at most `context` tokens of type `u32`, and has an output for
/// each token and position. The others take an image of shape (channels, height, width), and end in
/// global average pooling and a dense layer; `vit` averages over the patches. The ResNets follow He et al. ("Deep Residual Learning for Image
/// Recognition", 2016) for small images: the first convolution is 3 × 3 with stride 1, without pooling after it;
/// where a stage halves the image, the shortcut is a 1 × 1 convolution. `densenet` is a small variant of Huang et al.
/// ("Densely Connected Convolutional Networks", 2017). `gpt` is the pre-norm network of Karpathy's nanoGPT; its output weights
/// are not tied to the embedding. `vit` is a small variant of Dosovitskiy et al. ("An Image is Worth 16x16 Words", 2021) with
/// the same blocks, without causal mask and class token. By default an image of MNIST has 49 patches, one of CIFAR-10 64.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// let plain = Architecture::ResNet20.design().without_shortcuts();
/// let model = plain.build(&[1, 28, 28], 10, 42, &Device::Cpu)?;
/// println!("{} parameters", model.parameters().len());
/// let pixels = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&pixels)?.dims(), [2, 10]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the table has them
pub enum Architecture {
    Toy,
    Shallow,
    Deep,
    Residual,
    Dense,
    Cnn,
    ResNet20,
    ResNet18,
    DenseNet,
    Gpt {
        layers: usize,
        heads: usize,
        width: usize,
        context: usize,
    },
    Vit {
        layers: usize,
        heads: usize,
        width: usize,
        patch: usize,
    },
}

/// Normalisation after each hidden layer of an [`Architecture`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let build = |norm| {
///     Architecture::Shallow
///         .design()
///         .normalization(norm)
///         .build(&[5], 2, 0, &Device::Cpu)
/// };
/// assert_eq!(build(Norm::Group(8))?.parameters().statistics().len(), 0);
/// assert_eq!(build(Norm::Batch)?.parameters().statistics().len(), 2); // mean and variance
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// No normalisation.
    None,
    /// Group normalisation with the given number of groups.
    Group(usize),
    /// Batch normalisation: with batch statistics in training, with constant running statistics in analysis.
    Batch,
}

/// An [`Architecture`] and its settings.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let design = Architecture::Toy.design();
/// assert_eq!(design.activation, Activation::Tanh);
/// let model = design
///     .activation(Activation::Softplus)
///     .build(&[2], 1, 0, &Device::Cpu)?;
/// assert_eq!(model.parameters().len(), 13);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Design {
    /// Network architecture.
    pub architecture: Architecture,
    /// Non-linearity.
    pub activation: Activation,
    /// Normalisation between every hidden layer and its non-linearity.
    pub normalization: Norm,
    /// Whether residual blocks add their inputs, and dense blocks concatenate them. Otherwise, a residual block is
    /// its body alone, and a layer of a dense block outputs as many channels as it would together with its inputs.
    pub shortcuts: bool,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 11] = [
        Self::Toy,
        Self::Shallow,
        Self::Deep,
        Self::Residual,
        Self::Dense,
        Self::Cnn,
        Self::ResNet20,
        Self::ResNet18,
        Self::DenseNet,
        Self::GPT,
        Self::VIT,
    ];

    /// [`Architecture::Gpt`] with four blocks, four heads, width 128 and context 64: 0.8 million parameters for 65 tokens.
    pub const GPT: Self = Self::Gpt {
        layers: 4,
        heads: 4,
        width: 128,
        context: 64,
    };

    /// [`Architecture::Vit`] with four blocks, four heads, width 64 and patches of 4 × 4 pixels: 0.2 million parameters.
    pub const VIT: Self = Self::Vit {
        layers: 4,
        heads: 4,
        width: 64,
        patch: 4,
    };

    /// The name in the table.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// A short description.
    pub fn summary(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Toy => ("toy", "One hidden layer of 3 units"),
            Self::Shallow => ("shallow", "One hidden layer of 64 units"),
            Self::Deep => ("deep", "Six hidden layers of 64 units"),
            Self::Residual => ("residual", "Four residual blocks of dense layers"),
            Self::Dense => ("dense", "Four dense layers, each reading all before it"),
            Self::Cnn => (
                "cnn",
                "Seven 3 × 3 convolutions, global pooling, a dense layer",
            ),
            Self::ResNet20 => ("resnet20", "ResNet-20 with group normalisation"),
            Self::ResNet18 => ("resnet18", "ResNet-18 with group normalisation"),
            Self::DenseNet => ("densenet", "A small DenseNet with group normalisation"),
            Self::Gpt { .. } => ("gpt", "A small GPT for sequences of tokens"),
            Self::Vit { .. } => ("vit", "A small vision transformer"),
        }
    }

    /// The architecture with the given name; `gpt` is [`Architecture::GPT`], `vit` [`Architecture::VIT`].
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// for architecture in Architecture::ALL {
    ///     assert_eq!(Architecture::named(architecture.name())?, architecture);
    /// }
    /// assert!(Architecture::named("alexnet").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| {
            Error::invalid(format!(
                "unknown network `{name}`: use one of {}",
                Self::ALL.map(Self::name).join(", ")
            ))
        })
    }

    /// The design with default settings.
    pub fn design(self) -> Design {
        Design {
            architecture: self,
            activation: match self {
                Self::Toy | Self::Cnn => Activation::Tanh,
                Self::Gpt { .. } | Self::Vit { .. } => Activation::Gelu,
                _ => Activation::Relu,
            },
            normalization: match self {
                Self::ResNet20 | Self::ResNet18 => Norm::Group(8),
                Self::DenseNet => Norm::Group(4),
                _ => Norm::None,
            },
            shortcuts: true,
        }
    }

    /// The network with default settings; see [`Design::build`].
    ///
    /// # Errors
    /// As [`Design::build`].
    pub fn build(
        self,
        inputs: &[usize],
        outputs: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Layered> {
        self.design().build(inputs, outputs, seed, device)
    }
}

impl Design {
    /// Sets the non-linearity.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Sets the normalisation.
    pub fn normalization(mut self, normalization: Norm) -> Self {
        self.normalization = normalization;
        self
    }

    /// Removes residual shortcuts and dense concatenation.
    pub fn without_shortcuts(mut self) -> Self {
        self.shortcuts = false;
        self
    }

    /// The network for samples of shape `inputs`, in `f32`, with parameters drawn from `seed`: the same seed gives
    /// the same bits. Weights and biases of a unit with n inputs are uniform in ±1/√n; with ReLUs, the hidden layers'
    /// weights are uniform in ±√(6/n) (He et al., "Delving Deep into Rectifiers", 2015). Weights of `gpt` and `vit` are normal with
    /// standard deviation 0.02, divided by √(2 · layers) in the last layer of a residual branch; their biases are 0.
    ///
    /// For `gpt`, `inputs` is the number of tokens of a sample, and `outputs` the number of different tokens.
    ///
    /// # Errors
    /// A shape with a 0, or 0 outputs; images not of shape (channels, height, width); groups that do not divide the
    /// channels; sizes of `gpt` and `vit` that are 0, heads that do not divide the width, samples longer than the context,
    /// patches that do not divide the image, another normalisation than their own; errors of candle.
    pub fn build(
        &self,
        inputs: &[usize],
        outputs: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Layered> {
        let name = self.architecture.name();
        if inputs.is_empty() || inputs.contains(&0) || outputs == 0 {
            return Err(Error::invalid(format!(
                "`{name}` cannot map samples of shape {inputs:?} to {outputs} outputs: no size can be 0"
            )));
        }
        let image = || -> Result<[usize; 3]> {
            inputs.try_into().map_err(|_| {
                Error::invalid(format!(
                    "`{name}` takes images of channels × height × width, not samples of shape {inputs:?}"
                ))
            })
        };
        let mut init = LayerInit::new(seed, device);
        if self.activation == Activation::Relu {
            init = init.with_relu_gain();
        }
        let width = inputs.iter().product();
        let layers = match self.architecture {
            Architecture::Toy => perceptrons::plain(self, &mut init, [width, outputs], &[3]),
            Architecture::Shallow => perceptrons::plain(self, &mut init, [width, outputs], &[64]),
            Architecture::Deep => perceptrons::plain(self, &mut init, [width, outputs], &[64; 6]),
            Architecture::Residual => perceptrons::residual(self, &mut init, [width, outputs]),
            Architecture::Dense => perceptrons::dense(self, &mut init, [width, outputs]),
            Architecture::Cnn => convolutional::cnn(self, &mut init, image()?, outputs),
            Architecture::ResNet20 => {
                convolutional::resnet(self, &mut init, image()?, outputs, &[16, 32, 64], 3)
            }
            Architecture::ResNet18 => {
                let widths = [64, 128, 256, 512];
                convolutional::resnet(self, &mut init, image()?, outputs, &widths, 2)
            }
            Architecture::DenseNet => convolutional::densenet(self, &mut init, image()?, outputs),
            Architecture::Gpt {
                layers,
                heads,
                width,
                context,
            } => {
                if !matches!(inputs, [length] if *length <= context) {
                    return Err(Error::invalid(format!(
                        "`gpt` takes samples of at most {context} tokens, not of shape {inputs:?}"
                    )));
                }
                let sizes = transformers::Sizes {
                    layers,
                    heads,
                    width,
                };
                transformers::gpt(self, &mut init, sizes, context, outputs)
            }
            Architecture::Vit {
                layers,
                heads,
                width,
                patch,
            } => {
                let sizes = transformers::Sizes {
                    layers,
                    heads,
                    width,
                };
                transformers::vit(self, &mut init, sizes, patch, image()?, outputs)
            }
        };
        Ok(Layered::new(layers?, init.finish()?))
    }

    /// The optional normalisation and the non-linearity.
    fn norm_and_activation(
        &self,
        init: &mut LayerInit,
        name: &str,
        channels: usize,
    ) -> Result<Vec<LayerKind>> {
        let mut layers = self.norm(init, name, channels)?;
        layers.push(self.activation.into());
        Ok(layers)
    }

    fn norm(&self, init: &mut LayerInit, name: &str, channels: usize) -> Result<Vec<LayerKind>> {
        match self.normalization {
            Norm::None => Ok(Vec::new()),
            Norm::Batch => Ok(vec![BatchNorm::init(init, name, channels)?]),
            Norm::Group(groups) if !channels.is_multiple_of(groups) => {
                Err(Error::invalid(format!(
                    "the channels of `{name}` in `{}`, {channels}, cannot be divided into {}",
                    self.architecture.name(),
                    counted(groups, "group")
                )))
            }
            Norm::Group(groups) => Ok(vec![GroupNorm::init(init, name, channels, groups)?]),
        }
    }

    /// A residual block without a projection.
    fn residual_block(&self, body: Vec<LayerKind>) -> Vec<LayerKind> {
        match self.shortcuts {
            true => vec![Residual::new(body).into()],
            false => body,
        }
    }

    /// A layer of a dense block.
    fn dense_block_layer(&self, body: Vec<LayerKind>) -> Vec<LayerKind> {
        match self.shortcuts {
            true => vec![Concat::dense(body).into()],
            false => body,
        }
    }

    /// Number of channels that a layer of a dense block outputs.
    fn growth_channels(&self, channels: usize, growth: usize) -> usize {
        match self.shortcuts {
            true => growth,
            false => channels + growth,
        }
    }
}
