//! What a step of training needs to know of its batch.

use candle_core::DType;
use candle_core::backprop::GradStore;

use super::evaluate::{finite, in_place, right};
use super::{Objective, autograd};
use crate::data::Dataset;
use crate::error::{Result, check_finite};
use crate::vector::{axpy, dot};

/// A batch at the point where the model stands.
pub(crate) struct BatchStep {
    /// Its mean loss, with the L2 term.
    pub(crate) loss: f64,
    /// How many of its samples are classified right.
    pub(crate) right: usize,
    /// ‖g‖² of the loss's gradient g.
    pub(crate) square: f64,
    pub(crate) gradients: GradStore,
}

impl Objective {
    /// A step of training on some of the samples. What is of the batch or random in the forward pass is so here alone, the
    /// latter drawn from `seed`, and running statistics move, unless loss or gradient are not finite.
    pub(crate) fn on_batch(&self, batch: &Dataset, seed: u64) -> Result<BatchStep> {
        let point = self.point(None)?;
        let by_hand = match &self.engine {
            Some(engine) => engine.training(&point, batch)?,
            None => None,
        };
        if let Some(mut step) = by_hand {
            let theta = &point[..self.dim()];
            if self.l2 > 0.0 {
                step.loss += self.l2 * dot(theta, theta);
                axpy(2.0 * self.l2, theta, &mut step.gradient);
            }
            let loss = finite(step.loss)?;
            let square = dot(&step.gradient, &step.gradient);
            let gradients = autograd::store(&self.parameters, &step.gradient)?;
            check_finite(&step.statistics, "running mean or variance")?;
            self.parameters.set_flat_statistics(&step.statistics)?;
            return Ok(BatchStep {
                loss,
                right: step.right,
                square,
                gradients,
            });
        }
        let _in_place = in_place();
        let before = self.parameters.flat_statistics()?;
        let found = self.on_batch_by_autograd(batch, seed);
        if found.is_err() {
            self.parameters.set_flat_statistics(&before)?;
        }
        found
    }

    fn on_batch_by_autograd(&self, batch: &Dataset, seed: u64) -> Result<BatchStep> {
        let outputs = (self.training)(batch.inputs(), seed)?;
        let mut loss = self.loss.mean(&outputs, batch.targets())?;
        if self.l2 > 0.0 {
            for (_, var) in self.parameters.iter() {
                loss = (loss + (var.sqr()?.sum_all()? * self.l2)?)?;
            }
        }
        let value = finite(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?)?;
        let gradients = loss.backward()?;
        let mut square = 0.0;
        for (_, var) in self.parameters.iter() {
            if let Some(gradient) = gradients.get(var) {
                let part = gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?;
                square += part.to_scalar::<f64>()?;
            }
        }
        Ok(BatchStep {
            loss: value,
            right: right(&outputs, batch)?,
            square,
            gradients,
        })
    }
}
