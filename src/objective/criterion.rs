//! [`Criterion`]: a loss of the crate, or a custom one.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};
use crate::losses::Loss;

type OwnLoss = dyn Fn(&Tensor, &Targets) -> candle_core::Result<Tensor> + Send + Sync;

/// The loss function of an objective.
#[derive(Clone)]
pub(super) enum Criterion {
    Known(Loss),
    Own(Arc<OwnLoss>),
}

impl Criterion {
    pub(super) fn known(&self) -> Option<Loss> {
        match self {
            Self::Known(loss) => Some(*loss),
            Self::Own(_) => None,
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
            loss.check_kind(data.targets())?;
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
