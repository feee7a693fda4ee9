//! [`Making`]: seeded parameters, layer by layer.

use candle_core::{Device, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{LayerKind, Layered, Parameters};
use crate::error::Result;

/// The parameters of a network in the making.
pub(super) struct Making<'a> {
    rng: ChaCha8Rng,
    device: &'a Device,
    vars: Vec<(String, Var)>,
    /// What hidden layers' weights are multiplied with.
    gain: f64,
    statistics: Vec<(String, Var)>,
}

impl<'a> Making<'a> {
    pub(super) fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            device,
            vars: Vec::new(),
            gain: 1.0,
            statistics: Vec::new(),
        }
    }

    /// For units that ReLUs follow, which halve the mean square.
    pub(super) fn rectified(self) -> Self {
        let gain = 6f64.sqrt();
        Self { gain, ..self }
    }

    pub(super) fn finish(self, layers: Vec<LayerKind>) -> Result<Layered> {
        let parameters = Parameters::new(self.vars)?.with_statistics(self.statistics)?;
        Ok(Layered::new(layers, parameters))
    }

    /// A parameter with entries uniform in ±`bound`.
    fn draw(&mut self, name: String, shape: &[usize], bound: f64) -> Result<String> {
        let values = (0..shape.iter().product())
            .map(|_| self.rng.random_range(-bound..bound) as f32)
            .collect();
        let var = Var::from_vec(values, shape, self.device)?;
        self.vars.push((name.clone(), var));
        Ok(name)
    }

    pub(super) fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<LayerKind> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = format!("{name}.weight");
        Ok(LayerKind::Linear {
            weight: self.draw(weight, &[outputs, inputs], self.gain * bound)?,
            bias: self.draw(format!("{name}.bias"), &[outputs], bound)?,
        })
    }

    /// The last layer, which nothing follows.
    pub(super) fn readout(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<LayerKind> {
        let gain = std::mem::replace(&mut self.gain, 1.0);
        let layer = self.linear(name, inputs, outputs);
        self.gain = gain;
        layer
    }

    /// A square kernel, padded so that with stride 1 the image keeps its size.
    pub(super) fn conv(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        bias: bool,
    ) -> Result<LayerKind> {
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        let shape = [outputs, inputs, kernel, kernel];
        let weight = self.draw(format!("{name}.weight"), &shape, self.gain * bound)?;
        let bias = match bias {
            true => Some(self.draw(format!("{name}.bias"), &[outputs], bound)?),
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

    fn constant(&self, name: &str, value: f32, channels: usize) -> Result<(String, Var)> {
        let var = Var::from_vec(vec![value; channels], channels, self.device)?;
        Ok((name.to_owned(), var))
    }

    /// γ = 1 and β = 0.
    fn scales(&mut self, name: &str, channels: usize) -> Result<[String; 2]> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.vars.push(self.constant(&weight, 1.0, channels)?);
        self.vars.push(self.constant(&bias, 0.0, channels)?);
        Ok([weight, bias])
    }

    /// Group normalisation that starts with γ = 1 and β = 0.
    pub(super) fn norm(&mut self, name: &str, channels: usize, groups: usize) -> Result<LayerKind> {
        let [weight, bias] = self.scales(name, channels)?;
        Ok(LayerKind::GroupNorm {
            weight,
            bias,
            groups,
            epsilon: 1e-5,
        })
    }

    /// Batch normalisation that starts with γ = 1, β = 0 and running statistics 0 and 1.
    pub(super) fn batch_norm(&mut self, name: &str, channels: usize) -> Result<LayerKind> {
        let [weight, bias] = self.scales(name, channels)?;
        let [mean, variance] = ["running_mean", "running_var"].map(|part| format!("{name}.{part}"));
        self.statistics.push(self.constant(&mean, 0.0, channels)?);
        self.statistics
            .push(self.constant(&variance, 1.0, channels)?);
        Ok(LayerKind::BatchNorm {
            weight,
            bias,
            mean,
            variance,
            epsilon: 1e-5,
            momentum: 0.1,
        })
    }
}
