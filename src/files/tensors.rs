//! Safetensors files, written tensor by tensor.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, json};

use crate::error::{Error, Result};
use crate::files::npz_writer::write_npz;
use crate::files::{read_bytes, write_atomically};

/// Writes named tensors as [`write_atomically`] does: to an uncompressed `.npz` file if the name ends in `.npz`, else to a
/// safetensors file. The same tensors give the same bytes.
///
/// ```
/// use loss_landscape::candle::safetensors;
/// use loss_landscape::files::{WRITABLE, write_tensors};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("v.safetensors");
/// let v = Tensor::new(&[1.0, 2.0], &Device::Cpu)?;
/// write_tensors(&path, WRITABLE, [("v".to_owned(), v.clone())])?;
/// let read = safetensors::load(&path, &Device::Cpu)?;
/// assert_eq!(read["v"].to_vec1::<f64>()?, [1.0, 2.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of writing; tensors that are not `f32` or `f64`.
pub fn write_tensors(
    path: &Path,
    advice: &str,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let entries = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            DType::F64 => "F64",
            DType::F32 => "F32",
            other => {
                return Err(Error::invalid(format!(
                    "tensor `{name}` is {other:?}: only f32 and f64 are written"
                )));
            }
        };
        Ok((name.as_str(), dtype, tensor.dims().to_vec()))
    });
    let entries = entries.collect::<Result<Vec<_>>>()?;
    write_atomically(path, advice, |part| {
        let file = File::create(part)?;
        if path.extension().is_some_and(|ending| ending == "npz") {
            return write_npz(file, &tensors);
        }
        let mut file = BufWriter::new(file);
        file.write_all(&header(&entries))?;
        for (_, tensor) in &tensors {
            tensor.write_bytes(&mut file).map_err(other)?;
        }
        file.flush()
    })
}

/// The tensors of a safetensors file by name.
pub(crate) fn read_tensors(path: &Path, device: &Device) -> io::Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load_buffer(&read_bytes(path)?, device).map_err(other)
}

pub(super) fn other(error: candle_core::Error) -> io::Error {
    io::Error::other(Error::from(error))
}

/// The beginning of a safetensors file: the header's length, and the header. Each entry is a tensor's name, type (such as
/// `F32`) and shape, in the order of their numbers.
pub(crate) fn header(entries: &[(&str, &str, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut start) = (Map::new(), 0);
    for (name, dtype, shape) in entries {
        let size = if dtype.ends_with("64") { 8 } else { 4 };
        let end = start + size * shape.iter().product::<usize>();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes
}
