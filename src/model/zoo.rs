//! Networks made of layers: `Layered::cnn`, `Layered::resnet20`.

use candle_core::{Device, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Activation, LayerKind, Layered, Parameters};
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

/// The parameters of a network in the making.
struct Making<'a> {
    rng: ChaCha8Rng,
    device: &'a Device,
    vars: Vec<(String, Var)>,
}

impl<'a> Making<'a> {
    fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            device,
            vars: Vec::new(),
        }
    }

    fn finish(self, layers: Vec<LayerKind>) -> Result<Layered> {
        Ok(Layered::new(layers, Parameters::new(self.vars)?))
    }

    /// A parameter with entries uniform in ±1/√`inputs`.
    fn draw(&mut self, name: String, shape: &[usize], inputs: usize) -> Result<String> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let values = (0..shape.iter().product())
            .map(|_| self.rng.random_range(-bound..bound) as f32)
            .collect();
        let var = Var::from_vec(values, shape, self.device)?;
        self.vars.push((name.clone(), var));
        Ok(name)
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<LayerKind> {
        Ok(LayerKind::Linear {
            weight: self.draw(format!("{name}.weight"), &[outputs, inputs], inputs)?,
            bias: self.draw(format!("{name}.bias"), &[outputs], inputs)?,
        })
    }

    /// A square kernel, padded so that with stride 1 the image keeps its size.
    fn conv(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        bias: bool,
    ) -> Result<LayerKind> {
        let fan = inputs * kernel * kernel;
        let shape = [outputs, inputs, kernel, kernel];
        let weight = self.draw(format!("{name}.weight"), &shape, fan)?;
        let bias = match bias {
            true => Some(self.draw(format!("{name}.bias"), &[outputs], fan)?),
            false => None,
        };
        Ok(LayerKind::Conv2d {
            weight,
            bias,
            stride,
            padding: kernel / 2,
            dilation: 1,
            groups: 1,
        })
    }

    /// Group normalisation that starts with γ = 1 and β = 0.
    fn norm(&mut self, name: &str, channels: usize, groups: usize) -> Result<LayerKind> {
        let mut constant = |part: &str, value: f32| -> Result<String> {
            let name = format!("{name}.{part}");
            let var = Var::from_vec(vec![value; channels], channels, self.device)?;
            self.vars.push((name.clone(), var));
            Ok(name)
        };
        Ok(LayerKind::GroupNorm {
            weight: constant("weight", 1.0)?,
            bias: constant("bias", 0.0)?,
            groups,
            epsilon: 1e-5,
        })
    }
}
