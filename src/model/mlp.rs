//! [`Mlp`]: the multilayer perceptron.

use candle_core::{DType, Device, Module, Tensor};

use super::{Activation, LayerKind, Layered, Model, Parameters};
use crate::error::{Error, Result};
use crate::layers::{Flatten, LayerInit, Linear};
use crate::memory;

/// A multilayer perceptron: h₀ = x (flattened), hᵢ₊₁ = φ(hᵢ Wᵢᵀ + bᵢ), without φ after the last
/// layer. Its parameters are `layers.0.weight` (out × in), `layers.0.bias`, `layers.1.weight`, ….
///
/// Cloning shares the parameters; [`Mlp::to_dtype`] copies them.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// assert_eq!(model.parameters().len(), (3 * 2 + 3) + (3 + 1));
/// let y = model.forward(&Tensor::zeros((5, 2), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [5, 1]);
///
/// let exact = model.to_dtype(DType::F64)?; // the same values, no longer shared
/// assert_eq!(exact.parameters().to_flat()?, model.parameters().to_flat()?);
/// exact.parameters().set_flat(&[0.0; 13])?;
/// assert_ne!(exact.parameters().to_flat()?, model.parameters().to_flat()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    widths: Vec<usize>,
    activation: Activation,
    layered: Layered,
}

impl Mlp {
    /// A network with the given layer `widths`, input first, in `f32`. Weights and biases of a layer with `n` inputs
    /// are uniform in ±1/√n, drawn from `seed`: the same seed gives the same bits.
    ///
    /// # Errors
    /// Fewer than two widths, a width of 0.
    pub fn new(
        widths: &[usize],
        activation: Activation,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        if widths.len() < 2 || widths.contains(&0) {
            return Err(Error::invalid(format!(
                "widths {widths:?} do not define a network: give at least an input and an output width, \
                 none of them 0, for example [784, 128, 10]"
            )));
        }
        let pairs = widths.windows(2);
        let weights: f64 = pairs.map(|pair| pair[0] as f64 * pair[1] as f64).sum();
        // θ as one vector in f64.
        memory::check(8.0 * weights, &format!("layers of the widths {widths:?}"))?;
        let mut init = LayerInit::new(seed, device);
        let mut layers = vec![Flatten.into()];
        for (i, pair) in widths.windows(2).enumerate() {
            if i > 0 {
                layers.push(activation.into());
            }
            let name = format!("layers.{i}");
            layers.push(Linear::init(&mut init, &name, pair[0], pair[1])?);
        }
        Ok(Self {
            widths: widths.to_vec(),
            activation,
            layered: Layered::new(layers, init.finish()?),
        })
    }

    /// A copy in another floating-point dtype, with its own parameters.
    ///
    /// # Errors
    /// A dtype other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Self {
            layered: self.layered.to_dtype(dtype)?,
            ..self.clone()
        })
    }

    /// Layer widths, input first.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// The non-linearity between layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }
}

/// The same layers and parameters.
impl From<&Mlp> for Layered {
    fn from(mlp: &Mlp) -> Self {
        mlp.layered.clone()
    }
}

impl Module for Mlp {
    /// Outputs of shape `(n, outputs)` for inputs of shape `(n, …)`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.layered.forward(x)
    }
}

impl Model for Mlp {
    fn parameters(&self) -> &Parameters {
        self.layered.parameters()
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.layered.layers()
    }
}
