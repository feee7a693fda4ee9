//! Labels and tokens from integers.

use std::fmt::Display;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// The labels that integers stand for. The error names the first integer that is not a label.
pub(super) fn to_labels<T>(
    values: impl IntoIterator<Item = T>,
) -> std::result::Result<Vec<u32>, String>
where
    T: Copy + Display + TryInto<u32>,
{
    let label = |(i, value): (usize, T)| value.try_into().map_err(|_| not_a_label(value, i));
    values.into_iter().enumerate().map(label).collect()
}

/// The error for an integer that is not a label.
pub(super) fn not_a_label(value: impl Display, sample: usize) -> String {
    format!("target {value} of sample {sample} is not a label: classes are the integers 0, 1, 2, …")
}

/// Integers as `u32`. An integer that is negative or too large is an error with the message that `refusal` returns for it and its
/// row.
pub(super) fn to_u32(
    integers: &Tensor,
    refusal: impl FnOnce(i64, usize) -> String,
) -> Result<Tensor> {
    if !matches!(integers.dtype(), DType::U8 | DType::U32) {
        let values = integers.to_dtype(DType::I64)?.flatten_all()?;
        let values = values.to_vec1::<i64>()?;
        let rows = integers.dims().first().copied().unwrap_or(1).max(1);
        if let Some(i) = values.iter().position(|v| u32::try_from(*v).is_err()) {
            return Err(Error::Invalid(refusal(values[i], i * rows / values.len())));
        }
    }
    Ok(integers.to_dtype(DType::U32)?)
}
