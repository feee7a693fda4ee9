//! What a step of training needs to know of its batch.

use candle_core::DType;
use candle_core::backprop::GradStore;

use super::Objective;
use super::evaluate::{finite, in_place, right};
use crate::data::Dataset;
use crate::error::{Result, check_finite};
use crate::vector::{axpy, dot};

/// A batch at a point, and its gradient there.
pub(crate) struct BatchStep<G> {
    /// The mean loss, with the L2 term.
    pub(crate) loss: f64,
    /// How many of the samples are classified right.
    pub(crate) right: usize,
    /// ‖g‖² of the loss's gradient g.
    pub(crate) square: f64,
    pub(crate) gradient: G,
}

/// In both, what is of the batch in the forward pass is so in steps of training alone.
impl Objective {
    /// Whether [`Objective::step_by_hand`] knows all of the model.
    pub(crate) fn steps_by_hand(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.trains())
    }

    /// A step of training at a point, which is θ and after it the running statistics; those move, unless loss or
    /// gradient are not finite.
    pub(crate) fn step_by_hand(
        &self,
        point: &mut [f64],
        batch: &Dataset,
    ) -> Result<BatchStep<Vec<f64>>> {
        let Some(engine) = &self.engine else {
            unreachable!("only where `steps_by_hand`");
        };
        let mut step = engine.training(point, batch)?;
        let (theta, statistics) = point.split_at_mut(self.dim());
        if self.l2 > 0.0 {
            step.loss += self.l2 * dot(theta, theta);
            axpy(2.0 * self.l2, theta, &mut step.gradient);
        }
        let loss = finite(step.loss)?;
        let square = finite(dot(&step.gradient, &step.gradient))?;
        check_finite(&step.statistics, "running mean or variance")?;
        statistics.copy_from_slice(&step.statistics);
        Ok(BatchStep {
            loss,
            right: step.right,
            square,
            gradient: step.gradient,
        })
    }

    /// A step of training where the model stands, by candle's graph. What is random in the forward pass is drawn from
    /// `seed`, and running statistics move, unless something is not finite.
    pub(crate) fn step_by_graph(&self, batch: &Dataset, seed: u64) -> Result<BatchStep<GradStore>> {
        let _in_place = in_place();
        let before = self.parameters.flat_statistics()?;
        let found = self.by_graph(batch, seed);
        if found.is_err() {
            self.parameters.set_flat_statistics(&before)?;
        }
        found
    }

    fn by_graph(&self, batch: &Dataset, seed: u64) -> Result<BatchStep<GradStore>> {
        let outputs = (self.training)(batch.inputs(), seed)?;
        let mut loss = self.loss.mean(&outputs, batch.targets())?;
        if self.l2 > 0.0 {
            for (_, var) in self.parameters.iter() {
                loss = (loss + (var.sqr()?.sum_all()? * self.l2)?)?;
            }
        }
        let value = finite(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?)?;
        let gradient = loss.backward()?;
        let mut square = 0.0;
        for (_, var) in self.parameters.iter() {
            if let Some(part) = gradient.get(var) {
                let part = part.sqr()?.sum_all()?.to_dtype(DType::F64)?;
                square += part.to_scalar::<f64>()?;
            }
        }
        Ok(BatchStep {
            loss: value,
            right: right(&outputs, batch)?,
            square,
            gradient,
        })
    }
}
