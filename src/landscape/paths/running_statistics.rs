//! [`RunningStatistics`]: batch normalisation's means and variances, re-estimated at other parameters.
//!
//! Between two trained models, the running statistics of neither fit, and the loss reflects the wrong normalisation rather
//! than the weights (Jordan et al., "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", 2023).

use std::sync::Arc;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, even_parts};
use crate::error::{Error, Result, check_finite, counted};
use crate::objective::Objective;
use crate::parameters::{Parameters, Restore};
use crate::progress;
use crate::tensor_functions::entries;
use crate::vector::axpy;

/// Start value that shows the momentum: the update of a running value scales it exactly, and it is much larger than a
/// batch's own mean or variance.
const PROBE: f64 = (1u64 << 40) as f64;

/// Default maximum number of samples per batch.
const BATCH_SIZE: usize = 512;

type Forward = dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync;

/// The [running statistics](Parameters::statistics) of a model's batch normalisations, named `running_mean` and
/// `running_var`, and how to estimate them from data.
///
/// A forward pass in training mode updates each value by r ← (1 − m)r + ms, where s is the batch's own statistic. Here r is
/// set to 0 before each batch, so that s = r/m; one pass with a very large r shows m. The estimate is the mean of s over
/// batches, weighted by their number of samples; with one batch, it is the data's mean and unbiased variance. In `f32` its
/// relative error is about 10⁻⁷/m.
///
/// ```
/// use loss_landscape::landscape::RunningStatistics;
/// use loss_landscape::prelude::*;
///
/// // With all parameters ½, each unit of the first layer computes ½(x₁ + x₂ + 1).
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let design = Architecture::Toy.design().normalization(Norm::Batch);
/// let model = design
///     .build(&[2], 1, 0, &Device::Cpu)?
///     .to_dtype(DType::F64)?;
/// model
///     .parameters()
///     .set_flat(&vec![0.5; model.parameters().len()])?;
/// let moved = model.clone();
/// let forward = move |x: &Tensor| moved.forward_training(x, 0);
/// let statistics = RunningStatistics::new(model.parameters(), &data, 60, forward)?;
/// assert_eq!(statistics.values()?[0].mean, [0.0; 3]); // initial values
/// statistics.estimate()?;
/// let mean = data.inputs().mean_all()?.to_scalar::<f64>()?; // mean of ½(x₁ + x₂)
/// assert!((statistics.values()?[0].mean[0] - (mean + 0.5)).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct RunningStatistics {
    running: Vec<Running>,
    pub(super) data: Dataset,
    batch_size: usize,
    forward: Arc<Forward>,
}

#[derive(Clone)]
struct Running {
    name: String,
    var: Var,
    /// m; 0 if the forward pass does not update the value, which is then left unchanged.
    momentum: f64,
}

/// Running statistics of one layer, one number per channel.
///
/// See [`RunningStatistics`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NormStatistics {
    /// Name of the layer's variables without the suffix `running_mean` or `running_var`.
    pub layer: String,
    /// Running means, shape `(channels,)`.
    pub mean: Vec<f64>,
    /// Running variances, shape `(channels,)`.
    pub variance: Vec<f64>,
}

impl RunningStatistics {
    /// Creates an estimator for the objective's model, on its data in batches of at most 512 samples.
    ///
    /// ```
    /// # use loss_landscape::landscape::RunningStatistics;
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let design = Architecture::Toy.design().normalization(Norm::Batch);
    /// let model = design
    ///     .build(&[2], 1, 0, &Device::Cpu)?
    ///     .to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let statistics = RunningStatistics::from_objective(&objective)?;
    /// let before = objective.loss()?;
    /// statistics.estimate()?;
    /// assert_ne!(objective.loss()?, before);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RunningStatistics::new`] with the model's [`forward_training`](crate::model::Model::forward_training) or the pass
    /// set by [`Objective::with_training_pass`]; the samples are split across ranks.
    pub fn from_objective(objective: &Objective) -> Result<Self> {
        objective.needs_all_samples("estimating running statistics")?;
        Self::new(
            objective.parameters(),
            objective.data(),
            BATCH_SIZE,
            objective.training_pass(),
        )
    }

    /// Creates an estimator for the running statistics of `parameters` (a `&VarMap` or [`Parameters`]), on `data` in batches of at
    /// most `batch_size` samples. `train_forward` is the forward pass in training mode, such as
    /// `move |x| net.forward_t(x, true)` or `move |x| model.forward_training(x, 0)`. It must not call an objective of the same
    /// model, which would deadlock. The model is unchanged afterwards.
    ///
    /// Batches keep the data's order: shuffle samples that are sorted by class.
    ///
    /// # Errors
    /// There are no running statistics, or they have other names, or one of a pair is missing; `train_forward` fails or updates
    /// none of them; `batch_size` is below 2.
    pub fn new<P, F>(
        parameters: P,
        data: &Dataset,
        batch_size: usize,
        train_forward: F,
    ) -> Result<Self>
    where
        P: TryInto<Parameters>,
        Error: From<P::Error>,
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        if batch_size < 2 || data.len() < 2 {
            return Err(Error::invalid(format!(
                "batches of at most {batch_size} of {}: a variance needs at least 2 samples",
                counted(data.len(), "sample")
            )));
        }
        let mut statistics = Self {
            running: found_in(&parameters.try_into()?)?,
            data: data.clone(),
            batch_size,
            forward: Arc::new(train_forward),
        };
        let momenta = {
            let _saved = statistics.save()?;
            let batch = statistics.batches()?.swap_remove(0);
            let probed = statistics.values_after(PROBE, &batch)?;
            let plain = statistics.values_after(0.0, &batch)?;
            let pairs = probed.iter().zip(&plain);
            pairs
                .map(|(probed, plain)| 1.0 - (probed[0] - plain[0]) / PROBE)
                .collect::<Vec<_>>()
        };
        if momenta.iter().all(|m| *m == 0.0) {
            return Err(Error::invalid(
                "the forward pass updates no running statistics: pass the one in training mode, such as \
                 move |x| net.forward_t(x, true), here or to Objective::with_training_pass",
            ));
        }
        for (running, momentum) in statistics.running.iter_mut().zip(momenta) {
            check_finite(&[momentum], &format!("the momentum of `{}`", running.name))?;
            running.momentum = momentum;
        }
        Ok(statistics)
    }

    /// Returns the current values.
    ///
    /// # Errors
    /// The values cannot be read from their device.
    pub fn values(&self) -> Result<Vec<NormStatistics>> {
        let pairs = self.running.chunks_exact(2);
        let layers = pairs.map(|pair| {
            Ok(NormStatistics {
                layer: pair[0]
                    .name
                    .trim_end_matches("running_mean")
                    .trim_end_matches('.')
                    .into(),
                mean: entries(&pair[0].var)?,
                variance: entries(&pair[1].var)?,
            })
        });
        layers.collect()
    }

    /// Sets the values to their estimate at the current parameters.
    ///
    /// # Errors
    /// The forward pass fails or an estimate is not finite. The previous values are then restored.
    pub fn estimate(&self) -> Result<()> {
        let saved = self.save()?;
        let zeros = |r: &Running| vec![0.0; r.var.elem_count()];
        let mut estimates: Vec<Vec<f64>> = self.running.iter().map(zeros).collect();
        for batch in self.batches()? {
            let share = batch.len() as f64 / self.data.len() as f64;
            let after = self.values_after(0.0, &batch)?;
            for ((estimate, running), r) in estimates.iter_mut().zip(&self.running).zip(after) {
                axpy(share / running.momentum, &r, estimate);
            }
        }
        drop(saved);
        let updated = self.running.iter().zip(&estimates);
        let updated = updated.filter(|(running, _)| running.momentum != 0.0);
        for (running, estimate) in updated.clone() {
            check_finite(estimate, &format!("the estimate of `{}`", running.name))?;
        }
        for (Running { var, .. }, estimate) in updated {
            let tensor = Tensor::from_slice(estimate, var.shape(), var.device())?;
            var.set(&tensor.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }

    /// Returns the running values after one pass that starts with all of them at `start`.
    fn values_after(&self, start: f64, batch: &Dataset) -> Result<Vec<Vec<f64>>> {
        for Running { var, .. } in &self.running {
            var.set(&Tensor::full(start, var.shape(), var.device())?.to_dtype(var.dtype())?)?;
        }
        progress::check()?;
        (self.forward)(batch.inputs())?;
        self.running.iter().map(|r| Ok(entries(&r.var)?)).collect()
    }

    fn batches(&self) -> Result<Vec<Dataset>> {
        let parts = even_parts(self.data.len(), self.batch_size).into_iter();
        parts
            .map(|part| self.data.narrow(part.start, part.len()))
            .collect()
    }

    /// Saves the running values; dropping the result restores them.
    pub(super) fn save(&self) -> Result<Restore> {
        Restore::new(self.running.iter().map(|r| &r.var))
    }
}

impl std::fmt::Debug for RunningStatistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningStatistics")
            .field(
                "names",
                &self.running.iter().map(|r| &r.name).collect::<Vec<_>>(),
            )
            .field("samples", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// Returns the running statistics, each mean followed by its variance, sorted by name.
fn found_in(parameters: &Parameters) -> Result<Vec<Running>> {
    let mut layers = Vec::new();
    for (name, _) in parameters.statistics() {
        let layer = name.strip_suffix("running_mean");
        let layer = layer.or(name.strip_suffix("running_var")).ok_or_else(|| {
            Error::invalid(format!(
                "running statistic `{name}` is neither a mean nor a variance by its name: names must end in \
                 running_mean and running_var"
            ))
        })?;
        layers.push(layer);
    }
    layers.sort_unstable();
    layers.dedup();
    if layers.is_empty() {
        return Err(Error::invalid(
            "the model has no running_mean and running_var: it needs no statistics",
        ));
    }
    let mut running = Vec::new();
    for layer in layers {
        for half in ["running_mean", "running_var"] {
            let name = format!("{layer}{half}");
            let var = parameters.statistic(&name)?.clone();
            running.push(Running {
                name,
                var,
                momentum: 0.0,
            });
        }
    }
    Ok(running)
}
