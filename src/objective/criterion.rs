//! [`Criterion`]: a loss of the crate, or a custom one.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};
use crate::losses::{Loss, MeanLoss, count_correct};

type OwnLoss = dyn Fn(&Tensor, &Targets) -> candle_core::Result<Tensor> + Send + Sync;

/// The loss function of an objective.
#[derive(Clone)]
pub(super) enum Criterion {
    Known(MeanLoss),
    Own(Arc<OwnLoss>),
}

impl Criterion {
    /// A loss of the crate, as the mean over these data.
    pub(super) fn new(loss: Loss, data: &Dataset) -> Result<Self> {
        Ok(Self::Known(MeanLoss::new(loss, data.targets())?))
    }

    pub(super) fn known(&self) -> Option<&MeanLoss> {
        match self {
            Self::Known(loss) => Some(loss),
            Self::Own(_) => None,
        }
    }

    /// The same loss as the mean over other data.
    pub(super) fn with_data(&self, data: &Dataset) -> Result<Self> {
        match self {
            Self::Known(loss) => Ok(Self::Known(loss.with_targets(data.targets())?)),
            Self::Own(_) => Ok(self.clone()),
        }
    }

    /// Whether the loss of a sample depends on the dataset.
    pub(super) fn depends_on_data(&self) -> bool {
        self.known().is_some_and(MeanLoss::depends_on_data)
    }

    /// Number of labels in the accuracy of these data.
    pub(super) fn num_labels(&self, data: &Dataset) -> f64 {
        match self {
            Self::Known(loss) => loss.num_labels(data),
            Self::Own(_) => data.num_labels() as f64,
        }
    }

    /// Number of correctly classified samples or tokens.
    pub(super) fn count_correct(&self, outputs: &Tensor, data: &Dataset) -> Result<usize> {
        match self {
            Self::Known(loss) => loss.count_correct(outputs, data),
            Self::Own(_) => count_correct(outputs, data, |_| true),
        }
    }

    /// The first `n` samples whose loss is not constant.
    pub(super) fn first_samples(&self, data: &Dataset, n: usize) -> Result<Dataset> {
        match self {
            Self::Known(loss) => loss.first_samples(data, n),
            Self::Own(_) => data.first(n.min(data.len())),
        }
    }

    /// Loss of each sample, shape `(n,)`.
    pub(super) fn per_sample(&self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        let own = match self {
            Self::Known(loss) => return loss.per_sample(outputs, targets),
            Self::Own(own) => own,
        };
        let losses = own(outputs, targets)?;
        let n = outputs.dim(0)?;
        if losses.dims() != [n] {
            return Err(Error::invalid(format!(
                "the loss function returns shape {:?} for {}: it must return one loss per sample, shape \
                 ({n},), for example by .sum(1) instead of .sum_all() or .mean_all()",
                losses.dims(),
                counted(n, "sample")
            )));
        }
        Ok(losses)
    }

    /// Returns an error if the outputs of one sample do not fit the data's targets.
    pub(super) fn check(&self, outputs: &Tensor, data: &Dataset) -> Result<()> {
        let [1, dims @ ..] = outputs.dims() else {
            return Err(Error::invalid(format!(
                "for one sample of shape {:?} the model returns outputs of shape {:?}: it must map \
                 (n, …) to (n, …, outputs)",
                &data.inputs().dims()[1..],
                outputs.dims()
            )));
        };
        if dims.is_empty() || outputs.elem_count() == 0 {
            return Err(Error::invalid(format!(
                "the model returns outputs of shape {:?} for one sample: it must map (n, …) to (n, …, outputs), with at \
                 least one output",
                outputs.dims()
            )));
        }
        if let Self::Known(loss) = self {
            loss.rules(dims, data)?;
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::losses::CrossEntropy;
    use crate::model::{Activation, Mlp};
    use crate::objective::Objective;

    /// A subset keeps the weight of each label, so the mean over subsets is the loss on all samples.
    #[test]
    fn losses_on_subsets_average_to_the_whole() -> Result<()> {
        let data = crate::prelude::two_moons(60, 0.1, 0, &Device::Cpu)?;
        let mut labels = data.labels()?;
        labels[10..40].fill(7);
        let labels = Tensor::from_vec(labels, 60, &Device::Cpu)?;
        let data = Dataset::classification(data.inputs(), &labels)?;
        let model = Mlp::new(&[2, 3, 2], Activation::Tanh, 0, &Device::Cpu)?;
        let model = model.to_dtype(DType::F64)?;
        let loss = CrossEntropy::default().with_ignored_label(7);
        let objective = Objective::of(&model, &data, loss)?;
        for objective in [objective.clone(), objective.by_autograd()] {
            let parts = [0, 20, 40].map(|start| {
                let subset = objective.with_subset(&data.narrow(start, 20)?)?;
                subset.loss()
            });
            let [a, b, c] = parts.map(|loss| loss.unwrap());
            assert_eq!(b, 0.0); // no label counts
            assert!(((a + b + c) / 3.0 - objective.loss()?).abs() < 1e-14);
        }
        Ok(())
    }
}
