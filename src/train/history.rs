//! [`History`]: how a training went.

use serde::{Deserialize, Serialize};

/// What is known after a pass over the training data.
///
/// See [`History`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Passes made, counted from 1.
    pub epoch: u32,
    /// Mean loss of the pass's batches, each measured just before its step, with the L2 term.
    pub train_loss: f64,
    /// Share of the training data that was classified right just before its step, if it has labels.
    pub train_accuracy: Option<f64>,
    /// Root of the mean ‖g‖² of the batches' gradients g.
    pub gradient_norm: f64,
    /// Loss on the test data after the pass.
    pub test_loss: f64,
    /// Share of the test data that is classified right, if it has labels.
    pub test_accuracy: Option<f64>,
    /// Of the last step.
    pub learning_rate: f64,
    /// Seconds since the start.
    pub seconds: f64,
}

/// One line for each pass over the training data.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let history = Trainer::adam(0.01)
///     .with_batch_size(20)
///     .with_epochs(3)
///     .fit(&model, &data, &data)?;
/// assert_eq!(history.table()?.height(), 3);
/// let last = &history.epochs[2];
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// assert_eq!((last.epoch, last.test_loss), (3, objective.loss()?));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The passes, in order.
    pub epochs: Vec<Epoch>,
    /// With patience the pass after which the model had the weights that it has now.
    pub best: Option<u32>,
}
