//! Losses and gradients of a batch, for training steps.

use candle_core::DType;
use candle_core::WithDType;
use candle_core::backprop::GradStore;

use super::Objective;
use super::evaluate::sum;
use super::in_use::InUse;
use crate::data::Dataset;
use crate::engine::{BatchScore, GradientSteps};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::losses::finite_loss;

/// Training steps, in which the forward pass may depend on the whole batch.
impl Objective {
    /// Steps by hand-derived rules, if they cover the whole model and `T` is its dtype.
    pub(crate) fn steps<T: Scalar + WithDType>(&self) -> Option<GradientSteps<'_, T>> {
        GradientSteps::new(self.engine.as_deref().ok()?, &self.data, self.l2)
    }

    /// The gradient for some samples at the model's current point, by candle's graph. Randomness in the forward pass
    /// is drawn from `seed`, and running statistics change unless a value is not finite.
    pub(crate) fn step_by_graph(
        &self,
        rows: &[usize],
        seed: u64,
    ) -> Result<(BatchScore, GradStore)> {
        let _in_use = InUse::read(&self.parameters)?;
        let before = self.parameters.flat_statistics()?;
        let found = self.by_graph(&self.data.select(rows)?, seed);
        if found.is_err() {
            self.parameters.set_flat_statistics(&before)?;
        }
        found
    }

    fn by_graph(&self, batch: &Dataset, seed: u64) -> Result<(BatchScore, GradStore)> {
        let outputs = (self.training)(batch.inputs(), seed)?;
        let losses = self.loss.per_sample(&outputs, batch.targets())?;
        let mut value = sum(&losses)? / batch.len() as f64;
        let mut loss = losses.mean_all()?;
        if self.l2 > 0.0 {
            for (_, var) in self.parameters.iter() {
                let penalty = (var.sqr()?.sum_all()? * self.l2)?;
                value += penalty.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                loss = (loss + penalty)?;
            }
        }
        let value = finite_loss(value)?;
        let gradient = loss.backward()?;
        let mut square = 0.0;
        for (_, var) in self.parameters.iter() {
            if let Some(part) = gradient.get(var) {
                let part = part.sqr()?.sum_all()?.to_dtype(DType::F64)?;
                square += part.to_scalar::<f64>()?;
            }
        }
        Ok((
            BatchScore::new(value, self.loss.count_correct(&outputs, batch)?, square)?,
            gradient,
        ))
    }
}
