//! [`RunningStatistics`]: batch normalisation's means and variances, estimated anew where a model is moved.
//!
//! Between two trained models the running statistics of neither fit, so that the loss there is that of wrong
//! normalisation and not of the weights (Jordan et al., "REPAIR: renormalizing permuted activations for
//! interpolation repair", 2023).

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, even_parts};
use crate::error::{Error, Result, check_finite};
use crate::model::{Parameters, Restore};
use crate::objective::Objective;
use crate::vector::axpy;

/// A number that the update of a running value carries through exactly, and beside which a batch's own mean
/// or variance is small.
const MARK: f64 = (1u64 << 40) as f64;

/// Samples in a batch, if not said otherwise.
const BATCH: usize = 512;

type Forward = dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync;

/// The `running_mean` and `running_var` of a model's batch normalisations, as its
/// [statistics](Parameters::statistics) are called, and how to estimate them on data.
///
/// The model's forward pass in training mode moves each of them by r ← (1 − m)r + m s towards the batch's own
/// s. Here r is set to 0 before each batch, so that s = r/m; m is found by one pass with a very large r. The
/// estimate is the mean of s over batches, weighted by their samples: with one batch, the data's own mean and
/// unbiased variance. In `f32` it is right to about 10⁻⁷/m.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // Where all parameters are ½, the first layer gives ½(x₁ + x₂ + 1) to each of its units.
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
/// assert_eq!(statistics.values()?[0].mean, [0.0; 3]); // as they were made
/// statistics.estimate()?;
/// let mean = data.inputs().mean_all()?.to_scalar::<f64>()?; // (x̄₁ + x̄₂)/2
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
    /// m; 0 where the forward pass leaves the value alone, as do we.
    momentum: f64,
}

/// A layer's running statistics, one number for each channel.
///
/// See [`RunningStatistics`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NormStatistics {
    /// The name of its variables without `running_mean`, `running_var`.
    pub layer: String,
    /// The mean.
    pub mean: Vec<f64>,
    /// The variance.
    pub variance: Vec<f64>,
}

impl RunningStatistics {
    /// Those of the model of `objective`, to be estimated on its data in batches of at most 512 samples.
    ///
    /// ```
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
    /// As [`RunningStatistics::new`], with the model's [`forward_training`](crate::model::Model::forward_training) or the
    /// pass that [`Objective::with_training_pass`] was given. Samples that are divided among ranks.
    pub fn from_objective(objective: &Objective) -> Result<Self> {
        objective.needs_all_samples("estimating running statistics")?;
        Self::new(
            objective.parameters(),
            objective.data(),
            BATCH,
            objective.training_pass(),
        )
    }

    /// Those of `parameters`, a `&VarMap` or [`Parameters`], to be estimated on `data`, all at once or in batches of
    /// at most `batch_size` samples; `train_forward` is the forward pass in training mode, such as
    /// `move |x| net.forward_t(x, true)` or `move |x| model.forward_training(x, 0)`, and nothing that asks an
    /// objective, which may be waiting for it. The model is the same afterwards.
    ///
    /// Batches come in the data's order: shuffle samples that are sorted by class.
    ///
    /// # Errors
    /// No running statistics, some of other names, or one of a pair without the other; a `train_forward` that fails
    /// or updates none of them; a batch size below 2.
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
                "batches of at most {batch_size} of {} samples: a variance needs at least 2",
                data.len()
            )));
        }
        let mut statistics = Self {
            running: found_in(&parameters.try_into()?)?,
            data: data.clone(),
            batch_size,
            forward: Arc::new(train_forward),
        };
        let momenta = {
            let _kept = statistics.keep()?;
            let batch = statistics.batches()?.swap_remove(0);
            let marked = statistics.after(MARK, &batch)?;
            let plain = statistics.after(0.0, &batch)?;
            let pairs = marked.iter().zip(&plain);
            pairs
                .map(|(m, p)| 1.0 - (m[0] - p[0]) / MARK)
                .collect::<Vec<_>>()
        };
        if momenta.iter().all(|m| *m == 0.0) {
            return Err(Error::invalid(
                "the forward pass updates no running statistics: give the one in training mode, such as \
                 move |x| net.forward_t(x, true), here or to Objective::with_training_pass",
            ));
        }
        for (running, momentum) in statistics.running.iter_mut().zip(momenta) {
            check_finite(&[momentum], &format!("the momentum of `{}`", running.name))?;
            running.momentum = momentum;
        }
        Ok(statistics)
    }

    /// What they are now.
    ///
    /// # Errors
    /// candle's, when a device cannot be read.
    pub fn values(&self) -> Result<Vec<NormStatistics>> {
        let pairs = self.running.chunks_exact(2);
        let layers = pairs.map(|pair| {
            Ok(NormStatistics {
                layer: pair[0]
                    .name
                    .trim_end_matches("running_mean")
                    .trim_end_matches('.')
                    .into(),
                mean: host(&pair[0].var)?,
                variance: host(&pair[1].var)?,
            })
        });
        layers.collect()
    }

    /// Sets them to the estimate for the parameters as they are.
    ///
    /// # Errors
    /// The forward pass's; an estimate that is not finite. They are then as they were before.
    pub fn estimate(&self) -> Result<()> {
        let kept = self.keep()?;
        let zeros = |r: &Running| vec![0.0; r.var.elem_count()];
        let mut estimates: Vec<Vec<f64>> = self.running.iter().map(zeros).collect();
        for batch in self.batches()? {
            let share = batch.len() as f64 / self.data.len() as f64;
            let after = self.after(0.0, &batch)?;
            for ((estimate, running), r) in estimates.iter_mut().zip(&self.running).zip(after) {
                axpy(share / running.momentum, &r, estimate);
            }
        }
        drop(kept);
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

    /// What the running values are after one pass that began with all of them at `start`.
    fn after(&self, start: f64, batch: &Dataset) -> Result<Vec<Vec<f64>>> {
        for Running { var, .. } in &self.running {
            var.set(&Tensor::full(start, var.shape(), var.device())?.to_dtype(var.dtype())?)?;
        }
        (self.forward)(batch.inputs())?;
        self.running.iter().map(|r| host(&r.var)).collect()
    }

    fn batches(&self) -> Result<Vec<Dataset>> {
        let parts = even_parts(self.data.len(), self.batch_size).into_iter();
        parts
            .map(|part| self.data.narrow(part.start, part.len()))
            .collect()
    }

    /// Puts the running values back when it goes.
    pub(super) fn keep(&self) -> Result<Restore> {
        Restore::of(self.running.iter().map(|r| &r.var))
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

/// A mean and its variance after another, sorted by name.
fn found_in(parameters: &Parameters) -> Result<Vec<Running>> {
    let mut layers = Vec::new();
    for (name, _) in parameters.statistics() {
        let layer = name.strip_suffix("running_mean");
        let layer = layer.or(name.strip_suffix("running_var")).ok_or_else(|| {
            Error::invalid(format!(
                "running statistic `{name}` is no mean and no variance by its name: end names in \
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

fn host(var: &Var) -> Result<Vec<f64>> {
    Ok(var.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}
