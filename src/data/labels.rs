//! Labels from integers.

use std::fmt::Display;

/// The labels that integers stand for. The error names the first integer that is not a label.
pub(super) fn to_labels<T>(values: impl IntoIterator<Item = T>) -> Result<Vec<u32>, String>
where
    T: Copy + Display + TryInto<u32>,
{
    let label = |(i, value): (usize, T)| {
        value.try_into().map_err(|_| {
            format!(
                "target {value} of sample {i} is not a label: classes are the integers 0, 1, 2, …"
            )
        })
    };
    values.into_iter().enumerate().map(label).collect()
}
