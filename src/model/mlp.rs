//! [`Mlp`]: the multilayer perceptron.

use candle_core::{DType, Device, Module, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Activation, LayerKind, Model, Parameters};
use crate::error::{Error, Result};

/// A multilayer perceptron: h₀ = x (flattened), hᵢ₊₁ = φ(hᵢ Wᵢᵀ + bᵢ), without φ after the last
/// layer. Its parameters are `layers.0.weight` (out × in), `layers.0.bias`, `layers.1.weight`, ….
///
/// Cloning shares the parameters; [`Mlp::to_dtype`] copies them.
#[derive(Clone, Debug)]
pub struct Mlp {
    widths: Vec<usize>,
    activation: Activation,
    layers: Vec<(Var, Var)>,
    parameters: Parameters,
}

impl Mlp {
    /// A network with the given layer `widths`, input first, in `f32`. Weights and biases of a
    /// layer with `n` inputs are uniform in ±1/√n, drawn from `seed`: the same seed gives the
    /// same bits.
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
                "widths {widths:?} make no network: give at least an input and an output width, \
                 none of them 0, for example [784, 128, 10]"
            )));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = Vec::new();
        for pair in widths.windows(2) {
            let (inputs, outputs) = (pair[0], pair[1]);
            let bound = 1.0 / (inputs as f64).sqrt();
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n)
                    .map(|_| rng.random_range(-bound..bound) as f32)
                    .collect()
            };
            let weight = Var::from_vec(draw(outputs * inputs), (outputs, inputs), device)?;
            let bias = Var::from_vec(draw(outputs), outputs, device)?;
            layers.push((weight, bias));
        }
        Self::with_layers(widths.to_vec(), activation, layers)
    }

    fn with_layers(
        widths: Vec<usize>,
        activation: Activation,
        layers: Vec<(Var, Var)>,
    ) -> Result<Self> {
        let named = layers.iter().enumerate().flat_map(|(i, (weight, bias))| {
            [
                (format!("layers.{i}.weight"), weight.clone()),
                (format!("layers.{i}.bias"), bias.clone()),
            ]
        });
        let parameters = Parameters::new(named)?;
        Ok(Self {
            widths,
            activation,
            layers,
            parameters,
        })
    }

    /// A copy in another floating-point type, with parameters of its own.
    ///
    /// # Errors
    /// A type other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let cast = |var: &Var| -> Result<Var> {
            Ok(Var::from_tensor(&var.to_dtype(dtype)?.copy()?.detach())?)
        };
        let layers = self.layers.iter();
        let layers = layers
            .map(|(weight, bias)| Ok((cast(weight)?, cast(bias)?)))
            .collect::<Result<_>>()?;
        Self::with_layers(self.widths.clone(), self.activation, layers)
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

impl Module for Mlp {
    /// Outputs of shape `(n, outputs)` for inputs of shape `(n, …)`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut h = x.flatten_from(1)?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            h = h.matmul(&weight.t()?)?.broadcast_add(bias)?;
            if i + 1 < self.layers.len() {
                h = self.activation.apply(&h)?;
            }
        }
        Ok(h)
    }
}

impl Model for Mlp {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        let mut layers = Vec::new();
        for i in 0..self.layers.len() {
            if i > 0 {
                layers.push(LayerKind::Activation(self.activation));
            }
            layers.push(LayerKind::Linear {
                weight: format!("layers.{i}.weight"),
                bias: format!("layers.{i}.bias"),
            });
        }
        Some(layers)
    }
}
