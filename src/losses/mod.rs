//! [`Loss`]: per-sample loss of a model's outputs and the targets.
//!
//! Each loss has a file, with its pass through candle's graph and its hand-derived rules.

mod cross_entropy;
mod loss_rules;
mod squared_error;

pub(crate) use loss_rules::{Curvature, LossRules, TargetSlice};

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};

/// A loss function of outputs z and targets y; the mean over samples.
///
/// # Shapes
/// Cross-entropy compares outputs (n, …, classes) with labels (n, …): a label per sample, or a label per token. The loss of a
/// sample is the mean over its labels. Mean squared error compares outputs and values of one shape (n, …).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Loss {
    /// ℓ = ln Σⱼ exp zⱼ − z_y for k ≥ 2 outputs and a label y < k. With one output z and labels 0
    /// and 1 this is the logistic loss ln(1 + eᶻ) − yz, the same as for two outputs (0, z).
    CrossEntropy,
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

    /// The mean loss of a batch as a scalar tensor, for training.
    ///
    /// # Errors
    /// Outputs that do not fit the targets.
    pub fn mean(self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        Ok(self.per_sample(outputs, targets)?.mean_all()?)
    }

    /// The loss of each sample, shape `(n,)`.
    pub(crate) fn per_sample(self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        match (self, targets) {
            (Self::CrossEntropy, Targets::Labels(labels)) if outputs.rank() == 2 => {
                cross_entropy::per_row(outputs, labels)
            }
            (Self::CrossEntropy, Targets::Labels(labels)) => {
                let rows = outputs.reshape(((), outputs.dim(D::Minus1)?))?;
                let losses = cross_entropy::per_row(&rows, &labels.flatten_all()?)?;
                Ok(losses.reshape((outputs.dim(0)?, ()))?.mean(1)?)
            }
            (Self::Mse, Targets::Values(values)) => squared_error::per_sample(outputs, values),
            (Self::CrossEntropy, Targets::Values(_)) | (Self::Mse, Targets::Labels(_)) => {
                Err(self.wrong_kind())
            }
        }
    }

    /// Returns an error for values with cross-entropy and labels with mean squared error.
    pub(crate) fn check_kind(self, targets: &Targets) -> Result<()> {
        match (self, targets) {
            (Self::CrossEntropy, Targets::Labels(_)) | (Self::Mse, Targets::Values(_)) => Ok(()),
            _ => Err(self.wrong_kind()),
        }
    }

    fn wrong_kind(self) -> Error {
        Error::invalid(match self {
            Self::CrossEntropy => {
                "cross-entropy needs labels, and this dataset has values to fit: use Loss::Mse, or build the dataset \
                 with Dataset::classification"
            }
            Self::Mse => {
                "mean squared error needs values to fit, and this dataset has labels: use Loss::CrossEntropy, or turn \
                 labels into values with dataset.one_hot(classes)"
            }
        })
    }

    /// The rules for outputs of one sample of shape `outputs`, if it fits the data's targets.
    ///
    /// # Errors
    /// Outputs that do not fit the targets, and labels that are out of range.
    pub(crate) fn rules(self, outputs: &[usize], data: &Dataset) -> Result<LossRules> {
        let (width, leading) = match outputs.split_last() {
            Some((width, leading)) if *width > 0 => (*width, leading),
            _ => {
                return Err(Error::invalid(format!(
                    "the model must map samples to outputs of shape (…, outputs), not {outputs:?}"
                )));
            }
        };
        let of_target = data.targets().dims();
        let expected = match data.targets() {
            Targets::Labels(_) => leading,
            Targets::Values(_) => outputs,
        };
        if of_target != expected {
            return Err(Error::invalid(match data.targets() {
                Targets::Labels(_) => format!(
                    "outputs of shape {} need labels of shape {}, one for each row of outputs, not {}",
                    batch_shape(outputs),
                    batch_shape(expected),
                    batch_shape(of_target)
                ),
                Targets::Values(_) => format!(
                    "outputs of shape {} need values of that shape to fit, not {}",
                    batch_shape(outputs),
                    batch_shape(of_target)
                ),
            }));
        }
        if let (Self::CrossEntropy, Targets::Labels(_)) = (self, data.targets()) {
            check_labels(&data.labels()?, width, leading.iter().product())?;
        }
        Ok(LossRules {
            loss: self,
            width,
            positions: leading.iter().product(),
        })
    }
}

fn check_labels(labels: &[u32], width: usize, positions: usize) -> Result<()> {
    let classes = width.max(2) as u32;
    match labels.iter().position(|label| *label >= classes) {
        None => Ok(()),
        Some(i) => Err(Error::invalid(format!(
            "label {} of sample {} is out of range: a model with {} has classes 0 to {}",
            labels[i],
            i / positions.max(1),
            counted(width, "output"),
            classes - 1
        ))),
    }
}

/// Formats the shape of a batch of samples of shape `dims`.
fn batch_shape(dims: &[usize]) -> String {
    let dims: String = dims.iter().map(|d| format!(", {d}")).collect();
    match dims.is_empty() {
        true => "(n,)".into(),
        false => format!("(n{dims})"),
    }
}

/// Predicted class, `u32`: shape (n, …) for outputs of shape (n, …, k).
pub(crate) fn predict(outputs: &Tensor) -> Result<Tensor> {
    Ok(match outputs.dim(D::Minus1)? {
        1 => outputs.squeeze(D::Minus1)?.gt(0.0)?.to_dtype(DType::U32)?,
        _ => outputs.argmax(D::Minus1)?,
    })
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
