//! Layers: one file per kind.
//!
//! Each file holds everything about one kind: its settings, the initialisation of its parameters, its shape rule, its
//! pass through candle's graph, its hand-derived rules, the axes of its hidden units, and its tests.
//!
//! To add a kind, write its file and add it to the list below.

#[cfg(test)]
mod checks;
mod copied_rows;
pub(crate) mod graph;
mod init;
mod normalization;
mod normalized_group;
pub(crate) mod row_product;
pub(crate) mod rules;
mod scale_shift;
mod shape;
mod sparse_linear;
pub(crate) mod units;

pub(crate) use batch_norm::no_variance;
pub(crate) use conv2d::Bias;
pub(crate) use init::LayerInit;
pub use shape::{Misfit, Shape};

use std::collections::{HashMap, HashSet};

use candle_core::{D, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use self::graph::GraphBuilder;
use self::units::UnitGraph;
use crate::kernels::Scalar;
use crate::parameters::Parameters;
use crate::progress;

/// What every kind of layer implements.
pub(crate) trait Layer: std::fmt::Debug {
    /// The shape of a sample's output.
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit>;

    /// The pass through candle's graph.
    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor>;

    /// Adds the layer's rules to a graph.
    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit>;

    /// Adds the hidden units that the layer reads and writes to a graph.
    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit>;
}

/// What a pass through candle's graph is for.
pub(crate) enum Pass {
    /// Analysis and prediction.
    Inference,
    /// A training step, with the generator that dropout draws from.
    Training(Box<ChaCha8Rng>),
    /// Inference that keeps inputs and outputs of layers.
    Recording(Recording),
}

/// The inputs of linear layers and convolutions, by the name of the weight and 1, the axis of the weight along the
/// input's features, and their outputs, by the name and 0.
#[derive(Default)]
pub(crate) struct Recording {
    /// The values to keep; `None` keeps all.
    pub(crate) wanted: Option<HashSet<(String, usize)>>,
    /// Values of shape (samples and positions, features).
    pub(crate) kept: HashMap<(String, usize), Tensor>,
}

impl Pass {
    /// Keeps a value, whose features are along `axis`, if this pass records it.
    fn record(
        &mut self,
        key: (&str, usize),
        value: &Tensor,
        axis: usize,
    ) -> candle_core::Result<()> {
        let Self::Recording(recording) = self else {
            return Ok(());
        };
        let key = (key.0.to_owned(), key.1);
        if recording
            .wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&key))
        {
            let by_feature = value.detach().transpose(axis, D::Minus1)?;
            let features = by_feature.dim(D::Minus1)?;
            let kept = by_feature.reshape(((), features))?;
            recording.kept.insert(key, kept);
        }
        Ok(())
    }
}

/// Declares the modules of the kinds, and [`LayerKind`] with a variant for each.
macro_rules! layers {
    ($($module:ident: $($Kind:ident),+;)+) => {
        $(mod $module; pub use $module::{$($Kind),+};)+

        /// A layer, or a block of layers. Layers refer to their parameters by name.
        ///
        /// See [`Layered`](crate::model::Layered) for an example.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum LayerKind {
            $($(#[doc = concat!("See [`", stringify!($Kind), "`].")] $Kind($Kind),)+)+
        }

        $($(impl From<$Kind> for LayerKind {
            fn from(layer: $Kind) -> Self {
                Self::$Kind(layer)
            }
        })+)+

        impl Layer for LayerKind {
            fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
                match self {
                    $($(Self::$Kind(layer) => layer.output_shape(input, parameters),)+)+
                }
            }

            fn forward(
                &self,
                x: &Tensor,
                parameters: &Parameters,
                pass: &mut Pass,
            ) -> candle_core::Result<Tensor> {
                match self {
                    $($(Self::$Kind(layer) => layer.forward(x, parameters, pass),)+)+
                }
            }

            fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
                match self {
                    $($(Self::$Kind(layer) => layer.add_rules(network),)+)+
                }
            }

            fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
                match self {
                    $($(Self::$Kind(layer) => layer.add_units(graph),)+)+
                }
            }
        }
    };
}

layers! {
    activation: Activation;
    batch_norm: BatchNorm;
    class_token: ClassToken;
    concat: Concat;
    conv2d: Conv2d;
    dropout: Dropout;
    embedding: Embedding;
    gated_mlp: GatedMlp;
    group_norm: GroupNorm;
    layer_norm: LayerNorm;
    linear: Linear;
    log_softmax: LogSoftmax;
    patches: Patches;
    pool: AveragePool, GlobalAveragePool, MaxPool;
    position_embedding: PositionEmbedding;
    position_mean: PositionMean;
    reshape: Flatten, Unflatten;
    residual: Residual;
    rms_norm: RmsNorm;
    select_position: SelectPosition;
    self_attention: SelfAttention;
}

/// The shape of a sample after `layers`.
///
/// ```
/// use loss_landscape::layers::{self, Flatten, Linear, Shape};
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[784, 10], Activation::Tanh, 0, &Device::Cpu)?;
/// let linear = Linear::new("layers.0.weight", "layers.0.bias");
/// let image = Shape::new([1, 28, 28]);
/// let misfit = layers::output_shape(&[linear.clone().into()], &image, model.parameters());
/// assert!(misfit.unwrap_err().to_string().contains("Flatten"));
/// let layers = [Flatten.into(), linear.into()];
/// let output = layers::output_shape(&layers, &image, model.parameters()).unwrap();
/// assert_eq!(output.dims(), [10]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// The first layer that does not fit: its settings, the shape that reaches it, and what it needs.
pub fn output_shape(
    layers: &[LayerKind],
    input: &Shape,
    parameters: &Parameters,
) -> Result<Shape, Misfit> {
    let mut shape = input.clone();
    for layer in layers {
        shape = layer.output_shape(&shape, parameters)?;
    }
    Ok(shape)
}

/// The pass through candle's graph for a sequence of layers.
pub(crate) fn forward(
    layers: &[LayerKind],
    x: &Tensor,
    parameters: &Parameters,
    pass: &mut Pass,
) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for layer in layers {
        progress::check()?;
        x = layer.forward(&x, parameters, pass)?;
    }
    Ok(x)
}

/// A parameter in candle's graph.
fn var(parameters: &Parameters, name: &str) -> candle_core::Result<Tensor> {
    let var = parameters.get(name)?;
    Ok(var.as_tensor().clone())
}

/// A parameter's tensor, to read its shape.
fn param<'a>(
    layer: &impl Layer,
    input: &Shape,
    parameters: &'a Parameters,
    name: &str,
) -> Result<&'a Tensor, Misfit> {
    let var = parameters.get(name);
    let var = var.map_err(|e| Misfit::new(layer, input, format!("its parameters: {e}")))?;
    Ok(var.as_tensor())
}
