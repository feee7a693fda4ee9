//! [`StoredRows`]: samples of files, which [`StoredSamples`](super::StoredSamples) reads a range at a time.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::Dataset;
use crate::error::Result;

/// Samples of files.
pub(super) trait StoredRows: Send + Sync {
    /// Path of the file of inputs.
    fn path(&self) -> &Path;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Size of a sample in memory, in bytes, if its floating-point numbers have this dtype.
    fn bytes_per_sample(&self, dtype: DType) -> usize;

    /// Number of labels of a sample; `None` if targets are values.
    fn labels_per_sample(&self) -> Option<usize>;

    /// Reads the labels of the samples in `range`, on the CPU.
    fn labels(&self, range: Range<usize>) -> Result<Tensor>;

    /// Reads the samples in `range`. Errors of their numbers do not name the file.
    fn read(&self, range: Range<usize>, device: &Device) -> Result<Dataset>;
}
