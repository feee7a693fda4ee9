//! [`Loss`]: what a model's outputs cost, sample by sample.

use std::fmt;
use std::sync::Arc;

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::model::{ln_1p, softplus};

/// A loss function of outputs z and targets y, a mean over samples.
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
pub enum Loss {
    /// ℓ = ln Σⱼ exp zⱼ − z_y for k ≥ 2 outputs and a label y < k. With one output z and labels 0
    /// and 1 this is the logistic loss ln(1 + eᶻ) − yz, the same as two outputs (0, z).
    CrossEntropy,
    /// ℓ = (1/k) Σⱼ (zⱼ − yⱼ)², the mean over the k outputs.
    Mse,
}

impl Loss {
    /// What a model is trained by: cross-entropy on labels, mean squared error on values.
    pub(crate) fn of(targets: &Targets) -> Self {
        match targets {
            Targets::Labels(_) => Self::CrossEntropy,
            Targets::Values(_) => Self::Mse,
        }
    }

    /// The mean loss of a batch as a scalar tensor, for training: `outputs` of shape `(n, k)`, `targets` of n samples.
    ///
    /// # Errors
    /// Outputs that do not fit the targets.
    pub fn mean(self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        Ok(self.per_sample(outputs, targets)?.mean_all()?)
    }

    /// The loss of each sample, shape `(n,)`.
    pub(crate) fn per_sample(self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        match (self, targets) {
            (Self::CrossEntropy, Targets::Labels(labels)) if outputs.dim(1)? == 1 => {
                let z = outputs.squeeze(1)?;
                // −1 for the label 1 and 1 for the label 0: the loss is softplus(∓z).
                let side = labels.to_dtype(z.dtype())?.affine(-2.0, 1.0)?;
                Ok(softplus(&(z * side)?)?)
            }
            (Self::CrossEntropy, Targets::Labels(labels)) => cross_entropy(outputs, labels),
            (Self::Mse, Targets::Values(values)) => Ok((outputs - values)?.sqr()?.mean(1)?),
            (Self::CrossEntropy, Targets::Values(_)) => Err(Error::invalid(
                "cross-entropy needs labels, and this dataset has values to fit: use Loss::Mse, \
                 or build the dataset with Dataset::classification",
            )),
            (Self::Mse, Targets::Labels(_)) => Err(Error::invalid(
                "mean squared error needs values to fit, and this dataset has labels: use \
                 Loss::CrossEntropy, or turn labels into values with dataset.one_hot(classes)",
            )),
        }
    }

    fn check_targets(self, width: usize, data: &Dataset) -> Result<()> {
        if let Targets::Values(values) = data.targets()
            && values.dim(1)? != width
        {
            return Err(Error::invalid(format!(
                "the model has {width} outputs but there are {} values per sample to fit",
                values.dim(1)?
            )));
        }
        if let (Self::CrossEntropy, Targets::Labels(_)) = (self, data.targets()) {
            let classes = width.max(2) as u32;
            let labels = data.labels()?;
            if let Some(i) = labels.iter().position(|&label| label >= classes) {
                return Err(Error::invalid(format!(
                    "label {} of sample {i} is out of range: a model with {width} output{} knows \
                     classes 0 to {}",
                    labels[i],
                    if width == 1 { "" } else { "s" },
                    classes - 1
                )));
            }
        }
        Ok(())
    }
}

/// (z_a − z_y) + ln(1 + Σ_{j ≠ a} exp(z_j − z_a)) with the largest output z_a: a sum of numbers that are not negative.
///
/// The masks are constants, so that a derivative of z_a − z_y is exactly 0 where y = a. 1 − p_y is then −Σ_{j ≠ a} p_j.
fn cross_entropy(outputs: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0, outputs.dim(1)? as u32, outputs.device())?;
    let mask = |class: &Tensor| -> Result<Tensor> {
        let mask = class.broadcast_eq(&classes.unsqueeze(0)?)?;
        Ok(mask.to_dtype(outputs.dtype())?)
    };
    let at_largest = mask(&outputs.argmax_keepdim(1)?)?;
    let at_label = mask(&labels.unsqueeze(1)?)?;
    let largest = (outputs * &at_largest)?.sum_keepdim(1)?;
    let exponentials = outputs.broadcast_sub(&largest)?.exp()?;
    let others = (exponentials * at_largest.affine(-1.0, 1.0)?)?.sum(1)?;
    let short = (outputs * (at_largest - at_label)?)?.sum(1)?;
    Ok((short + ln_1p(&others)?)?)
}

type Own = dyn Fn(&Tensor, &Targets) -> candle_core::Result<Tensor> + Send + Sync;

/// How an objective compares outputs with targets.
#[derive(Clone)]
pub(super) enum Criterion {
    Known(Loss),
    Own(Arc<Own>),
}

impl Criterion {
    pub(super) fn known(&self) -> Option<Loss> {
        match self {
            Self::Known(loss) => Some(*loss),
            Self::Own(_) => None,
        }
    }

    /// The loss of each sample, shape `(n,)`.
    pub(super) fn per_sample(&self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        let own = match self {
            Self::Known(loss) => return loss.per_sample(outputs, targets),
            Self::Own(own) => own,
        };
        let losses = own(outputs, targets)?;
        let n = outputs.dim(0)?;
        if losses.dims() != [n] {
            return Err(Error::invalid(format!(
                "your loss gives the shape {:?} for {n} samples: it must give one loss for each, shape \
                 ({n},), say with .sum(1) instead of .sum_all() or .mean_all()",
                losses.dims()
            )));
        }
        Ok(losses)
    }

    /// Refuses outputs (of one sample) that cannot be compared with the data's targets.
    pub(super) fn check(&self, outputs: &Tensor, data: &Dataset) -> Result<()> {
        let [1, width] = *outputs.dims() else {
            return Err(Error::invalid(format!(
                "for one sample of shape {:?} the model gives outputs of shape {:?}: it must map \
                 (n, …) to (n, outputs)",
                &data.inputs().dims()[1..],
                outputs.dims()
            )));
        };
        if width == 0 {
            return Err(Error::invalid("the model has no outputs"));
        }
        if let Self::Known(loss) = self {
            loss.check_targets(width, data)?;
        }
        self.per_sample(outputs, data.first(1)?.targets())?;
        Ok(())
    }
}

impl fmt::Debug for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(loss) => loss.fmt(f),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

/// The class that outputs `(n, k)` speak for, `u32` of shape `(n,)`.
pub(crate) fn predict(outputs: &Tensor) -> Result<Tensor> {
    Ok(match outputs.dim(1)? {
        1 => outputs.squeeze(1)?.gt(0.0)?.to_dtype(DType::U32)?,
        _ => outputs.argmax(D::Minus1)?,
    })
}
