//! [`StepObserver`]: measures at some of the steps of a training.

use std::time::Duration;

use crate::error::Result;
use crate::objective::Objective;

/// Measures at some of the steps of a training.
pub(crate) trait StepObserver {
    /// Whether to observe the step that follows `steps` steps.
    fn is_due(&self, steps: usize) -> bool;

    /// Called after an observed step.
    fn observe(&mut self, step: ObservedStep) -> Result<()>;
}

/// A step of a training.
pub(crate) struct ObservedStep<'a> {
    /// The training loss on all samples, with the penalty.
    pub(crate) objective: &'a Objective,
    /// Indices of the batch's samples.
    pub(crate) rows: &'a [usize],
    /// Number of steps before this one.
    pub(crate) steps: usize,
    /// Learning rate of this step.
    pub(crate) learning_rate: f64,
    /// Loss of the batch before the step, with the penalty.
    pub(crate) loss: f64,
    /// θ before the step.
    pub(crate) before: Vec<f64>,
    /// θ after the step.
    pub(crate) after: Vec<f64>,
    /// The optimizer's moments after the step, each of θ's length.
    pub(crate) moments: Vec<Vec<f64>>,
    /// Time that reading θ and the moments has taken.
    pub(crate) reading: Duration,
}
