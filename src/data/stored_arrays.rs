//! [`StoredArrays`]: samples in the arrays of one file, a range at a time.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::stored_rows::StoredRows;
use super::{Dataset, array_file};
use crate::error::{Error, Result};
use crate::files::ArrayRows;

/// Arrays of inputs and an array of targets.
pub(super) struct StoredArrays {
    arrays: Arc<ArrayRows>,
    inputs: Vec<String>,
    targets: String,
    /// Whether integer inputs are tokens, else values.
    tokens: bool,
    len: usize,
}

impl StoredArrays {
    pub(super) fn new(
        arrays: Arc<ArrayRows>,
        inputs: Vec<String>,
        targets: String,
        tokens: bool,
    ) -> Result<Self> {
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
            len,
        })
    }
}

impl StoredRows for StoredArrays {
    fn path(&self) -> &Path {
        self.arrays.path()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn bytes_per_sample(&self, dtype: DType) -> usize {
        let inputs = self.inputs.iter().map(|name| (name, self.tokens));
        let arrays = inputs.chain([(&self.targets, true)]);
        // `new` has checked that the arrays have rows.
        let arrays = arrays.filter_map(|(name, keeps_integers)| {
            let rows = self.arrays.rows(name).ok()?;
            let dtype = match rows.is_integer && keeps_integers {
                true => DType::U32,
                false => dtype,
            };
            Some(rows.numbers * dtype.size_in_bytes())
        });
        arrays.sum()
    }

    fn labels_per_sample(&self) -> Option<usize> {
        let rows = self.arrays.rows(&self.targets).ok()?;
        rows.is_integer.then_some(rows.numbers)
    }

    fn labels(&self, range: Range<usize>) -> Result<Tensor> {
        let targets = self.arrays.read(&self.targets, range.clone())?;
        array_file::labels(&targets, range.start).map_err(|e| e.in_file(self.path()))
    }

    fn read(&self, range: Range<usize>, device: &Device) -> Result<Dataset> {
        let read = |name: &String| {
            let rows = self.arrays.read(name, range.clone())?;
            Ok(rows.to_device(device)?)
        };
        let inputs = self.inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let targets = read(&self.targets)?;
        array_file::samples(&self.inputs, inputs, &targets, self.tokens, range.start)
    }
}
