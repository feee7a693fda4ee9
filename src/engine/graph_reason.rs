//! [`GraphReason`]: why derivatives are computed through candle's graph instead of hand-derived rules.

use crate::layers::Misfit;

/// Why an objective computes its derivatives through candle's graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphReason {
    /// The model does not list its layers; see [`Model::layers`](crate::model::Model::layers).
    #[error("the model does not list its layers")]
    NoLayers,
    /// The model is not a sequence of known layers; see [`Model::without_layers`](crate::model::Model::without_layers).
    #[error("{0}")]
    Unrecognised(String),
    /// None of the layers computes anything.
    #[error("none of the model's layers has rules")]
    NoRules,
    /// A layer that does not fit the shape that reaches it.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The outputs of the layers do not fit the loss and the targets.
    #[error("{0}")]
    Outputs(String),
    /// The loss is a custom function.
    #[error("the loss is a function of your own")]
    OwnLoss,
    /// The model or the data is not on the CPU.
    #[error("the model and its data are not both on the CPU")]
    Device,
    /// The inputs and the parameters have different types.
    #[error(
        "the parameters are {parameters} and the inputs {inputs}: hand-derived rules need both in f32 or both in f64"
    )]
    Dtype {
        /// Type of the parameters.
        parameters: String,
        /// Type of the inputs.
        inputs: String,
    },
    /// Each batch is normalised by its own statistics.
    #[error("each batch is normalised by its own statistics")]
    BatchStatistics,
    /// [`Objective::by_autograd`](crate::objective::Objective::by_autograd) was called.
    #[error("automatic differentiation was requested")]
    Requested,
}
