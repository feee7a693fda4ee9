//! [`DataReader`]: datasets from files of arrays and tables.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::stored_arrays::StoredArrays;
use super::{Dataset, StoredSamples, TrainTest, array_file};
use crate::error::{Error, Result};
use crate::files::ArrayRows;

/// Reads a dataset from one file. The ending of its name states the format.
///
/// | ending | inputs and targets are |
/// | --- | --- |
/// | `.npz`, `.safetensors`, `.pth`, `.pt` | arrays |
/// | `.csv`, `.parquet` | columns of a table; needs the feature `tables` |
///
/// **Names.** The inputs are called `inputs` and the targets `targets` unless other names are set. Several arrays or columns of
/// inputs are joined along axis 1. A column of inputs can contain lists of one length. A table without a column `inputs` uses all
/// columns but the targets.
///
/// **Targets.** Integers and booleans are labels, floating-point numbers are values to fit. A column of text becomes labels: classes
/// are its different texts in sorted order, see [`TrainTest::class_names`].
///
/// **Inputs.** In files of arrays, integer inputs are tokens; in tables they are values. [`DataReader::with_tokens`] changes that.
/// Numbers of 16 bits become `f32`.
///
/// **Test samples.** A file of arrays can contain test samples under the same names with `test_` in front, or with `test` in place of
/// `train`: `test_inputs`, or `x_test` for `x_train`. Without them, the test samples are a random share of the samples if
/// [`DataReader::with_test_share`] is set, or else the training samples.
///
/// ```
/// use loss_landscape::data::DataReader;
/// use loss_landscape::files::{WRITABLE, write_tensors};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("line.safetensors");
/// let x = Tensor::new(&[[0.0], [0.5], [1.0]], &Device::Cpu)?;
/// let tensors = [("x".to_owned(), x.clone()), ("y".to_owned(), (x * 2.0)?)];
/// write_tensors(&path, WRITABLE, tensors)?;
/// let reader = DataReader::default()
///     .with_inputs(["x"])
///     .with_targets("y");
/// let samples = reader.read(&path, &Device::Cpu)?;
/// assert_eq!(samples.train.inputs().dims(), [3, 1]);
/// assert!(matches!(samples.train.targets(), Targets::Values(_)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DataReader {
    /// Names of the arrays or columns of inputs.
    pub inputs: Option<Vec<String>>,
    /// Name of the array or column of targets.
    pub targets: Option<String>,
    /// Whether integer inputs are tokens; by default in files of arrays.
    pub tokens: Option<bool>,
    /// Share of the samples that become test samples.
    pub test_share: Option<f64>,
    /// Seed of the random share of test samples.
    pub seed: u64,
}

impl DataReader {
    /// Sets the names of the arrays or columns of inputs.
    #[must_use]
    pub fn with_inputs<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.inputs = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the name of the array or column of targets.
    #[must_use]
    pub fn with_targets(mut self, name: impl Into<String>) -> Self {
        self.targets = Some(name.into());
        self
    }

    /// Sets whether integer inputs are tokens, else values.
    #[must_use]
    pub fn with_tokens(mut self, tokens: bool) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Sets the share of the samples that become test samples; see [`Dataset::split`].
    #[must_use]
    pub fn with_test_share(mut self, share: f64) -> Self {
        self.test_share = Some(share);
        self
    }

    /// Sets the seed of the random share of test samples.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read or has another ending; an array or column that is missing; inputs and targets that differ in number;
    /// inputs or targets that are not finite; negative labels. In tables also rows of different lengths, empty cells, and text in a
    /// column of inputs; the message names row and column. Rows count from 1, without the header.
    pub fn read(&self, path: impl AsRef<Path>, device: &Device) -> Result<TrainTest> {
        let path = path.as_ref();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_lowercase().as_str() {
            "npz" | "safetensors" | "pth" | "pt" => array_file::read(self, path, device),
            #[cfg(feature = "tables")]
            "csv" | "parquet" => super::table_file::read(self, path, device),
            #[cfg(not(feature = "tables"))]
            "csv" | "parquet" => Err(Error::file(
                path,
                "is a table",
                "Compile with the feature `tables` to read it",
            )),
            _ => Err(Error::file(
                path,
                "has no known ending",
                "Give a .npz, .safetensors, .pth, .csv or .parquet file",
            )),
        }
    }

    /// Opens a safetensors file or an uncompressed `.npz` file without reading its samples. Returns the training samples, and the
    /// test samples if the file contains some.
    ///
    /// [`Objective::with_source`](crate::objective::Objective::with_source) reads them in parts. Floating-point numbers are
    /// converted to `dtype`.
    ///
    /// ```
    /// use loss_landscape::data::{DataReader, SampleSource};
    /// use loss_landscape::files::{WRITABLE, write_tensors};
    /// use loss_landscape::prelude::*;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("line.npz");
    /// let x = Tensor::new(&[[0.0], [0.5], [1.0]], &Device::Cpu)?;
    /// let tensors = ["inputs", "targets"].map(|name| (name.to_owned(), x.clone()));
    /// write_tensors(&path, WRITABLE, tensors)?;
    /// let (train, test) = DataReader::default().open(&path, DType::F32, &Device::Cpu)?;
    /// assert_eq!((train.len(), test.is_none()), (3, true));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`StoredSamples::open`]; a share of test samples, which needs all samples in memory.
    pub fn open(
        &self,
        path: impl AsRef<Path>,
        dtype: DType,
        device: &Device,
    ) -> Result<(StoredSamples, Option<StoredSamples>)> {
        if self.test_share.is_some() {
            return Err(Error::invalid(
                "a random share of test samples needs all samples in memory: store the test samples as test_inputs and test_targets",
            ));
        }
        let arrays = Arc::new(ArrayRows::open(path.as_ref())?);
        let tokens = self.tokens.unwrap_or(true);
        let samples = |inputs: Vec<String>, targets: String| {
            let rows = StoredArrays::new(arrays.clone(), inputs, targets, tokens)?;
            StoredSamples::new(Arc::new(rows), dtype, device)
        };
        let (inputs, targets) = (self.inputs_of_arrays(), self.targets());
        let test = array_file::test_names(&inputs, targets, |name| arrays.has(name));
        let test = test.map(|(inputs, targets)| samples(inputs, targets));
        Ok((samples(inputs, targets.to_owned())?, test.transpose()?))
    }

    /// Names of the arrays of inputs.
    pub(super) fn inputs_of_arrays(&self) -> Vec<String> {
        let inputs = self.inputs.clone();
        inputs.unwrap_or_else(|| vec!["inputs".to_owned()])
    }

    /// Name of the targets.
    pub(super) fn targets(&self) -> &str {
        self.targets.as_deref().unwrap_or("targets")
    }

    /// Joins training samples and the test samples of the file.
    pub(super) fn join(&self, train: Dataset, test: Option<Dataset>) -> Result<TrainTest> {
        TrainTest::new(train, test, self.test_share, self.seed)
    }
}

/// Advice for a name that the file does not contain.
pub(super) const NAMES: &str =
    "Give the names of inputs and targets, on the command line with --inputs and --targets";
