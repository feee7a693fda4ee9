//! Datasets from files of arrays: `.npz`, `.safetensors`, `.pth`.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::labels::to_labels;
use super::reader::NAMES;
use super::{DataReader, Dataset, TrainTest};
use crate::error::{Error, Result};
use crate::files::read_arrays;

pub(super) fn read(reader: &DataReader, path: &Path, device: &Device) -> Result<TrainTest> {
    let arrays = Arrays {
        path,
        arrays: read_arrays(path, device)?,
        tokens: reader.tokens.unwrap_or(true),
    };
    let inputs = reader.inputs.clone();
    let inputs = inputs.unwrap_or_else(|| vec!["inputs".to_owned()]);
    let read = || {
        let train = arrays.dataset(&inputs, reader.targets())?;
        let test = arrays.test(&inputs, reader.targets())?;
        reader.join(train, test)
    };
    read().map_err(|e| e.in_file(path))
}

struct Arrays<'a> {
    path: &'a Path,
    arrays: Vec<(String, Tensor)>,
    tokens: bool,
}

impl Arrays<'_> {
    fn find(&self, name: &str) -> Option<&Tensor> {
        let mut arrays = self.arrays.iter();
        arrays
            .find(|(found, _)| found == name)
            .map(|(_, array)| array)
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| {
            let found = self.arrays.iter().map(|(name, array)| {
                let dtype = format!("{:?}", array.dtype()).to_lowercase();
                format!("`{name}` {:?} {dtype}", array.dims())
            });
            let problem = format!(
                "has no array `{name}`; it has {}",
                found.collect::<Vec<_>>().join(", ")
            );
            Error::file(self.path, problem, NAMES)
        })
    }

    fn dataset(&self, inputs: &[String], targets: &str) -> Result<Dataset> {
        let arrays = inputs.iter().map(|name| self.inputs(name));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let inputs = match &arrays[..] {
            [] => return Err(Error::invalid("no array of inputs is named")),
            [array] => array.clone(),
            arrays => join(arrays, inputs)?,
        };
        let targets = self.get(targets)?;
        // NumPy's targets are often columns. For tokens, an axis of length 1 is a sequence of one token.
        let targets = match targets.dims() {
            [_, 1] if targets.dtype().is_int() && !inputs.dtype().is_int() => targets.squeeze(1)?,
            _ => targets.clone(),
        };
        match targets.dtype().is_int() {
            true => Dataset::classification(&inputs, &labels(&targets)?),
            false => Dataset::regression(&inputs, &widened(&targets)?),
        }
    }

    /// The array of inputs: tokens as `u32`, values as `f32` or `f64`. Samples have at least one axis.
    fn inputs(&self, name: &str) -> Result<Tensor> {
        let array = self.get(name)?;
        let array = match (array.dtype().is_int(), self.tokens) {
            (false, _) => widened(array)?,
            (true, false) => array.to_dtype(DType::F32)?,
            (true, true) => labels(array).map_err(|_| {
                Error::invalid(format!(
                    "array `{name}` contains negative integers: tokens are 0, 1, 2, …, and values must be floating point"
                ))
            })?,
        };
        match array.rank() {
            1 => Ok(array.unsqueeze(1)?),
            _ => Ok(array),
        }
    }

    /// The test samples, if the file has their inputs.
    fn test(&self, inputs: &[String], targets: &str) -> Result<Option<Dataset>> {
        let name = |name: &str| {
            let mut names = [format!("test_{name}"), name.replace("train", "test")].into_iter();
            let found = names.find(|test| test != name && self.find(test).is_some());
            found.ok_or_else(|| format!("test_{name}"))
        };
        let names = inputs.iter().map(|input| name(input));
        let found: Vec<Result<String, String>> = names.collect();
        let targets = name(targets);
        if found.iter().all(Result::is_err) && targets.is_err() {
            return Ok(None);
        }
        let name = |name: Result<String, String>| name.unwrap_or_else(|missing| missing);
        let inputs: Vec<String> = found.into_iter().map(name).collect();
        self.dataset(&inputs, &name(targets)).map(Some)
    }
}

/// Joins inputs along axis 1.
fn join(arrays: &[Tensor], names: &[String]) -> Result<Tensor> {
    let rest = |array: &Tensor| [&array.dims()[..1], &array.dims()[2..]].concat();
    for (array, name) in arrays.iter().zip(names) {
        if rest(array) != rest(&arrays[0]) || array.dtype() != arrays[0].dtype() {
            return Err(Error::invalid(format!(
                "`{name}` {:?} {:?} cannot be joined with `{}` {:?} {:?}: they must agree except in axis 1",
                array.dims(),
                array.dtype(),
                names[0],
                arrays[0].dims(),
                arrays[0].dtype()
            )));
        }
    }
    Ok(Tensor::cat(arrays, 1)?)
}

/// Floating-point numbers as `f32` or `f64`.
fn widened(array: &Tensor) -> Result<Tensor> {
    Ok(match array.dtype() {
        DType::F32 | DType::F64 => array.clone(),
        _ => array.to_dtype(DType::F32)?,
    })
}

/// Integers as `u32`, if none is negative.
fn labels(array: &Tensor) -> Result<Tensor> {
    let values: Vec<i64> = array.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
    let labels = to_labels(values).map_err(Error::Invalid)?;
    Ok(Tensor::from_vec(labels, array.dims(), array.device())?)
}
