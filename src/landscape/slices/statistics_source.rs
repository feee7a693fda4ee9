//! [`StatisticsSource`]: which means and variances batch normalisation used for a result.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, counted};
use crate::objective::Objective;

/// Which means and variances batch normalisation used to compute the losses of a result.
///
/// ```
/// use loss_landscape::landscape::StatisticsSource;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let design = Architecture::Toy.design().normalization(Norm::Batch);
/// let model = design
///     .build(&[2], 1, 0, &Device::Cpu)?
///     .to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let plane = Plane::random(&objective, 0, 0.1, 3)?;
/// assert_eq!(plane.statistics, StatisticsSource::Model);
/// let batch = objective.with_batch_statistics(30)?;
/// let plane = Plane::random(&batch, 0, 0.1, 3)?;
/// assert_eq!(
///     plane.statistics.to_string(),
///     "batch normalisation by batches of at most 30 samples"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StatisticsSource {
    /// None: the model has no running statistics.
    #[default]
    None,
    /// The model's running statistics, the same at all points. They fit only the model's own parameters: far from them, the
    /// losses are those of a wrong normalisation.
    Model,
    /// The running statistics of each snapshot, as recorded during training.
    Snapshots,
    /// Running statistics estimated at each point from this many samples.
    Estimated {
        /// Number of samples.
        samples: usize,
    },
    /// Means and variances of fixed batches, as in training. See
    /// [`Objective::with_batch_statistics`](crate::objective::Objective::with_batch_statistics).
    Batches {
        /// Largest number of samples in a batch.
        size: usize,
    },
}

impl StatisticsSource {
    /// Returns the source for losses of `objective` at points where only θ changes.
    pub(in crate::landscape) fn from_objective(objective: &Objective) -> Self {
        match objective.batch_statistics() {
            Some(size) => Self::Batches {
                size: size.min(objective.samples()),
            },
            None if objective.uses_running_statistics() => Self::Model,
            None => Self::None,
        }
    }
}

impl std::fmt::Display for StatisticsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => write!(f, "no running statistics"),
            Self::Model => write!(
                f,
                "batch normalisation by the model's running statistics, the same at all points"
            ),
            Self::Snapshots => write!(
                f,
                "batch normalisation by the running statistics of each snapshot"
            ),
            Self::Estimated { samples } => write!(
                f,
                "batch normalisation by running statistics estimated at each point on {}",
                counted(*samples, "sample")
            ),
            Self::Batches { size } => write!(
                f,
                "batch normalisation by batches of at most {}",
                counted(*size, "sample")
            ),
        }
    }
}

/// Returns an error if `objective` has running statistics, because `what` needs losses far from the point they belong to.
pub(in crate::landscape) fn needs_statistics_everywhere(
    objective: &Objective,
    what: &str,
) -> Result<()> {
    if !objective.uses_running_statistics() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} needs the loss far from the model's parameters, where the model's running statistics of batch normalisation \
         do not fit: use objective.with_batch_statistics(512)?, which normalises by the data at every point"
    )))
}
