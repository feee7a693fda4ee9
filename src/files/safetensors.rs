//! Safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::array_rows::Stored;
use super::arrays::{Array, Arrays, Element, contiguous, invalid};
use super::{read_bytes, write_atomically};
use crate::error::{Error, Result};

/// Writes `f32` and `f64` tensors.
pub(super) fn write(path: &Path, advice: &str, tensors: &[(String, Tensor)]) -> Result<()> {
    let entries = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            DType::F64 => "F64",
            _ => "F32",
        };
        (name.as_str(), dtype, tensor.dims().to_vec())
    });
    let header = header(&entries.collect::<Vec<_>>());
    write_atomically(path, advice, |part| {
        let mut file = BufWriter::new(File::create(part)?);
        file.write_all(&header)?;
        for (_, tensor) in tensors {
            tensor.write_bytes(&mut file).map_err(other)?;
        }
        file.flush()
    })
}

/// The tensors of a safetensors file by name.
pub(crate) fn read_tensors(path: &Path, device: &Device) -> io::Result<HashMap<String, Tensor>> {
    let bytes = read_bytes(path)?;
    let mut arrays = Arrays::new(bytes.len(), device);
    read(&bytes, &mut arrays).map_err(invalid)?;
    Ok(arrays.found().into_iter().collect())
}

/// An entry of the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Entry {
    fn element(&self) -> std::result::Result<Element, String> {
        Ok(match self.dtype.as_str() {
            "F16" => Element::F16,
            "BF16" => Element::BF16,
            "F32" => Element::F32,
            "F64" => Element::F64,
            "BOOL" => Element::Bool,
            "U8" => Element::U8,
            "U16" => Element::U16,
            "U32" => Element::U32,
            "U64" => Element::U64,
            "I8" => Element::I8,
            "I16" => Element::I16,
            "I32" => Element::I32,
            "I64" => Element::I64,
            other => return Err(format!("elements of type {other} are not read")),
        })
    }

    /// The bytes of the array among the `len` bytes after the header.
    fn range(&self, len: usize) -> std::result::Result<Range<usize>, String> {
        let [start, end] = self.data_offsets;
        match start <= end && end <= len {
            true => Ok(start..end),
            false => Err(format!(
                "its data are the bytes {start} to {end}, but the file has {len}: it is truncated or damaged"
            )),
        }
    }
}

/// The entries of a header by name, in the order of their data.
fn entries(header: &[u8]) -> std::result::Result<Vec<(String, Entry)>, String> {
    let damaged = |e| format!("the header of the safetensors file is damaged ({e})");
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(header).map_err(damaged)?;
    header.remove("__metadata__");
    let entries = header.into_iter().map(|(name, entry)| {
        let entry = serde_json::from_value::<Entry>(entry).map_err(damaged)?;
        Ok((name, entry))
    });
    let mut entries = entries.collect::<std::result::Result<Vec<_>, String>>()?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    Ok(entries)
}

/// Adds all tensors of a safetensors file, in the order of their data.
pub(super) fn read(bytes: &[u8], arrays: &mut Arrays) -> std::result::Result<(), String> {
    const FOREIGN: &str = "it is not a safetensors, .npz or PyTorch file";
    let (len, rest) = bytes.split_first_chunk().ok_or(FOREIGN)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    if !rest.starts_with(b"{") {
        return Err(FOREIGN.into());
    }
    let (header, data) = rest.split_at_checked(len).ok_or_else(|| {
        format!(
            "the safetensors file is truncated: its header has {len} bytes, the file {}",
            bytes.len()
        )
    })?;
    for (name, entry) in entries(header)? {
        let wrong = |problem: String| format!("array `{name}`: {problem}");
        let element = entry.element().map_err(wrong)?;
        let bytes = &data[entry.range(data.len()).map_err(wrong)?];
        let strides = contiguous(&entry.shape).map_err(wrong)?;
        let size = entry
            .shape
            .iter()
            .product::<usize>()
            .checked_mul(element.size());
        if size != Some(bytes.len()) {
            return Err(wrong(format!(
                "shape {:?} of {} does not fit its {} bytes",
                entry.shape,
                entry.dtype,
                bytes.len()
            )));
        }
        arrays.push(&Array {
            name,
            element,
            shape: entry.shape,
            strides,
            big_endian: false,
            bytes,
        })?;
    }
    Ok(())
}

/// The arrays that a header describes, by name. `start` bytes of the file precede their data, and `len` bytes are their data.
pub(super) fn stored(
    header: &[u8],
    start: u64,
    len: u64,
) -> std::result::Result<BTreeMap<String, Stored>, String> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let arrays = entries(header)?.into_iter().map(|(name, entry)| {
        let wrong = |problem: String| format!("array `{name}`: {problem}");
        let range = entry.range(len).map_err(wrong)?;
        let array = Stored {
            element: entry.element().map_err(wrong)?,
            shape: entry.shape,
            big_endian: false,
            start: start + range.start as u64,
            size: range.len() as u64,
        };
        Ok((name, array))
    });
    arrays.collect()
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
