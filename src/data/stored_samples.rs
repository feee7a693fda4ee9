//! [`StoredSamples`]: samples of a file that is read in parts.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::DType;

use super::{Dataset, SampleSource};
use crate::error::{Error, Result};
use crate::files::ArrayRows;

/// Samples of a file that is larger than memory: an array of inputs and an array of targets in a safetensors file, or in an
/// `.npz` file of `numpy.savez`, which does not compress.
///
/// [`Objective::with_source`](crate::objective::Objective::with_source) reads it in parts.
///
/// ```
/// use loss_landscape::data::{SampleSource, StoredSamples};
/// use loss_landscape::files::{WRITABLE, write_tensors};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("line.safetensors");
/// let x = Tensor::new(&[[-2.0], [0.0], [2.0]], &Device::Cpu)?;
/// let y = x.zeros_like()?;
/// let arrays = [("inputs".to_owned(), x), ("targets".to_owned(), y)];
/// write_tensors(&path, WRITABLE, arrays)?;
///
/// let samples = StoredSamples::open(&path, "inputs", "targets", DType::F64)?;
/// assert_eq!(samples.len(), 3);
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.5])?;
/// let objective = Objective::of(&line, &samples.read(0..1)?, Loss::Mse)?;
/// let objective = objective.with_source(samples, 2)?; // two samples in memory at a time
/// assert!((objective.loss()? - 5.0 / 3.0).abs() < 1e-12); // the mean of 0², 1² and 2²
/// # Ok::<(), Error>(())
/// ```
pub struct StoredSamples {
    path: PathBuf,
    arrays: ArrayRows,
    inputs: String,
    targets: String,
    dtype: DType,
    len: usize,
}

impl StoredSamples {
    /// Opens the file at `path`, and reads its header.
    ///
    /// `inputs` and `targets` are the names of the arrays. Integer inputs are tokens; integer targets are labels, floating-point
    /// targets values. Floating-point numbers are converted to `dtype`.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or of another format; a compressed array, or one in Fortran order; arrays that are
    /// missing or differ in their number of samples; a `dtype` that is not `f32` or `f64`.
    pub fn open(path: impl AsRef<Path>, inputs: &str, targets: &str, dtype: DType) -> Result<Self> {
        let path = path.as_ref();
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::invalid(format!(
                "samples cannot be {dtype:?}: ask for f32 or f64"
            )));
        }
        let arrays = ArrayRows::open(path)?;
        let (len, _) = arrays.rows(inputs)?;
        let (targets_len, _) = arrays.rows(targets)?;
        if len != targets_len {
            let problem = format!("has {len} rows in `{inputs}` and {targets_len} in `{targets}`");
            return Err(Error::file(path, problem, "Give one target per sample"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            arrays,
            inputs: inputs.to_owned(),
            targets: targets.to_owned(),
            dtype,
            len,
        })
    }
}

impl SampleSource for StoredSamples {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, range: Range<usize>) -> Result<Dataset> {
        let inputs = self.arrays.read(&self.inputs, range.clone())?;
        let targets = self.arrays.read(&self.targets, range)?;
        let inputs = match inputs.dtype().is_int() {
            true => inputs.to_dtype(DType::U32)?,
            false => inputs.to_dtype(self.dtype)?,
        };
        let data = match targets.dtype().is_int() {
            true => Dataset::classification(&inputs, &targets)?,
            false => Dataset::regression(&inputs, &targets.to_dtype(self.dtype)?)?,
        };
        data.to_dtype(self.dtype)
    }
}

impl fmt::Debug for StoredSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSamples")
            .field("path", &self.path)
            .field("inputs", &self.inputs)
            .field("targets", &self.targets)
            .field("dtype", &self.dtype)
            .field("len", &self.len)
            .finish()
    }
}
