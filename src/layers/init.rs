//! [`LayerInit`]: draws the initial parameters of a network, layer by layer.

use candle_core::{Device, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::parameters::Parameters;

/// The parameters drawn so far, and the random generator.
pub(crate) struct LayerInit<'a> {
    rng: ChaCha8Rng,
    device: &'a Device,
    vars: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
    gain: f64,
}

impl<'a> LayerInit<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            device,
            vars: Vec::new(),
            statistics: Vec::new(),
            gain: 1.0,
        }
    }

    /// Uses the gain of hidden layers followed by ReLU, which halves the mean square (He et al., 2015).
    pub(crate) fn with_relu_gain(self) -> Self {
        let gain = 6f64.sqrt();
        Self { gain, ..self }
    }

    /// Scale factor of hidden layers' weights.
    pub(crate) fn gain(&self) -> f64 {
        self.gain
    }

    /// Adds a parameter with entries uniform in ±`bound`, and returns its name.
    pub(crate) fn uniform(&mut self, name: String, shape: &[usize], bound: f64) -> Result<String> {
        let values = (0..shape.iter().product())
            .map(|_| self.rng.random_range(-bound..bound) as f32)
            .collect();
        let var = Var::from_vec(values, shape, self.device)?;
        self.vars.push((name.clone(), var));
        Ok(name)
    }

    /// Adds a parameter with normal entries of this standard deviation, and returns its name.
    pub(crate) fn normal(
        &mut self,
        name: String,
        shape: &[usize],
        deviation: f64,
    ) -> Result<String> {
        let mut draw = || -> f64 { StandardNormal.sample(&mut self.rng) };
        let values = (0..shape.iter().product())
            .map(|_| (deviation * draw()) as f32)
            .collect();
        let var = Var::from_vec(values, shape, self.device)?;
        self.vars.push((name.clone(), var));
        Ok(name)
    }

    /// Adds a parameter with equal entries, and returns its name.
    pub(crate) fn constant(&mut self, name: String, value: f32, len: usize) -> Result<String> {
        let var = Var::from_vec(vec![value; len], len, self.device)?;
        self.vars.push((name.clone(), var));
        Ok(name)
    }

    /// Adds a running statistic with equal entries, and returns its name.
    pub(crate) fn statistic(&mut self, name: String, value: f32, len: usize) -> Result<String> {
        let var = Var::from_vec(vec![value; len], len, self.device)?;
        self.statistics.push((name.clone(), var));
        Ok(name)
    }

    pub(crate) fn finish(self) -> Result<Parameters> {
        Parameters::new(self.vars)?.with_statistics(self.statistics)
    }
}
