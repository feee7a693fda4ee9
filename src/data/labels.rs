//! Labels from integers and texts.

use std::collections::BTreeSet;
use std::fmt::Display;

/// The labels that integers stand for. The error names the first integer that is no label.
pub(super) fn to_labels<T>(values: impl IntoIterator<Item = T>) -> Result<Vec<u32>, String>
where
    T: Copy + Display + TryInto<u32>,
{
    let label = |(i, value): (usize, T)| {
        value.try_into().map_err(|_| {
            format!("target {value} of sample {i} is no label: classes are the integers 0, 1, 2, …")
        })
    };
    values.into_iter().enumerate().map(label).collect()
}

/// The labels that texts stand for, and the text of each class. Classes are the different texts in sorted order.
pub(super) fn from_texts<'a>(texts: &[&'a str]) -> (Vec<u32>, Vec<String>) {
    let names: BTreeSet<&'a str> = texts.iter().copied().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let class = |text: &&str| names.partition_point(|name| name < text) as u32;
    let labels = texts.iter().map(class).collect();
    (labels, names.into_iter().map(str::to_owned).collect())
}
