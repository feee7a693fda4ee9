//! [`Batches`]: a pass over a dataset, a few samples at a time.

use std::ops::Range;

use super::Dataset;
use crate::error::{Error, Result};

/// Iterator over the batches of one pass; see [`Dataset::batches`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let sizes: Result<Vec<_>, Error> = data.batches(25)?.map(|batch| Ok(batch?.len())).collect();
/// assert_eq!(sizes?, [25, 25, 10]);
/// assert_eq!(data.shuffled_batches(25, 0)?.len(), 3);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    data: Dataset,
    order: Option<Vec<usize>>,
    size: usize,
    next: usize,
}

impl Batches {
    pub(super) fn in_order(data: &Dataset, size: usize) -> Result<Self> {
        Self::new(data, size, None)
    }

    pub(super) fn shuffled(data: &Dataset, size: usize, seed: u64) -> Result<Self> {
        Self::new(data, size, Some(data.order(seed)))
    }

    fn new(data: &Dataset, size: usize, order: Option<Vec<usize>>) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid("a batch needs at least one sample"));
        }
        Ok(Self {
            data: data.clone(),
            order,
            size,
            next: 0,
        })
    }
}

impl Iterator for Batches {
    type Item = Result<Dataset>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        let len = self.size.min(self.data.len() - start);
        if len == 0 {
            return None;
        }
        self.next += len;
        Some(match &self.order {
            Some(order) => self.data.select(&order[start..start + len]),
            None => self.data.narrow(start, len),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.data.len() - self.next).div_ceil(self.size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches {}

/// Splits `0 .. n` into the fewest parts of at most `size` ≥ 2 numbers each, whose sizes differ by at most one. A
/// part has at least two numbers if n ≥ 2, so parts of an odd n may have three if `size` is 2.
pub(crate) fn even_parts(n: usize, size: usize) -> Vec<Range<usize>> {
    let count = n.div_ceil(size).min(n / 2).max(1);
    (0..count)
        .map(|i| i * n / count..(i + 1) * n / count)
        .collect()
}
