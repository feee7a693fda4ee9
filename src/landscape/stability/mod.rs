//! [`Stability`]: the edge of stability, watched during a training.

mod batch;
mod central_flow;
mod critical;
mod edge_covariance;
mod report;
mod thresholds;
mod watch;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::batch::BatchSharpness;
pub use self::central_flow::{CentralFlow, CentralFlowPoint, CentralFlowReport};
pub use self::critical::CriticalSharpness;
pub use self::report::{StabilityMeasure, StabilityPoint, StabilityReport};
pub use self::thresholds::stability_threshold;

use self::watch::Watch;
use super::slices::StatisticsSource;
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::{Lanczos, Which};
use crate::train::{BuiltIn, Trainer};

/// Settings of a training during which sharpness is compared with the threshold of the optimizer.
///
/// Full-batch trainings of networks sharpen until the sharpness is at the threshold, and stay there without diverging (Cohen et al.,
/// "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021). [`StabilityMeasure`] lists the sharpnesses,
/// [`stability_threshold`] the thresholds.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: λ_max = 8, and η = 0.24 is below 2/8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let trainer = Trainer::sgd(0.24).with_epochs(41); // one step per epoch
/// let report = Stability::default().train(&trainer, &objective)?;
/// let steps: Vec<usize> = report.points.iter().map(|point| point.step).collect();
/// assert_eq!(steps, [0, 20, 40]);
/// for point in &report.points {
///     assert!((point.value - 8.0).abs() < 1e-6 && (point.ratio() - 8.0 / (2.0 / 0.24)).abs() < 1e-6);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stability {
    /// Number of steps from one measurement to the next.
    pub interval: usize,
    /// What is measured. If empty: batch sharpness for SGD with batches and without momentum, the critical sharpness if the threshold of
    /// the others is not known, otherwise the sharpness.
    pub measures: Vec<StabilityMeasure>,
    /// Number of random samples for λ_max, drawn with the seed of `lanczos`; `None` for all. Their sampling error is not stated.
    pub samples: Option<usize>,
    /// Search for λ_max. Its tolerance bounds the stated error.
    pub lanczos: Lanczos,
}

impl Default for Stability {
    /// Every 20 steps the measure of the optimizer; λ_max of all samples to 1 %.
    fn default() -> Self {
        Self {
            interval: 20,
            measures: Vec::new(),
            samples: None,
            lanczos: Lanczos::default().with_tolerance(0.01),
        }
    }
}

impl Stability {
    /// Sets the number of steps from one measurement to the next [default: 20].
    #[must_use]
    pub fn with_interval(mut self, steps: usize) -> Self {
        self.interval = steps;
        self
    }

    /// Sets what is measured.
    #[must_use]
    pub fn with_measures(mut self, measures: impl Into<Vec<StabilityMeasure>>) -> Self {
        self.measures = measures.into();
        self
    }

    /// Sets the number of random samples for λ_max [default: all].
    #[must_use]
    pub fn with_samples(mut self, samples: usize) -> Self {
        self.samples = Some(samples);
        self
    }

    /// Sets the search for λ_max.
    #[must_use]
    pub fn with_lanczos(mut self, lanczos: Lanczos) -> Self {
        self.lanczos = lanczos;
        self
    }

    /// Trains the model of `objective` and measures before every `interval`-th step, the first one included. The training has the same
    /// bits as with [`Trainer::fit_objective`]. A step that is zero, as at a gradient of 0, has no critical sharpness and is left out.
    ///
    /// If the training or a measurement is no longer finite, the report ends there and [`StabilityReport::stopped`] is the reason.
    ///
    /// # Errors
    /// As [`Trainer::fit_objective`], except for a loss that is not finite; an interval of 0; more samples than the objective has; a
    /// trainer with a checkpoint; a measure that is given twice or does not apply to the trainer, see [`StabilityMeasure`].
    pub fn train(&self, trainer: &Trainer, objective: &Objective) -> Result<StabilityReport> {
        trainer.check()?;
        objective.needs_all_samples("training")?;
        let all = objective.samples();
        if self.interval == 0 {
            return Err(Error::invalid(
                "the interval between measurements is 0 steps: give at least 1",
            ));
        }
        if let Some(samples) = self.samples
            && (samples == 0 || samples > all)
        {
            return Err(Error::invalid(format!(
                "{samples} of {all} samples for λ_max: give 1 to {all}"
            )));
        }
        let twice = |(i, measure)| self.measures[..i].contains(measure);
        if let Some((_, measure)) = self.measures.iter().enumerate().find(|m| twice(*m)) {
            return Err(Error::invalid(format!(
                "the measures contain {measure} twice: give each once"
            )));
        }
        let measures = self.measures_for(trainer, all);
        for measure in &measures {
            measure.check(trainer)?;
        }
        let lanczos = self.lanczos.clone().with_which(Which::Largest);
        let mut watch = Watch::new(trainer, measures, self.interval, self.samples, lanczos);
        // The loss after each epoch is not needed.
        let one = objective.with_subset(&objective.data().first(1)?)?;
        let started = Instant::now();
        let stopped = match trainer.fit_observed(objective, &one, &mut watch) {
            Ok(_) => None,
            Err(Error::NotFinite(reason)) if !watch.points.is_empty() => Some(reason),
            Err(error) => return Err(error),
        };
        Ok(StabilityReport {
            points: watch.points,
            samples: self.samples.unwrap_or(all),
            statistics: StatisticsSource::from_objective(objective),
            stopped,
            seconds: started.elapsed().as_secs_f64(),
            measuring_seconds: watch.seconds,
        })
    }

    fn measures_for(&self, trainer: &Trainer, samples: usize) -> Vec<StabilityMeasure> {
        if !self.measures.is_empty() {
            return self.measures.clone();
        }
        let has_batches = trainer.batch_size < samples;
        let batch = has_batches.then_some(StabilityMeasure::Batch);
        let mut preferred = batch.into_iter().chain([StabilityMeasure::Sharpness]);
        let found = preferred.find(|measure| measure.check(trainer).is_ok());
        vec![found.unwrap_or(StabilityMeasure::Critical)]
    }
}

impl StabilityMeasure {
    /// Refuses a trainer for which the measure's threshold is not known.
    fn check(self, trainer: &Trainer) -> Result<()> {
        let refuse = |reason: &str| {
            Err(Error::invalid(format!(
                "{self} has no known threshold for a training {reason}: measure the critical sharpness, whose threshold is 2/η \
                 for any step"
            )))
        };
        match (self, BuiltIn::of(&*trainer.optimizer)) {
            (Self::Critical, _) => Ok(()),
            _ if trainer.sam.is_some() => refuse("with sharpness-aware steps"),
            _ if trainer.clip_norm.is_some() => refuse("with clipped gradients"),
            (_, None) => refuse(&format!("with the optimizer {:?}", trainer.optimizer)),
            (Self::Batch, Some(BuiltIn::Sgd(sgd))) if sgd.momentum > 0.0 => refuse("with momentum"),
            (Self::Batch, Some(BuiltIn::Adam(_))) => refuse("with Adam"),
            _ => Ok(()),
        }
    }
}
