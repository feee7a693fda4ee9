//! Functions of candle tensors: some that are accurate and differentiable twice where candle's own are not, one that stops on an
//! interrupt, and the entries as numbers.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

use crate::progress;
use crate::vector::PIECE;

/// Entries of a tensor in row-major order, on the CPU in `f64`.
pub(crate) fn entries(x: &Tensor) -> Result<Vec<f64>> {
    let mut entries = Vec::with_capacity(x.elem_count());
    append_entries(x, &mut entries)?;
    Ok(entries)
}

/// Appends the entries of a tensor.
pub(crate) fn append_entries(x: &Tensor, entries: &mut Vec<f64>) -> Result<()> {
    let host = x.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = host.storage_and_layout();
    let range = layout.contiguous_offsets().map(|(start, end)| start..end);
    match (&*storage, range) {
        (Storage::Cpu(CpuStorage::F64(values)), Some(range)) => {
            entries.extend_from_slice(&values[range]);
        }
        (Storage::Cpu(CpuStorage::F32(values)), Some(range)) => {
            let values = values[range].par_iter().with_min_len(PIECE);
            entries.par_extend(values.map(|value| f64::from(*value)));
        }
        _ => entries.extend(host.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?),
    }
    Ok(())
}

/// ln(1 + eˣ) = max(x, 0) + ln(1 + exp(−|x|)), right for every x and differentiable twice: candle takes 1 for the derivatives of
/// max(x, 0) and |x| at 0, and together they give ½.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + ln_1p(&x.abs()?.neg()?.exp()?)?
}

/// ln(1 + x) for x ≥ 0, right where 1 + x is rounded to 1.
pub(crate) fn ln_1p(x: &Tensor) -> Result<Tensor> {
    let sum = (x + 1.0)?;
    // The rounding of the sum, put right to first order. As a constant it leaves the derivative at 1 / (1 + x).
    let lost = ((x - (&sum - 1.0)?)? / &sum)?.detach();
    sum.log()? + lost
}

/// x itself, on a CPU as a copy that checks for an interrupt in the forward pass and in each backward pass. candle calls no other
/// code in the backward pass of a batch.
pub(crate) fn interruptible(x: &Tensor) -> Result<Tensor> {
    let is_first = x.is_contiguous() && x.layout().start_offset() == 0;
    match x.device().is_cpu() && is_first {
        true => x.apply_op1(Interruptible),
        false => Ok(x.clone()),
    }
}

struct Interruptible;

impl CustomOp1 for Interruptible {
    fn name(&self) -> &'static str {
        "interruptible"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        progress::check()?;
        Ok((storage.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        progress::check()?;
        Ok(Some(gradient.clone()))
    }
}
