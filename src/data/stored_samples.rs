//! [`StoredSamples`]: samples of a file that is read in parts.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::{Dataset, InputNormalization, SampleSource, array_file};
use crate::error::{Error, Result};
use crate::files::ArrayRows;
use crate::memory;
use crate::progress::{self, Progress};

/// Samples of a file that is larger than memory: arrays of inputs and an array of targets in a safetensors file, or in an
/// `.npz` file of `numpy.savez`, which does not compress.
///
/// [`Objective::with_source`](crate::objective::Objective::with_source) reads it in parts. [`DataReader::open`](super::DataReader::open) opens a file
/// with other names, several arrays of inputs or test samples. Cloning is cheap.
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
    arrays: Arc<ArrayRows>,
    inputs: Vec<String>,
    targets: String,
    tokens: bool,
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
        Self::new(
            arrays,
            inputs,
            targets.to_owned(),
            true,
            dtype,
            &Device::Cpu,
        )
    }

    /// The samples of these arrays.
    pub(super) fn new(
        arrays: Arc<ArrayRows>,
        inputs: Vec<String>,
        targets: String,
        tokens: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        check_dtype(dtype)?;
        let len = arrays.rows(&targets)?.count;
        for name in &inputs {
            let found = arrays.rows(name)?.count;
            if found != len {
                let problem = format!("has {found} rows in `{name}` and {len} in `{targets}`");
                return Err(Error::file(
                    arrays.path(),
                    problem,
                    "Give one target per sample",
                ));
            }
        }
        Ok(Self {
            arrays,
            inputs,
            targets,
            tokens,
            normalization: None,
            dtype,
            device: device.clone(),
            len,
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
        let inputs = self.inputs.iter().map(|name| (name, self.tokens));
        let arrays = inputs.chain([(&self.targets, true)]);
        // `new` has checked that the arrays have rows.
        let arrays = arrays.filter_map(|(name, keeps_integers)| {
            let rows = self.arrays.rows(name).ok()?;
            let dtype = match rows.is_integer && keeps_integers {
                true => DType::U32,
                false => self.dtype,
            };
            Some((rows.numbers * dtype.size_in_bytes()) as f64)
        });
        self.len as f64 * arrays.sum::<f64>()
    }

    /// Number of labels of each class, up to the largest label; `None` if the targets are values. Reads all targets, a part at a
    /// time.
    ///
    /// # Errors
    /// Targets that cannot be read; a label that is negative or ≥ 2³².
    pub fn class_counts(&self) -> Result<Option<Vec<usize>>> {
        let rows = self.arrays.rows(&self.targets)?;
        if !rows.is_integer {
            return Ok(None);
        }
        let mut counts = Vec::new();
        let mut progress = Progress::start("counts of labels");
        for range in self.ranges(rows.bytes) {
            progress::check()?;
            progress.part(range.start, self.len);
            let targets = self.arrays.read(&self.targets, range.clone())?;
            let labels = array_file::labels(&targets, range.start);
            let labels = labels.map_err(|e| e.in_file(self.arrays.path()))?;
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
        let read = |name: &String| {
            let rows = self.arrays.read(name, range.clone())?;
            Ok(rows.to_device(&self.device)?)
        };
        let inputs = self.inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let targets = read(&self.targets)?;
        let data = array_file::samples(&self.inputs, inputs, &targets, self.tokens, range.start);
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
        let data = data.map_err(|error| error.in_file(self.arrays.path()))?;
        data.to_dtype(self.dtype)
    }
}

impl fmt::Debug for StoredSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSamples")
            .field("path", &self.arrays.path())
            .field("inputs", &self.inputs)
            .field("targets", &self.targets)
            .field("dtype", &self.dtype)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
