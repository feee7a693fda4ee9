//! [`IdxArray`]: the content of one IDX file.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::super::labels::not_a_label;
use crate::error::{Error, Result, counted};
use crate::files::read as read_file;

/// Type of the elements of an IDX file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Element {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x08 => Self::U8,
            0x09 => Self::I8,
            0x0B => Self::I16,
            0x0C => Self::I32,
            0x0D => Self::F32,
            0x0E => Self::F64,
            _ => return None,
        })
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Size in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The content of an IDX file.
pub(in crate::data) struct IdxArray {
    pub(super) path: PathBuf,
    pub(super) element: Element,
    pub(in crate::data) dims: Vec<usize>,
    /// The unpacked file, with its header.
    pub(super) content: Vec<u8>,
}

/// Length of the header of a file with `rank` axes, in bytes.
fn header_len(rank: usize) -> usize {
    4 + 4 * rank
}

/// Number of bytes that a byte of gzipped data unpacks to, at most.
const MAX_DEFLATE_RATIO: usize = 1032;

impl IdxArray {
    /// Reads a file, which is gzipped if its name ends in `.gz`.
    pub(in crate::data) fn read(path: &Path, advice: &str) -> Result<Self> {
        let packed = read_file(path, advice)?;
        if !is_gzipped(path) {
            return Self::parse(path, packed).map_err(|e| Error::file(path, e, advice));
        }
        let content = unpack(&packed).map_err(|e| Error::file(path, e, advice))?;
        Self::parse(path, content).map_err(|e| Error::file(path, e, advice))
    }

    fn parse(path: &Path, content: Vec<u8>) -> Result<Self, String> {
        let (element, dims) = parse_header(&content)?;
        let len = total_len(element, &dims)
            .ok_or_else(|| format!("is corrupted: its header states the shape {dims:?}"))?;
        if content.len() != len {
            return Err(format!(
                "is truncated or corrupted: its header states the shape {dims:?}, {len} bytes in all, and it has {}",
                content.len()
            ));
        }
        Ok(Self {
            path: path.to_path_buf(),
            element,
            dims,
            content,
        })
    }

    /// The unpacked file, with its header.
    pub(in crate::data) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(in crate::data) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether elements are unsigned bytes.
    pub(in crate::data) fn is_bytes(&self) -> bool {
        self.element == Element::U8
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.content[header_len(self.dims.len())..]
    }

    pub(super) fn integers(&self) -> impl Iterator<Item = i64> + '_ {
        let element = self.element;
        self.bytes()
            .chunks_exact(element.size())
            .map(move |bytes| match (element, bytes) {
                (Element::U8, [byte]) => i64::from(*byte),
                (Element::I8, [byte]) => i64::from(*byte as i8),
                (Element::I16, [a, b]) => i64::from(i16::from_be_bytes([*a, *b])),
                (_, [a, b, c, d]) => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
                _ => 0,
            })
    }

    pub(super) fn floats(&self) -> impl Iterator<Item = f64> + '_ {
        let element = self.element;
        self.bytes()
            .chunks_exact(element.size())
            .map(move |bytes| match (element, bytes) {
                (Element::F32, [a, b, c, d]) => f64::from(f32::from_be_bytes([*a, *b, *c, *d])),
                (_, bytes) => <[u8; 8]>::try_from(bytes).map_or(0.0, f64::from_be_bytes),
            })
    }

    pub(super) fn is_float(&self) -> bool {
        self.element.is_float()
    }

    /// The elements as inputs: unsigned bytes from 0 to 1, other types with their values.
    pub(in crate::data) fn inputs(&self) -> Vec<f32> {
        match self.element {
            Element::U8 => {
                let pixels = self.bytes().iter();
                pixels.map(|&p| f32::from(p) / 255.0).collect()
            }
            Element::F32 | Element::F64 => self.floats().map(|x| x as f32).collect(),
            _ => self.integers().map(|x| x as f32).collect(),
        }
    }

    /// The elements as labels of the samples from `first` on.
    pub(in crate::data) fn labels(&self, first: usize) -> Result<Vec<u32>> {
        let label = |(i, value): (usize, i64)| {
            let problem = || Error::file(&self.path, not_a_label(value, first + i), CLASSES);
            u32::try_from(value).map_err(|_| problem())
        };
        self.integers().enumerate().map(label).collect()
    }
}

/// Advice for labels that are not classes.
const CLASSES: &str = "Number the classes from 0";

/// Unpacks a gzipped IDX file. At most as many bytes are allocated as its header states, and not if the packed data cannot contain
/// that many.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = GzDecoder::new(packed);
    let header = Header::read(&mut decoder, true, packed.len() as u64)?;
    // One more byte than stated, to find out whether there is one. Reading to the end checks the checksum.
    let rest = header.len - header.bytes.len() + 1;
    let mut content = header.bytes;
    let mut rest = decoder.take(rest as u64);
    rest.read_to_end(&mut content).map_err(damaged)?;
    Ok(content)
}

/// The header of an IDX file.
pub(super) struct Header {
    pub(super) bytes: Vec<u8>,
    pub(super) element: Element,
    pub(super) dims: Vec<usize>,
    /// Length of the unpacked file that the header states, in bytes.
    pub(super) len: usize,
}

impl Header {
    /// Reads the header of a file of `size` bytes.
    pub(super) fn read(
        source: &mut impl Read,
        is_gzipped: bool,
        size: u64,
    ) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut take = |bytes: &mut Vec<u8>, count: usize| {
            let mut part = source.take(count as u64);
            part.read_to_end(bytes).map_err(damaged)
        };
        take(&mut bytes, 4)?;
        let rank = bytes.get(3).copied().unwrap_or_default();
        take(&mut bytes, 4 * usize::from(rank))?;
        let (element, dims) = parse_header(&bytes)?;
        let fits = |len: &usize| match is_gzipped {
            true => (len / MAX_DEFLATE_RATIO) as u64 <= size,
            false => *len as u64 == size,
        };
        match total_len(element, &dims).filter(fits) {
            Some(len) => Ok(Self {
                bytes,
                element,
                dims,
                len,
            }),
            None => {
                let size = counted(size as usize, "byte");
                let found = match is_gzipped {
                    true => format!("{size} cannot contain it"),
                    false => format!("it has {size}"),
                };
                Err(format!(
                    "is truncated or corrupted: its header states the shape {dims:?}, and {found}"
                ))
            }
        }
    }
}

pub(super) fn damaged(e: std::io::Error) -> String {
    format!("is truncated or corrupted ({e})")
}

/// The type and the length of each axis.
fn parse_header(content: &[u8]) -> Result<(Element, Vec<usize>), String> {
    let foreign = "is truncated or corrupted: it has no IDX header".to_owned();
    let [0, 0, code, rank, rest @ ..] = content else {
        return Err(foreign);
    };
    let element = Element::from_code(*code).ok_or_else(|| {
        format!("is corrupted: {code:#04x} is not a type of elements of an IDX file")
    })?;
    let (words, _) = rest.as_chunks::<4>();
    let dims = words.get(..usize::from(*rank)).ok_or(foreign)?;
    let dims: Vec<usize> = dims
        .iter()
        .map(|word| u32::from_be_bytes(*word) as usize)
        .collect();
    match dims.is_empty() || dims.contains(&0) {
        true => Err(format!("has no samples: its shape is {dims:?}")),
        false => Ok((element, dims)),
    }
}

/// Length of the whole file in bytes, if it fits into memory.
fn total_len(element: Element, dims: &[usize]) -> Option<usize> {
    let count = dims
        .iter()
        .try_fold(element.size(), |product, dim| product.checked_mul(*dim))?;
    let len = count.checked_add(header_len(dims.len()))?;
    (len <= isize::MAX as usize / 8).then_some(len)
}

pub(in crate::data) fn is_gzipped(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}
