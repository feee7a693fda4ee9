//! [`BatchSize`]: the number of samples in a forward pass, reduced when the device's memory is too small.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::data::Dataset;
use crate::error::Error;

/// Default on a CPU.
const ON_CPU: usize = 512;

/// Number of input values in a default batch on a GPU. candle's kernels index a tensor with 32 bits, and a
/// convolution of the zoo produces up to 600 values per input value.
const ON_GPU: usize = 1 << 22;

/// Shared by copies, so that none retries a size that did not fit.
#[derive(Clone)]
pub(super) struct BatchSize(Arc<AtomicUsize>);

impl BatchSize {
    pub(super) fn new(samples: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(samples)))
    }

    /// The default for such samples on their device.
    pub(super) fn usual(data: &Dataset) -> Self {
        let numbers: usize = data.inputs().dims()[1..].iter().product();
        Self::new(match data.device().is_cpu() {
            true => ON_CPU,
            false => (ON_GPU / numbers).max(1),
        })
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether to retry a batch of `samples` that failed with this error in halves, because it did not fit the
    /// device's memory. Later batches are at most half as large.
    pub(super) fn halve_after(&self, error: &Error, samples: usize) -> bool {
        let too_large = samples > 1 && out_of_memory(error);
        if too_large {
            self.0.fetch_min(samples / 2, Ordering::Relaxed);
        }
        too_large
    }
}

/// candle has no error variant for this, so the driver's or cuBLAS's message is searched.
fn out_of_memory(error: &Error) -> bool {
    let Error::Candle(error) = error else {
        return false;
    };
    let message = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| message.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::objective::{Loss, Objective};

    use candle_core::{DType, Device, Module, Tensor};

    /// Simulates a device with memory for `limit` samples. Returns the sizes and the inputs of all batches.
    fn on_small_device(objective: &Objective, limit: usize) -> Result<(Vec<usize>, Vec<f64>)> {
        let part = |batch: &Dataset| match batch.len() <= limit {
            true => Ok(batch.inputs().flatten_all()?.to_vec1::<f64>()?),
            false => {
                let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
                Err(candle_core::Error::Cuda(full.into()).into())
            }
        };
        let (mut sizes, mut inputs) = (Vec::new(), Vec::new());
        objective.over_batches(part, |some: Vec<f64>| {
            sizes.push(some.len() / 2);
            inputs.extend(some);
        })?;
        Ok((sizes, inputs))
    }

    #[test]
    fn batches_that_do_not_fit_are_halved() -> Result<()> {
        let data = crate::prelude::two_moons(60, 0.1, 0, &Device::Cpu)?;
        let vars = candle_nn::VarMap::new();
        let vb = candle_nn::VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
        let layer = candle_nn::linear(2, 2, vb)?;
        let forward = move |x: &Tensor| layer.forward(x);
        let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, forward)?;
        let expected = data.inputs().flatten_all()?.to_vec1::<f64>()?;

        let copy = objective.clone();
        let (sizes, inputs) = on_small_device(&objective, 7)?; // 60, 30, 15, 7
        assert_eq!(sizes, [7, 7, 7, 7, 7, 7, 7, 7, 4]);
        assert_eq!(inputs, expected);
        assert_eq!(copy.batch_size.get(), 7); // shared with the copy
        assert_eq!(on_small_device(&copy, 100)?.0.len(), 9);

        // It is an error if a batch of one sample does not fit, or if the error is not about memory.
        let none = on_small_device(&objective, 0).unwrap_err().to_string();
        assert!(none.contains("out of memory"), "{none}");
        let objective = objective.with_batch_size(60)?;
        let other = objective.over_batches(|_| Err::<(), _>(Error::invalid("no")), |()| ());
        assert!(other.is_err() && objective.batch_size.get() == 60);
        Ok(())
    }
}
