//! [`History`]: losses and accuracies of a training, per epoch.

use serde::{Deserialize, Serialize};

/// Statistics of one epoch.
///
/// See [`History`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, counted from 1.
    pub epoch: u32,
    /// Mean loss of the batches, each measured just before its step, with the L2 term.
    pub train_loss: f64,
    /// Accuracy on the training batches, each measured just before its step, 0 to 1; `None` without labels.
    pub train_accuracy: Option<f64>,
    /// Root mean square of ‖g‖ over the gradients g of the batches, before [clipping](super::Trainer::with_clip_norm).
    pub gradient_norm: f64,
    /// Loss on the test data after the epoch.
    pub test_loss: f64,
    /// Accuracy on the test data after the epoch, 0 to 1; `None` without labels.
    pub test_accuracy: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Seconds since the start of the training.
    pub seconds: f64,
}

/// Statistics of each epoch of a training.
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
    /// The epochs, in order.
    pub epochs: Vec<Epoch>,
    /// With [patience](super::Trainer::with_patience), the epoch whose weights were restored.
    pub best: Option<u32>,
}
