//! [`StoredSamples`]: samples of files that are read in parts.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::stored_arrays::StoredArrays;
use super::stored_rows::StoredRows;
use super::{Dataset, InputNormalization, SampleSource};
use crate::error::{Error, Result};
use crate::files::ArrayRows;
use crate::memory;
use crate::progress::{self, Progress};

/// Samples of files that are larger than memory: arrays of inputs and an array of targets in a safetensors file, or in an
/// `.npz` file of `numpy.savez`, which does not compress; or IDX files.
///
/// [`Objective::with_source`](crate::objective::Objective::with_source) reads them in parts. [`DataReader::open`](super::DataReader::open) opens a file
/// with other names, several arrays of inputs or test samples, [`idx::open`](super::idx::open) IDX files. Cloning is cheap.
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
#[derive(Clone)]
pub struct StoredSamples {
    rows: Arc<dyn StoredRows>,
    normalization: Option<InputNormalization>,
    dtype: DType,
    device: Device,
    len: usize,
}

/// Bytes that a pass over the targets or inputs reads at a time.
const PASS: usize = 16 << 20;

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
        let arrays = Arc::new(ArrayRows::open(path.as_ref())?);
        let inputs = vec![inputs.to_owned()];
        let rows = StoredArrays::new(arrays, inputs, targets.to_owned(), true)?;
        Self::new(Arc::new(rows), dtype, &Device::Cpu)
    }

    /// These samples.
    pub(super) fn new(rows: Arc<dyn StoredRows>, dtype: DType, device: &Device) -> Result<Self> {
        check_dtype(dtype)?;
        Ok(Self {
            len: rows.len(),
            rows,
            normalization: None,
            dtype,
            device: device.clone(),
        })
    }

    /// The first `n` samples.
    ///
    /// # Errors
    /// `n` is 0 or larger than the number of samples.
    pub fn first(&self, n: usize) -> Result<Self> {
        match (1..=self.len).contains(&n) {
            true => Ok(Self {
                len: n,
                ..self.clone()
            }),
            false => Err(Error::invalid(format!(
                "a subset of {n} samples cannot be taken: ask for 1 to {}",
                self.len
            ))),
        }
    }

    /// The same samples in another floating-point dtype.
    ///
    /// # Errors
    /// A `dtype` that is not `f32` or `f64`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        check_dtype(dtype)?;
        Ok(Self {
            dtype,
            ..self.clone()
        })
    }

    /// The same samples with inputs (x − mean) / deviation; see [`Dataset::normalized`].
    ///
    /// # Errors
    /// As [`Dataset::normalized`] for the first sample; a first sample that cannot be read.
    pub fn normalized(&self, normalization: &InputNormalization) -> Result<Self> {
        let normalized = Self {
            normalization: Some(normalization.clone()),
            ..self.clone()
        };
        normalized.read(0..1)?;
        Ok(normalized)
    }

    /// Size of the samples in memory, in bytes.
    pub fn bytes(&self) -> f64 {
        self.len as f64 * self.rows.bytes_per_sample(self.dtype) as f64
    }

    /// Number of labels of each class, up to the largest label; `None` if the targets are values. Reads all targets, a part at a
    /// time.
    ///
    /// # Errors
    /// Targets that cannot be read; a label that is negative or ≥ 2³².
    pub fn class_counts(&self) -> Result<Option<Vec<usize>>> {
        let Some(labels) = self.rows.labels_per_sample() else {
            return Ok(None);
        };
        let mut counts = Vec::new();
        let mut progress = Progress::start("counts of labels");
        for range in self.ranges(labels * size_of::<u64>()) {
            progress::check()?;
            progress.part(range.start, self.len);
            let labels = self.rows.labels(range)?;
            for label in labels.flatten_all()?.to_vec1::<u32>()? {
                let label = label as usize;
                if label >= counts.len() {
                    memory::check(8.0 * label as f64, &format!("counts of {label} classes"))?;
                    counts.resize(label + 1, 0);
                }
                counts[label] += 1;
            }
        }
        Ok(Some(counts))
    }

    /// The largest token plus 1; 0 if the inputs are values. Reads all inputs, a part at a time.
    ///
    /// # Errors
    /// Inputs that cannot be read, or are not tokens.
    pub fn num_tokens(&self) -> Result<usize> {
        let mut count = 0;
        let mut progress = Progress::start("largest token");
        for range in self.ranges(self.bytes() as usize / self.len) {
            progress::check()?;
            progress.part(range.start, self.len);
            let data = self.read(range)?;
            if data.inputs().dtype() != DType::U32 {
                return Ok(0);
            }
            let largest = data.inputs().flatten_all()?.max(0)?.to_scalar::<u32>()?;
            count = count.max(largest as usize + 1);
        }
        Ok(count)
    }

    /// Ranges of samples of [`PASS`] bytes.
    fn ranges(&self, bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let (len, size) = (self.len, (PASS / bytes.max(1)).max(1));
        (0..len)
            .step_by(size)
            .map(move |start| start..(start + size).min(len))
    }
}

fn check_dtype(dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F64 => Ok(()),
        _ => Err(Error::invalid(format!(
            "samples cannot be {dtype:?}: ask for f32 or f64"
        ))),
    }
}

impl SampleSource for StoredSamples {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, range: Range<usize>) -> Result<Dataset> {
        if range.end > self.len {
            return Err(Error::invalid(format!(
                "there are {} samples, not the samples {range:?}",
                self.len
            )));
        }
        let data = self.rows.read(range.clone(), &self.device);
        let data = data.and_then(|data| match &self.normalization {
            Some(normalization) => data.normalized(normalization),
            None => Ok(data),
        });
        let data = data.map_err(|error| match error {
            Error::NotFinite(problem) => {
                Error::NotFinite(format!("in the samples {range:?}, {problem}"))
            }
            error => error,
        });
        let data = data.map_err(|error| error.in_file(self.rows.path()))?;
        data.to_dtype(self.dtype)
    }
}

impl fmt::Debug for StoredSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSamples")
            .field("path", &self.rows.path())
            .field("dtype", &self.dtype)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
