//! [`Layered`]: a model that is a list of layers.

use candle_core::{DType, Module, Result, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Model;
use crate::layers::{LayerKind, Pass, forward};
use crate::parameters::Parameters;

/// A model that is a sequence of layers over named parameters. Cloning shares the parameters.
///
/// ```
/// use loss_landscape::layers::{Linear, Residual};
/// use loss_landscape::prelude::*;
///
/// // A residual block h ← h + (hWᵀ + b) of two features, with W = −I and b = (1, 2).
/// let weight = Var::new(&[[-1.0, 0.0], [0.0, -1.0]], &Device::Cpu)?;
/// let bias = Var::new(&[1.0, 2.0], &Device::Cpu)?;
/// let parameters = Parameters::new([("w".to_owned(), weight), ("b".to_owned(), bias)])?;
/// let block = Residual::new(vec![Linear::new("w", "b").into()]);
/// let model = Layered::new(vec![block.into()], parameters);
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
    /// A model of these layers, each of which names the `parameters` that it uses. An unknown name is an error in the
    /// forward pass.
    pub fn new(layers: Vec<LayerKind>, parameters: Parameters) -> Self {
        Self { layers, parameters }
    }

    /// A copy in another floating-point dtype, with its own parameters and running statistics.
    ///
    /// # Errors
    /// A dtype other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> crate::Result<Self> {
        let parameters = self.parameters.to_dtype(dtype)?;
        Ok(Self::new(self.layers.clone(), parameters))
    }
}

impl Module for Layered {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        forward(&self.layers, x, &self.parameters, &mut Pass::Inference)
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
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut pass = Pass::Training(Box::new(rng));
        forward(&self.layers, x, &self.parameters, &mut pass)
    }
}
