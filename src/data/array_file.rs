//! Datasets from files of arrays: `.npz`, `.safetensors`, `.pth`.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::labels::{not_a_label, to_u32};
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
    let inputs = reader.inputs_of_arrays();
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
        let arrays = inputs.iter().map(|name| self.get(name).cloned());
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        samples(inputs, arrays, self.get(targets)?, self.tokens, 0)
    }

    /// The test samples, if the file has their inputs.
    fn test(&self, inputs: &[String], targets: &str) -> Result<Option<Dataset>> {
        let names = test_names(inputs, targets, |name| self.find(name).is_some());
        names
            .map(|(inputs, targets)| self.dataset(&inputs, &targets))
            .transpose()
    }
}

/// Names of the arrays of test samples, if the file has one of them.
pub(super) fn test_names(
    inputs: &[String],
    targets: &str,
    exists: impl Fn(&str) -> bool,
) -> Option<(Vec<String>, String)> {
    let name = |name: &str| {
        let mut names = [format!("test_{name}"), name.replace("train", "test")].into_iter();
        let found = names.find(|test| test != name && exists(test));
        found.ok_or_else(|| format!("test_{name}"))
    };
    let found: Vec<Result<String, String>> = inputs.iter().map(|input| name(input)).collect();
    let targets = name(targets);
    if found.iter().all(Result::is_err) && targets.is_err() {
        return None;
    }
    let name = |name: Result<String, String>| name.unwrap_or_else(|missing| missing);
    Some((found.into_iter().map(name).collect(), name(targets)))
}

/// The samples of these arrays of inputs with their names, and of this array of targets. Integer inputs are `tokens` or values.
/// The arrays are rows of a file from row `first` on.
pub(super) fn samples(
    names: &[String],
    inputs: Vec<Tensor>,
    targets: &Tensor,
    tokens: bool,
    first: usize,
) -> Result<Dataset> {
    let arrays = names.iter().zip(&inputs);
    let arrays = arrays.map(|(name, array)| converted(name, array, tokens, first));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let inputs = match &arrays[..] {
        [] => return Err(Error::invalid("no array of inputs is named")),
        [array] => array.clone(),
        arrays => join(arrays, names)?,
    };
    // NumPy's targets are often columns. For tokens, an axis of length 1 is a sequence of one token.
    let targets = match targets.dims() {
        [_, 1] if targets.dtype().is_int() && !inputs.dtype().is_int() => targets.squeeze(1)?,
        _ => targets.clone(),
    };
    match targets.dtype().is_int() {
        true => Dataset::classification(&inputs, &labels(&targets, first)?),
        false => Dataset::regression(&inputs, &widened(&targets)?),
    }
}

/// An array of inputs: tokens as `u32`, values as `f32` or `f64`. Samples have at least one axis.
fn converted(name: &str, array: &Tensor, tokens: bool, first: usize) -> Result<Tensor> {
    let array = match (array.dtype().is_int(), tokens) {
        (false, _) => widened(array)?,
        (true, false) => array.to_dtype(DType::F32)?,
        (true, true) => to_u32(array, |value, row| {
            format!(
                "array `{name}` has the integer {value} in sample {}: tokens are 0, 1, 2, …, and values must be floating point",
                first + row
            )
        })?,
    };
    match array.rank() {
        1 => Ok(array.unsqueeze(1)?),
        _ => Ok(array),
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

/// Integers as labels.
pub(super) fn labels(integers: &Tensor, first: usize) -> Result<Tensor> {
    to_u32(integers, |value, row| not_a_label(value, first + row))
}
