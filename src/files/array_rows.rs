//! [`ArrayRows`]: arrays of a file that need not fit into memory, a range of rows at a time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::arrays::{Array, Arrays, Element, ZIP, contiguous};
use super::{npz, safetensors};
use crate::error::{Error, Result};

/// The arrays of a safetensors file or of an `.npz` file without compression.
pub(crate) struct ArrayRows {
    path: PathBuf,
    file: Mutex<File>,
    arrays: BTreeMap<String, Stored>,
}

/// An array in row-major order in a file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    pub(super) big_endian: bool,
    /// Position of the first element in the file.
    pub(super) start: u64,
    /// Bytes of all elements.
    pub(super) size: u64,
}

impl Stored {
    /// The rows; `None` if there are none or if the size is not that of the shape.
    fn rows(&self) -> Option<Rows> {
        let (count, rest) = self.shape.split_first()?;
        let element = self.element.size();
        let bytes = rest
            .iter()
            .try_fold(element, |size, dim| size.checked_mul(*dim))?;
        let size = bytes.checked_mul(*count)?;
        (size > 0 && size as u64 == self.size).then_some(Rows {
            count: *count,
            numbers: bytes / element,
            bytes,
            is_integer: self.element.is_integer(),
        })
    }
}

/// The rows of an array.
pub(crate) struct Rows {
    /// Number of rows.
    pub(crate) count: usize,
    /// Numbers per row.
    pub(crate) numbers: usize,
    /// Bytes per row in the file.
    pub(crate) bytes: usize,
    /// Whether the numbers are integers.
    pub(crate) is_integer: bool,
}

/// Largest header of a safetensors file, as in its specification.
const MAX_HEADER: u64 = 100_000_000;

/// Largest header of an array in an `.npz` file: NumPy refuses longer ones.
const MAX_NPY_HEADER: u64 = 1 << 16;

const ADVICE: &str = "Give a safetensors file, or an .npz file of numpy.savez";

impl ArrayRows {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).map_err(|e| e.to_string());
        let found = opened.and_then(|mut file| Ok((stored(&mut file)?, file)));
        let (arrays, file) = found
            .map_err(|problem| Error::file(path, format!("cannot be read: {problem}"), ADVICE))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            arrays,
        })
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an array of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// The rows of an array.
    ///
    /// # Errors
    /// No array of this name; an array without rows, or whose size does not fit its shape.
    pub(crate) fn rows(&self, name: &str) -> Result<Rows> {
        let array = self.arrays.get(name).ok_or_else(|| {
            let found = self.arrays.iter();
            let found = found.map(|(name, array)| format!("`{name}` {:?}", array.shape));
            let found = found.collect::<Vec<_>>().join(", ");
            self.wrong(format!("has no array `{name}`; it has {found}"))
        })?;
        array.rows().ok_or_else(|| {
            self.wrong(format!(
                "has an array `{name}` of shape {:?} in {} bytes, which do not fit",
                array.shape, array.size
            ))
        })
    }

    /// Reads these rows of an array, on the CPU.
    ///
    /// # Errors
    /// As [`rows`](Self::rows); rows that the file does not have, or that cannot be read.
    pub(crate) fn read(&self, name: &str, range: Range<usize>) -> Result<Tensor> {
        let Rows { count, bytes, .. } = self.rows(name)?;
        if range.end > count {
            return Err(self.wrong(format!(
                "has {count} rows in `{name}`, not the rows {range:?}"
            )));
        }
        let array = &self.arrays[name];
        let at = array.start + (range.start * bytes) as u64;
        let mut bytes = vec![0; range.len() * bytes];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(at));
        let read = read.and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        read.map_err(|e| self.wrong(format!("cannot be read ({e})")).caused_by(e))?;
        let mut shape = array.shape.clone();
        shape[0] = range.len();
        self.tensor(name, array, shape, &bytes)
            .map_err(|problem| self.wrong(format!("cannot be read: {problem}")))
    }

    fn tensor(
        &self,
        name: &str,
        array: &Stored,
        shape: Vec<usize>,
        bytes: &[u8],
    ) -> Result<Tensor, String> {
        let mut arrays = Arrays::new(bytes.len(), &Device::Cpu);
        arrays.push(&Array {
            name: name.to_owned(),
            element: array.element,
            strides: contiguous(&shape)?,
            shape,
            big_endian: array.big_endian,
            bytes,
        })?;
        let found = arrays.found().pop();
        found
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| "has no rows".into())
    }

    fn wrong(&self, problem: String) -> Error {
        Error::file(&self.path, problem, ADVICE)
    }
}

/// The arrays of a file, by name.
fn stored(file: &mut File) -> Result<BTreeMap<String, Stored>, String> {
    let unreadable = |e: io::Error| e.to_string();
    let size = file.metadata().map_err(unreadable)?.len();
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(unreadable)?;
    if start.starts_with(ZIP) {
        return in_archive(file);
    }
    let len = u64::from_le_bytes(start);
    if len > MAX_HEADER.min(size - 8) {
        return Err("it is truncated, or neither a safetensors nor an .npz file".into());
    }
    let mut header = vec![0; len as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    safetensors::stored(&header, 8 + len, size - 8 - len)
}

/// The arrays of an `.npz` file.
fn in_archive(file: &mut File) -> Result<BTreeMap<String, Stored>, String> {
    let damaged = |e: &dyn Display| format!("the zip archive is damaged ({e})");
    let mut archive = ZipArchive::new(&mut *file).map_err(|e| damaged(&e))?;
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| damaged(&e))?;
        let name = member.name().map_err(|e| damaged(&e))?;
        let Some(name) = name.strip_suffix(".npy") else {
            continue;
        };
        if member.compression() != CompressionMethod::Stored {
            return Err(format!(
                "array `{name}` is compressed, so that it cannot be read in parts: write it with numpy.savez"
            ));
        }
        let start = member.data_start();
        let start = start.ok_or_else(|| format!("array `{name}` is not found in the file"))?;
        found.push((name.to_owned(), start, member.size()));
    }
    drop(archive);
    let mut arrays = BTreeMap::new();
    for (name, start, size) in found {
        let mut header = vec![0; size.min(MAX_NPY_HEADER) as usize];
        let read = file.seek(SeekFrom::Start(start));
        let read = read.and_then(|_| file.read_exact(&mut header));
        read.map_err(|e| format!("array `{name}`: {e}"))?;
        let array = npz::stored(&header, start, size);
        arrays.insert(
            name.clone(),
            array.map_err(|e| format!("array `{name}`: {e}"))?,
        );
    }
    Ok(arrays)
}
