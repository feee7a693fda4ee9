//! [`Schedule`]: how the learning rate changes during training.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A factor of the learning rate that changes during training.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::Schedule;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let rates = |schedule| {
///     let trainer = Trainer::sgd(0.1).with_epochs(4).with_schedule(schedule);
///     let history = trainer.fit(
///         &model,
///         &data.to_dtype(DType::F32)?,
///         &data.to_dtype(DType::F32)?,
///     )?;
///     Ok::<_, Error>(
///         history
///             .epochs
///             .iter()
///             .map(|epoch| epoch.learning_rate)
///             .collect::<Vec<_>>(),
///     )
/// };
/// assert_eq!(rates(Schedule::Constant)?, [0.1; 4]);
/// let halved = rates(Schedule::Decay {
///     every: 2,
///     factor: 0.5,
/// })?;
/// assert_eq!(halved, [0.1, 0.1, 0.05, 0.05]);
/// let halfway = rates(Schedule::CosineTo { floor: 0.2 })?[2];
/// assert!((halfway - 0.1 * (0.2 + 1.0) / 2.0).abs() < 1e-15);
/// assert!(
///     rates(Schedule::Cosine)?
///         .windows(2)
///         .all(|pair| pair[0] > pair[1])
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Schedule {
    /// Constant learning rate.
    #[default]
    Constant,
    /// ½(1 + cos πt), from 1 at the start (t = 0) to 0 at the end (t = 1) (Loshchilov and Hutter, "SGDR", 2017). A warm-up
    /// multiplies it.
    Cosine,
    /// `floor` + (1 − `floor`) · ½(1 + cos πt), from 1 at the end of the [warm-up](super::Trainer::with_warmup) (t = 0) to
    /// `floor` at the end of the training (t = 1), as in nanoGPT.
    #[serde(rename = "cosine_to")]
    CosineTo {
        /// Final factor, in [0, 1].
        floor: f64,
    },
    /// `factor`ⁱ after i · `every` epochs.
    Decay {
        /// Number of epochs between two decays.
        every: u32,
        /// Factor of each decay, in (0, 1].
        factor: f64,
    },
}

impl Schedule {
    /// The factor of step `step`, counted from 0, of `total` steps, of which each epoch has `per_epoch` and the warm-up `warmup`.
    pub(super) fn factor(self, step: usize, total: usize, per_epoch: usize, warmup: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => {
                let t = step as f64 / total.max(1) as f64;
                0.5 * (1.0 + (std::f64::consts::PI * t).cos())
            }
            Self::CosineTo { floor } => {
                let remaining = total.saturating_sub(warmup).max(1);
                let t = step.saturating_sub(warmup) as f64 / remaining as f64;
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
            }
            Self::Decay { every, factor } => {
                let epoch = step / per_epoch.max(1);
                factor.powf((epoch / every.max(1) as usize) as f64)
            }
        }
    }

    /// Checks that the settings are in their ranges.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Decay { every, factor } if every == 0 || !(factor > 0.0 && factor <= 1.0) => {
                Err(Error::invalid(format!(
                    "the learning rate decays by {factor} every {every} epochs: give a factor in (0, 1] and at \
                     least 1 epoch"
                )))
            }
            Self::CosineTo { floor } if !(0.0..=1.0).contains(&floor) => {
                Err(Error::invalid(format!(
                    "the floor of the learning rate's factor is {floor}: give a number from 0 to 1"
                )))
            }
            _ => Ok(()),
        }
    }
}
