//! [`Loss`]: per-sample loss of a model's outputs and the targets.
//!
//! Each loss has a file, with its pass through candle's graph and its hand-derived rules.

mod binary_cross_entropy;
mod cross_entropy;
mod loss_rules;
mod mean_loss;
mod settings;
mod squared_error;

pub(crate) use cross_entropy::ClassProbabilities;
pub(crate) use loss_rules::{Curvature, LossRules, TargetSlice};
pub(crate) use mean_loss::MeanLoss;
pub use settings::CrossEntropy;

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};

/// A loss function of outputs z and targets y; the mean over samples.
///
/// # Shapes
/// Cross-entropy compares outputs (n, …, classes) with labels (n, …): a label per sample, or a label per token. The loss of a
/// sample is the mean over its labels. If a sample is a sequence of tokens, quantities per sample, such as
/// [`GradientCovariance`](crate::operator::GradientCovariance), treat the sequence as one sample. Mean squared error and binary cross-entropy compare outputs and values of one shape
/// (n, …).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let outputs = Tensor::new(&[[0.0, 0.0]], &Device::Cpu)?;
/// let label = Targets::Labels(Tensor::new(&[1u32], &Device::Cpu)?);
/// let loss = Loss::CrossEntropy
///     .mean(&outputs, &label)?
///     .to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-15);
///
/// let values = Targets::Values(Tensor::new(&[[3.0, 1.0]], &Device::Cpu)?);
/// assert_eq!(
///     Loss::Mse.mean(&outputs, &values)?.to_scalar::<f64>()?,
///     (9.0 + 1.0) / 2.0
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Loss {
    /// ℓ = ln Σⱼ exp zⱼ − z_y for k ≥ 2 outputs and a label y < k. With one output z and labels 0
    /// and 1 this is the logistic loss ln(1 + eᶻ) − yz, the same as for two outputs (0, z).
    CrossEntropy,
    /// Cross-entropy with an ignored label, class weights or label smoothing: a mean over the labels that count.
    CrossEntropyWith(CrossEntropy),
    /// ℓ = −(1/k) Σⱼ (yⱼ ln σ(zⱼ) + (1 − yⱼ) ln σ(−zⱼ)) for k outputs and values yⱼ in [0, 1]: a sample can have several
    /// labels, or none. Without a minimum of 0 if a value is not 0 or 1.
    BinaryCrossEntropy,
    /// ℓ = (1/k) Σⱼ (zⱼ − yⱼ)², the mean over the k outputs.
    Mse,
}

impl Loss {
    /// The default loss for the targets: cross-entropy for labels, mean squared error for values.
    pub(crate) fn default_for(targets: &Targets) -> Self {
        match targets {
            Targets::Labels(_) => Self::CrossEntropy,
            Targets::Values(_) => Self::Mse,
        }
    }

    /// The mean loss of a batch as a scalar tensor, for training. Cross-entropy with settings is divided by the weights of this
    /// batch.
    ///
    /// # Errors
    /// Outputs that do not fit the targets; invalid settings; a batch without a label that counts.
    pub fn mean(&self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        let loss = MeanLoss::new(self.clone(), targets)?;
        Ok(loss.per_sample(outputs, targets)?.mean_all()?)
    }

    /// The settings of cross-entropy.
    fn settings(&self) -> &CrossEntropy {
        match self {
            Self::CrossEntropyWith(settings) => settings,
            _ => &CrossEntropy::PLAIN,
        }
    }

    /// Returns an error for values with cross-entropy and labels with a loss that fits values.
    fn check_kind(&self, targets: &Targets) -> Result<()> {
        match (self, targets) {
            (Self::CrossEntropy | Self::CrossEntropyWith(_), Targets::Labels(_))
            | (Self::Mse | Self::BinaryCrossEntropy, Targets::Values(_)) => Ok(()),
            _ => Err(self.wrong_kind()),
        }
    }

    fn wrong_kind(&self) -> Error {
        Error::invalid(match self {
            Self::CrossEntropy | Self::CrossEntropyWith(_) => {
                "cross-entropy needs labels, and this dataset has values to fit: use Loss::Mse, or build the dataset \
                 with Dataset::classification"
            }
            Self::BinaryCrossEntropy => {
                "binary cross-entropy needs values from 0 to 1, and this dataset has labels: use Loss::CrossEntropy, or \
                 turn labels into values with dataset.one_hot(classes)"
            }
            Self::Mse => {
                "mean squared error needs values to fit, and this dataset has labels: use Loss::CrossEntropy, or turn \
                 labels into values with dataset.one_hot(classes)"
            }
        })
    }
}

/// Predicted class, `u32`: shape (n, …) for outputs of shape (n, …, k).
fn predict(outputs: &Tensor) -> Result<Tensor> {
    Ok(match outputs.dim(D::Minus1)? {
        1 => outputs.squeeze(D::Minus1)?.gt(0.0)?.to_dtype(DType::U32)?,
        _ => outputs.argmax(D::Minus1)?,
    })
}

/// Number of samples or tokens with a label that `counts` and that the outputs predict; 0 for data without labels.
pub(crate) fn count_correct(
    outputs: &Tensor,
    data: &Dataset,
    counts: impl Fn(u32) -> bool,
) -> Result<usize> {
    let Targets::Labels(_) = data.targets() else {
        return Ok(0);
    };
    let predicted = predict(outputs)?.flatten_all()?.to_vec1::<u32>()?;
    let labels = data.labels()?;
    let pairs = predicted.iter().zip(&labels);
    Ok(pairs.filter(|(p, l)| p == l && counts(**l)).count())
}

/// Returns an error if a loss is not finite.
pub(crate) fn finite_loss(loss: f64) -> Result<f64> {
    if !loss.is_finite() {
        return Err(Error::NotFinite(format!(
            "the loss is {loss}: look for parameters that are not finite, a learning rate that is \
             too large, or outputs that overflow"
        )));
    }
    Ok(loss)
}
