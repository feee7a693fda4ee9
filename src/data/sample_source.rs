//! [`SampleSource`]: samples that are read in parts.

use std::ops::Range;

use super::Dataset;
use crate::error::Result;

/// Samples that are read in parts, for datasets that are larger than memory: see
/// [`Objective::with_source`](crate::objective::Objective::with_source).
///
/// A [`Dataset`] in memory is a source too.
#[allow(clippy::len_without_is_empty)] // never empty
pub trait SampleSource: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Reads the samples in this range. The samples never change: reading a range again returns the same samples.
    ///
    /// # Errors
    /// Samples that cannot be read.
    fn read(&self, range: Range<usize>) -> Result<Dataset>;
}

impl SampleSource for Dataset {
    fn len(&self) -> usize {
        self.len()
    }

    fn read(&self, range: Range<usize>) -> Result<Dataset> {
        self.narrow(range.start, range.len())
    }
}
