//! [`StabilityReport`]: sharpness and threshold during a training.

use serde::{Deserialize, Serialize};

use crate::error::counted;
use crate::landscape::slices::StatisticsSource;
use crate::spectral::Short;

/// A sharpness that is compared with the threshold of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StabilityMeasure {
    /// λ_max of the Hessian H of the mean loss over all samples; for Adam of P⁻¹H with the preconditioner of the step. The threshold is
    /// [`stability_threshold`](super::stability_threshold). It is not known for optimizers of one's own, clipped gradients and
    /// sharpness-aware steps. With batches the training stays below it.
    ///
    /// The error is the residual of the eigenpair. λ_max is followed from point to point by [`Following`](crate::spectral::Following).
    Sharpness,
    /// [Batch sharpness](super::BatchSharpness), with the threshold 2/η, for SGD without momentum, clipping and sharpness-aware steps.
    ///
    /// Each point takes the batch of its step, and three losses for its curvature along the step. The value is the ratio over the last
    /// 20 points, from the third on, and the error is its standard error, which takes these points as independent. If each batch has all
    /// samples, the value is that of the point and has no sampling error.
    Batch,
    /// [Critical sharpness](super::CriticalSharpness) along the step on the batch of the step, with the threshold 2/η, for any training.
    ///
    /// The error is the distance to the farther bound.
    Critical,
}

impl std::fmt::Display for StabilityMeasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sharpness => "sharpness",
            Self::Batch => "batch sharpness",
            Self::Critical => "critical sharpness",
        })
    }
}

/// Sharpness and threshold before one step of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StabilityPoint {
    /// Number of steps before this one.
    pub step: usize,
    /// Loss of the step's batch, with the penalty.
    pub loss: f64,
    /// Learning rate η of the step.
    pub learning_rate: f64,
    /// What `value` is.
    pub measure: StabilityMeasure,
    /// The sharpness.
    pub value: f64,
    /// Error of `value`; see [`StabilityMeasure`].
    pub error: f64,
    /// Threshold of the sharpness for this step.
    pub threshold: f64,
    /// For [`StabilityMeasure::Sharpness`], the number of points since the last one at which λ_max was checked to be the largest
    /// eigenvalue, 0 if at this one. Between checks a new largest eigenvalue can be missed; see
    /// [`Following`](crate::spectral::Following).
    pub points_since_check: Option<usize>,
}

impl StabilityPoint {
    /// Returns `value` / `threshold`: 1 at the edge of stability.
    pub fn ratio(&self) -> f64 {
        self.value / self.threshold
    }
}

/// Sharpness and threshold during a training, and the cost of measuring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StabilityReport {
    /// The measurements, in the order of the steps.
    pub points: Vec<StabilityPoint>,
    /// Number of samples for λ_max.
    pub samples: usize,
    /// Source of the batch-normalisation statistics.
    pub statistics: StatisticsSource,
    /// Why the training ended before its last step, if a loss, gradient or product was not finite.
    pub stopped: Option<String>,
    /// Seconds of the training and the measurements.
    pub seconds: f64,
    /// Seconds of the measurements.
    pub measuring_seconds: f64,
}

impl StabilityReport {
    /// Returns the median ratio of `measure` to its threshold over the points from `step` on; `None` if there are none.
    pub fn median_ratio(&self, measure: StabilityMeasure, step: usize) -> Option<f64> {
        let points = self.points.iter();
        let points = points.filter(|point| point.measure == measure && point.step >= step);
        let mut ratios: Vec<f64> = points.map(StabilityPoint::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        match ratios.len() {
            0 => None,
            n if n.is_multiple_of(2) => Some(0.5 * (ratios[middle - 1] + ratios[middle])),
            _ => Some(ratios[middle]),
        }
    }

    /// Returns the notes that belong to the table: cost, and why the training stopped.
    pub fn notes(&self) -> Vec<String> {
        let share = 100.0 * self.measuring_seconds / (self.seconds - self.measuring_seconds);
        let mut notes = vec![format!(
            "{:.2} s, of which {:.2} s to measure: {share:.0} % of the training's time",
            self.seconds, self.measuring_seconds
        )];
        if self.points.is_empty() && self.stopped.is_none() {
            notes.push(
                "there is no measurement: train for more steps, or measure at a smaller interval; batch sharpness needs three"
                    .into(),
            );
        }
        if self.statistics != StatisticsSource::None {
            notes.push(self.statistics.to_string());
        }
        if let Some(reason) = &self.stopped {
            notes.push(format!("the training stopped: {reason}"));
        }
        notes
    }
}

impl std::fmt::Display for StabilityReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let points = counted(self.points.len(), "point");
        write!(f, "{points}")?;
        if let Some(last) = self.points.last() {
            write!(
                f,
                ", the last after {}: {} {:.5} ± {:.2}, {:.4} times the threshold {:.5}",
                counted(last.step, "step"),
                last.measure,
                Short(last.value),
                Short(last.error),
                Short(last.ratio()),
                Short(last.threshold)
            )?;
        }
        self.notes()
            .iter()
            .try_for_each(|note| write!(f, "\n{note}"))
    }
}
