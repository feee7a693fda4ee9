//! Networks made of layers: `Layered::cnn`, `Layered::resnet20`.

use candle_core::Device;

use super::making::Making;
use super::{Activation, LayerKind, Layered};
use crate::error::{Error, Result};

impl Layered {
    /// A small convolutional network for images of 1 × 28 × 28 and ten classes: seven 3 × 3 convolutions with 16, 16, 16,
    /// 32, 32, 64 and 64 channels, the fourth and sixth of stride 2, an activation after each, global average pooling
    /// and a dense layer. Its parameters are `layers.0.weight` to `layers.7.bias`, uniform in ±1/√n for n inputs
    /// of a unit, drawn from `seed`: the same seed gives the same bits.
    ///
    /// # Errors
    /// candle's, when the device is out of memory.
    pub fn cnn(activation: Activation, seed: u64, device: &Device) -> Result<Self> {
        const CHANNELS: [usize; 8] = [1, 16, 16, 16, 32, 32, 64, 64];
        let mut made = Making::new(seed, device);
        let mut layers = vec![LayerKind::Unflatten([1, 28, 28])];
        for (i, pair) in CHANNELS.windows(2).enumerate() {
            let stride = if i == 3 || i == 5 { 2 } else { 1 };
            let name = format!("layers.{i}");
            layers.push(made.conv(&name, [pair[0], pair[1]], 3, stride, true)?);
            layers.push(LayerKind::Activation(activation));
        }
        layers.push(LayerKind::GlobalAveragePool);
        layers.push(made.linear("layers.7", 64, 10)?);
        made.finish(layers)
    }

    /// ResNet-20 (He et al., "Deep Residual Learning for Image Recognition", 2016) for images of `input` channels, height
    /// and width: a 3 × 3 convolution, three stages of three blocks with 16, 32 and 64 channels, global average
    /// pooling and a dense layer. A block is two 3 × 3 convolutions, each with group normalisation in `groups`
    /// groups, and ReLUs; where a stage halves the image, the shortcut is a 1 × 1 convolution.
    ///
    /// Convolutions and the dense layer are uniform in ±1/√n for n inputs of a unit, drawn from `seed`.
    ///
    /// # Errors
    /// Groups that do not divide 16; no classes; an empty image; candle's.
    pub fn resnet20(
        input: [usize; 3],
        classes: usize,
        groups: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        if groups == 0 || 16 % groups != 0 || classes == 0 || input.contains(&0) {
            return Err(Error::invalid(format!(
                "no ResNet-20 with {groups} groups and {classes} classes for images of {input:?}: \
                 groups must divide 16, and nothing can be 0"
            )));
        }
        let mut made = Making::new(seed, device);
        let relu = || LayerKind::Activation(Activation::Relu);
        let mut layers = vec![LayerKind::Unflatten(input)];
        layers.push(made.conv("stem.conv", [input[0], 16], 3, 1, false)?);
        layers.push(made.norm("stem.norm", 16, groups)?);
        layers.push(relu());
        let mut channels = 16;
        for (stage, outputs) in [16, 32, 64].into_iter().enumerate() {
            for block in 0..3 {
                let name = |part: &str| format!("stage{stage}.block{block}.{part}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let body = vec![
                    made.conv(&name("conv1"), [channels, outputs], 3, stride, false)?,
                    made.norm(&name("norm1"), outputs, groups)?,
                    relu(),
                    made.conv(&name("conv2"), [outputs, outputs], 3, 1, false)?,
                    made.norm(&name("norm2"), outputs, groups)?,
                ];
                let shortcut = match stride {
                    1 => Vec::new(),
                    _ => vec![
                        made.conv(
                            &name("shortcut.conv"),
                            [channels, outputs],
                            1,
                            stride,
                            false,
                        )?,
                        made.norm(&name("shortcut.norm"), outputs, groups)?,
                    ],
                };
                layers.push(LayerKind::Residual { body, shortcut });
                layers.push(relu());
                channels = outputs;
            }
        }
        layers.push(LayerKind::GlobalAveragePool);
        layers.push(made.linear("out", 64, classes)?);
        made.finish(layers)
    }
}
