//! [`read_arrays`]: named arrays from safetensors, `.npz` and PyTorch files. [`write_tensors`] writes them.
//!
//! Files may be damaged or hostile. Readers check every size that a file claims against its length before they allocate
//! memory, and nothing in a file is executed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::archive::Archive;
use super::npz_writer::write_npz;
use super::{npz, parent, pth, read_bytes, safetensors, torch_save, write_atomically};
use crate::error::{Error, Result};
use crate::memory;

/// Reads the named arrays of a file, in the file's order. The content decides the format, except that `.json` is an index of
/// shards.
///
/// | file | arrays |
/// | --- | --- |
/// | `.safetensors` | all, in the order of their data |
/// | `….index.json` | those that the index lists, from the shards beside it |
/// | `.npz` | all, also compressed ones, in C or Fortran order and either byte order |
/// | `.pth`, `.pt`, `.bin`, `.ckpt` of `torch.save` | the tensors of a state dict, also of files before PyTorch 1.6 |
///
/// A PyTorch file may hold the state dict in a checkpoint, under `state_dict`, `model_state_dict`, `model`, `module`, `net`,
/// `network`, `params` or `weights`; the first of these that holds tensors is read. Otherwise all tensors are read, and
/// the keys of nested dictionaries are joined by dots. Optimizer states are left out. Nothing in the file is executed.
///
/// # Types
/// `f16`, `bf16`, `f32` and `f64` are kept. `bool` and `u8` become `u8`, `u16` and `u32` become `u32`, and other integers
/// `i64`.
///
/// ```
/// use loss_landscape::files::{WRITABLE, read_arrays, write_tensors};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("v.safetensors");
/// let v = Tensor::new(&[1.0, 2.0], &Device::Cpu)?;
/// write_tensors(&path, WRITABLE, [("v".to_owned(), v)])?;
/// let arrays = read_arrays(&path, &Device::Cpu)?;
/// assert_eq!(arrays[0].0, "v");
/// assert_eq!(arrays[0].1.to_vec1::<f64>()?, [1.0, 2.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A file that is missing, damaged or of another format; an array of another type, such as complex numbers or text; arrays
/// that do not fit into memory.
pub fn read_arrays(path: impl AsRef<Path>, device: &Device) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let bytes = read_bytes(path).map_err(|e| unreadable(path, e))?;
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return read_shards(path, &bytes, device);
    }
    parse(&bytes, device).map_err(|problem| unreadable(path, invalid(problem)))
}

/// Writes named tensors to a file, as [`write_atomically`] does: in PyTorch's format if the name ends in `.pth` or `.pt`, to an
/// uncompressed `.npz` file if it ends in `.npz`, else as safetensors. The same tensors give the same bytes.
///
/// `torch.load(path, weights_only=True)` reads a `.pth` file as a state dict.
///
/// ```
/// use loss_landscape::candle::safetensors;
/// use loss_landscape::files::{WRITABLE, read_arrays, write_tensors};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("v.safetensors");
/// let v = Tensor::new(&[1.0, 2.0], &Device::Cpu)?;
/// write_tensors(&path, WRITABLE, [("v".to_owned(), v.clone())])?;
/// let read = safetensors::load(&path, &Device::Cpu)?;
/// assert_eq!(read["v"].to_vec1::<f64>()?, [1.0, 2.0]);
///
/// let path = path.with_extension("pth");
/// write_tensors(&path, WRITABLE, [("v".to_owned(), v)])?;
/// assert_eq!(read_arrays(&path, &Device::Cpu)?[0].1.to_vec1::<f64>()?, [1.0, 2.0]);
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
    for (name, tensor) in &tensors {
        if !matches!(tensor.dtype(), DType::F32 | DType::F64) {
            return Err(Error::invalid(format!(
                "tensor `{name}` is {:?}: only f32 and f64 are written",
                tensor.dtype()
            )));
        }
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pth" | "pt") => write_atomically(path, advice, |part| {
            let archive = torch_save::archive(&tensors).map_err(io::Error::other)?;
            fs::write(part, archive)
        }),
        Some("npz") => write_atomically(path, advice, |part| {
            write_npz(File::create(part)?, &tensors)
        }),
        _ => safetensors::write(path, advice, &tensors),
    }
}

/// Beginning of a zip archive.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// Reads the arrays of a file that is not an index.
fn parse(bytes: &[u8], device: &Device) -> std::result::Result<Vec<(String, Tensor)>, String> {
    let mut arrays = Arrays::new(bytes.len(), device);
    if bytes.starts_with(ZIP) {
        let archive = Archive::open(bytes)?;
        match pth::pickle_of(&archive) {
            Some(pickle) => pth::read(archive, &pickle, &mut arrays)?,
            None => npz::read(archive, &mut arrays)?,
        }
    } else if pth::is_legacy(bytes) {
        pth::read_legacy(bytes, &mut arrays)?;
    } else {
        safetensors::read(bytes, &mut arrays)?;
    }
    Ok(arrays.found())
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    let advice =
        "Give a .safetensors, .npz, .pth or .pt file, or the index.json of safetensors shards";
    Error::file(path, format!("cannot be read: {e}"), advice).caused_by(e)
}

pub(super) fn invalid(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

/// An index of the shards of a large model.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_shards(path: &Path, bytes: &[u8], device: &Device) -> Result<Vec<(String, Tensor)>> {
    let wrong = |problem: String| unreadable(path, invalid(problem));
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|e| wrong(format!("it is not an index of shards ({e})")))?;
    let mut shards: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (name, shard) in &index.weight_map {
        shards.entry(shard).or_default().insert(name);
    }
    let mut found = Vec::new();
    for (shard, mut names) in shards {
        let mut parts = Path::new(shard).components();
        let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
            return Err(wrong(format!(
                "shard `{shard}` is not the name of a file in the same directory"
            )));
        };
        let file = parent(path).join(shard);
        let bytes = read_bytes(&file).map_err(|e| unreadable(&file, e))?;
        let arrays =
            parse(&bytes, device).map_err(|problem| unreadable(&file, invalid(problem)))?;
        found.extend(arrays.into_iter().filter(|(name, _)| names.remove(&**name)));
        if let Some(name) = names.into_iter().min() {
            return Err(wrong(format!("shard `{shard}` has no array `{name}`")));
        }
    }
    Ok(found)
}

/// Type of an array's elements in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    BF16,
    F32,
    F64,
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Element {
    pub(super) fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Size in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::F16 | Self::BF16 | Self::U16 | Self::I16 => 2,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F64 | Self::U64 | Self::I64 => 8,
        }
    }
}

/// An array in a file.
pub(super) struct Array<'a> {
    pub(super) name: String,
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    /// Distance between neighbours along each axis, in elements.
    pub(super) strides: Vec<usize>,
    pub(super) big_endian: bool,
    /// Bytes from the first element on.
    pub(super) bytes: &'a [u8],
}

/// Maximum number of axes, as in NumPy.
const MAX_RANK: usize = 64;

/// Maximum ratio of the sizes of data and file: deflate compresses at most by this factor.
const MAX_RATIO: usize = 1032;

/// Bytes that a file of this size can contain, compressed or not.
pub(super) fn max_size(file_len: usize) -> usize {
    file_len.saturating_mul(MAX_RATIO)
}

/// Row-major strides, or why there is no array of this shape.
pub(super) fn contiguous(shape: &[usize]) -> std::result::Result<Vec<usize>, String> {
    let mut strides = vec![0; shape.len()];
    let mut size = 1usize;
    for (stride, dim) in strides.iter_mut().zip(shape).rev() {
        *stride = size;
        // With 1 for an empty axis, so that candle's strides do not overflow either.
        size = size.checked_mul((*dim).max(1)).ok_or(format!(
            "an array of shape {shape:?} is too large for this machine"
        ))?;
    }
    Ok(strides)
}

/// The arrays that have been read.
pub(super) struct Arrays<'a> {
    device: &'a Device,
    names: HashSet<String>,
    found: Vec<(String, Tensor)>,
    /// Bytes that further arrays may take.
    left: usize,
}

impl<'a> Arrays<'a> {
    pub(super) fn new(file_len: usize, device: &'a Device) -> Self {
        Self {
            device,
            names: HashSet::new(),
            found: Vec::new(),
            left: max_size(file_len),
        }
    }

    /// Names and tensors, in the order of their addition.
    pub(super) fn found(self) -> Vec<(String, Tensor)> {
        self.found
    }

    /// Adds an array, or returns why it cannot be read.
    pub(super) fn push(&mut self, array: &Array) -> std::result::Result<(), String> {
        let name = &array.name;
        let tensor = self
            .tensor(array)
            .map_err(|problem| format!("array `{name}`: {problem}"))?;
        if !self.names.insert(name.clone()) {
            return Err(format!("two arrays are called `{name}`"));
        }
        self.found.push((name.clone(), tensor));
        Ok(())
    }

    fn tensor(&mut self, array: &Array) -> std::result::Result<Tensor, String> {
        let Array {
            element,
            shape,
            strides,
            ..
        } = array;
        if shape.len() > MAX_RANK {
            return Err(format!("{} axes, at most {MAX_RANK} are read", shape.len()));
        }
        let row_major = contiguous(shape)?;
        let count: usize = shape.iter().product();
        // A stride of 0 repeats elements, so the size is limited too.
        let size = count
            .checked_mul(element.size())
            .filter(|size| *size <= self.left)
            .ok_or_else(|| format!("shape {shape:?} needs more data than the file holds"))?;
        let end = match count {
            0 => Some(0),
            _ => shape
                .iter()
                .zip(strides)
                .try_fold(1, |end: usize, (dim, stride)| {
                    end.checked_add((dim - 1).checked_mul(*stride)?)
                }),
        };
        let end = end.and_then(|end| end.checked_mul(element.size()));
        let bytes = end.and_then(|end| array.bytes.get(..end)).ok_or_else(|| {
            format!(
                "shape {shape:?} needs {size} bytes, but the file has {}",
                array.bytes.len()
            )
        })?;
        // The gathered bytes and the tensor take at most 8 bytes per element each.
        memory::check(16.0 * count as f64, "the array and its copy").map_err(|e| e.to_string())?;
        self.left -= size;
        let in_order = strides == &row_major && !array.big_endian;
        let bytes = match in_order {
            true => Cow::Borrowed(bytes),
            false => Cow::Owned(gather(array, bytes, count)),
        };
        decode(*element, &bytes, shape)
            .and_then(|tensor| tensor.to_device(self.device))
            .map_err(|e| Error::from(e).to_string())
    }
}

/// The elements in row-major order and in this machine's byte order.
fn gather(array: &Array, bytes: &[u8], count: usize) -> Vec<u8> {
    let size = array.element.size();
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; array.shape.len()];
    let mut at = 0;
    for _ in 0..count {
        let element = &bytes[at * size..(at + 1) * size];
        match array.big_endian {
            true => gathered.extend(element.iter().rev()),
            false => gathered.extend(element),
        }
        // The next index, the last axis first.
        for (axis, i) in index.iter_mut().enumerate().rev() {
            *i += 1;
            // The stride of an axis of length 1 can be any number.
            at = at.wrapping_add(array.strides[axis]);
            if *i < array.shape[axis] {
                break;
            }
            at = at.wrapping_sub(i.wrapping_mul(array.strides[axis]));
            *i = 0;
        }
    }
    gathered
}

/// A tensor of little-endian elements.
fn decode(element: Element, bytes: &[u8], shape: &[usize]) -> candle_core::Result<Tensor> {
    let raw = |dtype| Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu);
    match element {
        Element::F16 => raw(DType::F16),
        Element::BF16 => raw(DType::BF16),
        Element::F32 => raw(DType::F32),
        Element::F64 => raw(DType::F64),
        Element::Bool | Element::U8 => raw(DType::U8),
        Element::U32 => raw(DType::U32),
        Element::I64 => raw(DType::I64),
        Element::U16 => widened(bytes, shape, |bytes| u32::from(u16::from_le_bytes(bytes))),
        Element::I8 => widened(bytes, shape, |bytes| i64::from(i8::from_le_bytes(bytes))),
        Element::I16 => widened(bytes, shape, |bytes| i64::from(i16::from_le_bytes(bytes))),
        Element::I32 => widened(bytes, shape, |bytes| i64::from(i32::from_le_bytes(bytes))),
        Element::U64 => {
            let (words, _) = bytes.as_chunks();
            let numbers = words.iter().map(|word| {
                let number = u64::from_le_bytes(*word);
                i64::try_from(number)
                    .map_err(|_| candle_core::Error::msg(format!("{number} does not fit into i64")))
            });
            let numbers = numbers.collect::<candle_core::Result<Vec<i64>>>()?;
            Tensor::from_vec(numbers, shape, &Device::Cpu)
        }
    }
}

fn widened<const N: usize, T: candle_core::WithDType>(
    bytes: &[u8],
    shape: &[usize],
    number: impl Fn([u8; N]) -> T,
) -> candle_core::Result<Tensor> {
    let (words, _) = bytes.as_chunks();
    let numbers: Vec<T> = words.iter().map(|word| number(*word)).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}
