//! Objectives in training mode: batch normalisation with the mean and variance of fixed batches.

use std::sync::Arc;

use candle_core::{Tensor, WithDType};

use super::{Objective, check};
use crate::data::{Dataset, even_parts};
use crate::engine::GradientSteps;
use crate::error::{Error, Result, counted};
use crate::kernels::Scalar;
use crate::parameters::Restore;
use crate::vector::axpy;

/// Probe value for the running statistics, to detect whether a forward pass changes them.
const MARK: f64 = 1e3;

impl Objective {
    /// Sets the forward pass in training mode of a model that was given to [`from_fn`](Self::from_fn) or
    /// [`from_loss`](Self::from_loss) in evaluation mode. Batch statistics, paths and
    /// [`RunningStatistics`](crate::landscape::RunningStatistics) need it; an objective of a
    /// [`Model`](crate::model::Model) already has it.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// use loss_landscape::candle_nn::ModuleT;
    ///
    /// let vars = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
    /// let first = candle_nn::linear(2, 4, vb.pp("first"))?;
    /// let norm = candle_nn::batch_norm(4, 1e-5, vb.pp("norm"))?;
    /// let last = candle_nn::linear(4, 1, vb.pp("last"))?;
    /// let net = move |x: &Tensor, train| {
    ///     let h = norm.forward_t(&first.forward(x)?, train)?;
    ///     last.forward(&h.tanh()?)
    /// };
    /// let trained = net.clone();
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let objective =
    ///     Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| net(x, false))?
    ///         .with_training_pass(move |x| trained(x, true));
    /// let batch = objective.with_batch_statistics(60)?;
    /// assert!(batch.hvp(&vec![1.0; batch.dim()])?.len() == batch.dim());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_training_pass<F>(mut self, forward: F) -> Self
    where
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        self.training = Arc::new(move |x, _| forward(x));
        self
    }

    /// The loss in training mode, in which batch normalisation uses the mean and variance of each batch B:
    ///
    /// L(θ) = (1/n) Σ_B Σ_{i ∈ B} ℓ(f(xᵢ; θ, B), yᵢ) + λ‖θ‖²
    ///
    /// The samples, in their order, are split into the fewest batches of at most `batch_size` samples, whose sizes
    /// differ by at most one; with `usize::MAX` all samples are one batch. Shuffle samples that are sorted by class.
    /// The running statistics are neither used nor changed, so the loss is a function of θ alone and is valid on
    /// lines, planes, paths and trajectories far from the model.
    ///
    /// The derivatives go through mean and variance, so this Hessian includes the effect of batch normalisation on
    /// curvature. Products are computed by candle's graph, one batch per core; losses and gradients by hand-derived
    /// rules where the model has them. The samples of a batch depend on each other, so there are no per-sample
    /// gradients: [`EmpiricalFisher`](crate::operator::EmpiricalFisher),
    /// [`GradientCovariance`](crate::operator::GradientCovariance) and [`jacobian`](Objective::jacobian) return an
    /// error.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let design = Architecture::Toy.design().normalization(Norm::Batch);
    /// let model = design
    ///     .build(&[2], 1, 0, &Device::Cpu)?
    ///     .to_dtype(DType::F64)?;
    /// let running = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let batch = running.clone().with_batch_statistics(usize::MAX)?;
    ///
    /// // A normalised layer is invariant to the scale of its weights W, so the gradient along W is 0.
    /// let theta = model.parameters().to_flat()?;
    /// let weights = model.parameters().range("hidden0.weight")?;
    /// let along = |objective: &Objective| -> Result<f64, Error> {
    ///     let gradient = objective.gradient()?;
    ///     Ok(weights.clone().map(|i| gradient[i] * theta[i]).sum())
    /// };
    /// assert!(along(&batch)?.abs() < 1e-4 * along(&running)?.abs()); // up to ε
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A model without running statistics; a forward pass that does not change them, such as that of
    /// [`from_fn`](Self::from_fn) without [`with_training_pass`](Self::with_training_pass); one that draws random
    /// numbers, as dropout does; fewer than 2 samples per batch; samples that are divided among ranks; derivatives
    /// that central differences contradict.
    pub fn with_batch_statistics(mut self, batch_size: usize) -> Result<Self> {
        self.needs_all_samples("normalising by batches")?;
        let n = self.data.len();
        if batch_size < 2 || n < 2 {
            return Err(Error::invalid(format!(
                "batches of at most {batch_size} of {}: a variance needs at least 2",
                counted(n, "sample")
            )));
        }
        if self.parameters.statistics().len() == 0 {
            return Err(Error::invalid(
                "the model has no running statistics, so it has no batch normalisation: omit \
                 with_batch_statistics",
            ));
        }
        self.check_training_pass(batch_size)?;
        self.batches = Some(batch_size);
        let statistics = self.parameters.statistics().map(|(_, var)| var);
        let _restore = Restore::new(statistics)?;
        self.check = check::check(&self)?;
        Ok(self)
    }

    /// The forward pass in training mode.
    pub(crate) fn training_pass(
        &self,
    ) -> impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static {
        let training = self.training.clone();
        move |x| training(x, 0)
    }

    /// The largest number of samples in a batch, if batch statistics are used.
    pub(crate) fn batch_statistics(&self) -> Option<usize> {
        self.batches
    }

    /// Whether the loss depends on running statistics, which are part of the model's current point.
    pub(crate) fn uses_running_statistics(&self) -> bool {
        self.batches.is_none() && self.parameters.statistics().len() > 0
    }

    /// Returns an error that names `what` if the samples of a batch depend on each other.
    pub(crate) fn needs_independent_samples(&self, what: &str) -> Result<()> {
        match self.batches {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "{what} needs the gradient of each sample, and with batch statistics the samples of a batch \
                 depend on each other: use the objective from before with_batch_statistics"
            ))),
        }
    }

    /// Returns an error if a training pass does not change the running statistics or depends on its seed.
    fn check_training_pass(&self, batch_size: usize) -> Result<()> {
        let first = even_parts(self.data.len(), batch_size).swap_remove(0);
        let batch = [self.data.narrow(first.start, first.len())?];
        let (outputs, moved) = self.exclusively(|objective| {
            let statistics = || objective.parameters.statistics();
            let _restore = Restore::new(statistics().map(|(_, var)| var))?;
            for (_, var) in statistics() {
                let mark = Tensor::full(MARK, var.shape(), var.device())?;
                var.set(&mark.to_dtype(var.dtype())?)?;
            }
            let marked = objective.parameters.flat_statistics()?;
            let pass = |seed| {
                let pass = |batch: &Dataset| Ok((objective.training)(batch.inputs(), seed)?);
                objective.on_workers(&batch, pass)?.swap_remove(0)
            };
            let outputs = [pass(0)?, pass(1)?];
            let moved = objective.parameters.flat_statistics()? != marked;
            Ok((outputs, moved))
        })?;
        if !moved {
            return Err(Error::invalid(
                "the forward pass updates no running statistics, so it is not in training mode: pass one that does to \
                 Objective::with_training_pass, such as move |x| net.forward_t(x, true)",
            ));
        }
        let [first, second] = [0, 1].map(|i| self.parameters.flatten([&outputs[i]].into_iter()));
        if first? != second? {
            return Err(Error::invalid(
                "the forward pass draws random numbers in training mode, as dropout does, so its loss differs between \
                 calls: build the model without dropout to measure it with batch statistics",
            ));
        }
        Ok(())
    }

    /// The mean loss without its L2 term, the number of correct predictions and the gradient, at θ or at the current
    /// point, by hand-derived rules; `None` without such rules or without batch statistics.
    pub(super) fn in_batches(
        &self,
        theta: Option<&[f64]>,
    ) -> Result<Option<(f64, usize, Vec<f64>)>> {
        let (Some(size), Ok(engine)) = (self.batches, self.engine.as_deref()) else {
            return Ok(None);
        };
        if let Some(steps) = GradientSteps::<f32>::new(engine, &self.data, 0.0) {
            return self.over_steps(steps, theta, size).map(Some);
        }
        if let Some(steps) = GradientSteps::<f64>::new(engine, &self.data, 0.0) {
            return self.over_steps(steps, theta, size).map(Some);
        }
        Ok(None)
    }

    fn over_steps<T: Scalar + WithDType>(
        &self,
        mut steps: GradientSteps<T>,
        theta: Option<&[f64]>,
        size: usize,
    ) -> Result<(f64, usize, Vec<f64>)> {
        let n = self.data.len();
        let mut point: Vec<T> = self
            .point(theta)?
            .iter()
            .map(|x| Scalar::from_f64(*x))
            .collect();
        let mut total = (0.0, 0, vec![0.0; self.dim()]);
        for rows in even_parts(n, size) {
            let share = rows.len() as f64 / n as f64;
            let (batch, gradient) = steps.gradient(&mut point, &rows.collect::<Vec<_>>())?;
            let gradient: Vec<f64> = gradient.iter().map(|g| g.f64()).collect();
            total.0 += share * batch.loss;
            total.1 += batch.correct;
            axpy(share, &gradient, &mut total.2);
        }
        Ok(total)
    }
}
