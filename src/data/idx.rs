//! IDX files, the format of MNIST and its relatives: Fashion-MNIST, KMNIST, EMNIST, QMNIST's images.
//!
//! A file has a header of big-endian numbers, two zero bytes, the type of the elements, the number of axes and the length of each
//! axis, and then the elements. It can be gzipped.
//!
//! | file | names |
//! | --- | --- |
//! | training images and labels | `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` |
//! | test images and labels | `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, or `test` instead of `t10k` |
//!
//! Names can have a prefix (`emnist-letters-train-images-idx3-ubyte`), a dot before `idx` as on Kaggle
//! (`train-images.idx3-ubyte`), and the ending `.gz`. A file can also be in a directory of its own name.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::labels::to_labels;
use super::mnist::MNIST_SHA256;
use super::{Dataset, TrainTest};
use crate::error::{Error, Result, counted};
use crate::files::{parent, read as read_file, unreadable};

/// Reads the four IDX files in `dir`; the module documentation lists their names. Without test files, the test samples are the
/// training samples. If `dir` is not a directory, its last component is the prefix of the files' names.
///
/// Images of shape `(n, height, width)` become inputs `(n, 1, height, width)`; other shapes stay. Unsigned bytes are divided by
/// 255, other types keep their values, all as `f32`. Images are not turned: EMNIST stores them transposed. Integer labels become
/// classes, floating-point labels values to fit.
///
/// # Errors
/// A file that is missing, truncated, longer than its header states or of another format; two files for the same part; images and
/// labels that differ in number; negative labels; labels that are not one number per image.
pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<TrainTest> {
    let files = IdxFiles::find(dir.as_ref())?;
    let train = files.read(Part::Train)?.ok_or_else(|| {
        let problem = "contains no IDX file of training images, such as train-images-idx3-ubyte";
        Error::file(dir.as_ref(), problem, ADVICE)
    })?;
    let test = files.read(Part::Test)?;
    let name = is_mnist(&train, test.as_ref()).then_some("MNIST");
    let test = test.map(|test| test.dataset(device)).transpose()?;
    let samples = TrainTest::new(train.dataset(device)?, test, None, 0)?;
    Ok(TrainTest { name, ..samples })
}

/// Reads one IDX file, gzipped or not, as a tensor of its shape. Unsigned bytes stay `u8`, other integers become `i64`, and
/// floating-point numbers stay `f32` or `f64`.
///
/// ```
/// use loss_landscape::data::idx;
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("matrix.idx2");
/// // Two axes of 1 and 2 16-bit integers.
/// let bytes = [0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 255, 255];
/// std::fs::write(&path, bytes).unwrap();
/// let matrix = idx::read(&path, &Device::Cpu)?;
/// assert_eq!(matrix.to_vec2::<i64>()?, [[7, -1]]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A file that is missing, truncated, longer than its header states or of another format.
pub fn read(path: impl AsRef<Path>, device: &Device) -> Result<Tensor> {
    let array = IdxArray::read(path.as_ref(), ADVICE)?;
    let dims = array.dims.clone();
    let bytes = array.bytes();
    Ok(match array.element {
        Element::U8 => Tensor::from_slice(bytes, dims, device)?,
        Element::I8 | Element::I16 | Element::I32 => {
            Tensor::from_vec(array.integers().collect::<Vec<_>>(), dims, device)?
        }
        Element::F32 => {
            let values = array.floats().map(|x| x as f32);
            Tensor::from_vec(values.collect::<Vec<_>>(), dims, device)?
        }
        Element::F64 => Tensor::from_vec(array.floats().collect::<Vec<_>>(), dims, device)?,
    })
}

const ADVICE: &str = "Give a directory with IDX files of images and labels, such as train-images-idx3-ubyte and \
                      train-labels-idx1-ubyte, gzipped or not";

/// Type of the elements of an IDX file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
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

    /// Size in bytes.
    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The content of an IDX file.
pub(super) struct IdxArray {
    path: PathBuf,
    element: Element,
    pub(super) dims: Vec<usize>,
    /// The unpacked file, with its header.
    content: Vec<u8>,
}

/// Length of the header of a file with `rank` axes, in bytes.
fn header_len(rank: usize) -> usize {
    4 + 4 * rank
}

/// Number of bytes that a byte of gzipped data unpacks to, at most.
const MAX_DEFLATE_RATIO: usize = 1032;

impl IdxArray {
    /// Reads a file, which is gzipped if its name ends in `.gz`.
    pub(super) fn read(path: &Path, advice: &str) -> Result<Self> {
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
    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether elements are unsigned bytes.
    pub(super) fn is_bytes(&self) -> bool {
        self.element == Element::U8
    }

    fn bytes(&self) -> &[u8] {
        &self.content[header_len(self.dims.len())..]
    }

    fn integers(&self) -> impl Iterator<Item = i64> + '_ {
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

    fn floats(&self) -> impl Iterator<Item = f64> + '_ {
        let element = self.element;
        self.bytes()
            .chunks_exact(element.size())
            .map(move |bytes| match (element, bytes) {
                (Element::F32, [a, b, c, d]) => f64::from(f32::from_be_bytes([*a, *b, *c, *d])),
                (_, bytes) => <[u8; 8]>::try_from(bytes).map_or(0.0, f64::from_be_bytes),
            })
    }

    fn is_float(&self) -> bool {
        matches!(self.element, Element::F32 | Element::F64)
    }

    /// The elements as inputs: unsigned bytes from 0 to 1, other types with their values.
    pub(super) fn inputs(&self) -> Vec<f32> {
        match self.element {
            Element::U8 => {
                let pixels = self.bytes().iter();
                pixels.map(|&p| f32::from(p) / 255.0).collect()
            }
            Element::F32 | Element::F64 => self.floats().map(|x| x as f32).collect(),
            _ => self.integers().map(|x| x as f32).collect(),
        }
    }

    /// The elements as labels.
    pub(super) fn labels(&self) -> Result<Vec<u32>> {
        to_labels(self.integers())
            .map_err(|e| Error::Invalid(format!("{}: {e}", self.path.display())))
    }
}

/// Unpacks a gzipped IDX file. At most as many bytes are allocated as its header states, and not if the packed data cannot contain
/// that many.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = |e: std::io::Error| format!("is truncated or corrupted ({e})");
    let mut decoder = GzDecoder::new(packed);
    let mut content = Vec::new();
    let mut take = |content: &mut Vec<u8>, count: usize| {
        let mut part = (&mut decoder).take(count as u64);
        part.read_to_end(content).map_err(damaged)
    };
    take(&mut content, 4)?;
    let rank = content.get(3).copied().unwrap_or_default();
    take(&mut content, 4 * usize::from(rank))?;
    let (element, dims) = parse_header(&content)?;
    let len = total_len(element, &dims)
        .filter(|len| len / MAX_DEFLATE_RATIO <= packed.len())
        .ok_or_else(|| {
            format!(
                "is truncated or corrupted: its header states the shape {dims:?}, and {} cannot contain it",
                counted(packed.len(), "byte")
            )
        })?;
    // One more byte than stated, to find out whether there is one. Reading to the end checks the checksum.
    take(&mut content, len + 1 - header_len(dims.len()))?;
    Ok(content)
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

/// Training or test samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Train,
    Test,
}

/// Images or labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Images,
    Labels,
}

/// The IDX files of a directory.
pub(super) struct IdxFiles {
    dir: PathBuf,
    /// The paths of each part and content under its name without `.gz` and dots: the unpacked file, then the gzipped one.
    found: BTreeMap<(Part, Content), BTreeMap<String, Vec<PathBuf>>>,
}

impl IdxFiles {
    pub(super) fn find(dir: &Path) -> Result<Self> {
        let (dir, prefix) = match (dir.is_dir(), dir.file_name()) {
            (false, Some(name)) if parent(dir).is_dir() => {
                (parent(dir), name.to_string_lossy().to_lowercase())
            }
            _ => (dir, String::new()),
        };
        let mut files = Self {
            dir: dir.to_path_buf(),
            found: BTreeMap::new(),
        };
        let entries: std::io::Result<Vec<_>> = fs::read_dir(dir).and_then(Iterator::collect);
        let mut entries = entries.map_err(|e| unreadable(dir, e, ADVICE))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for path in entries.iter().map(fs::DirEntry::path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.to_lowercase().starts_with(&prefix) {
                continue;
            }
            match path.is_dir() {
                // Archives of Kaggle unpack to a directory for each file.
                true => files.add(path.join(name.as_ref())),
                false => files.add(path),
            }
        }
        Ok(files)
    }

    fn add(&mut self, path: PathBuf) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase().replace('.', "-");
        let stem = name.strip_suffix("-gz").unwrap_or(&name).to_owned();
        let content = match (stem.contains("image"), stem.contains("label")) {
            (true, false) => Content::Images,
            (false, true) => Content::Labels,
            _ => return,
        };
        if !stem.contains("-idx") || !path.is_file() {
            return;
        }
        let part = match stem.contains("t10k") || stem.contains("test") {
            true => Part::Test,
            false => Part::Train,
        };
        let is_unpacked = stem.len() == name.len();
        let paths = self.found.entry((part, content)).or_default();
        let paths = paths.entry(stem).or_default();
        let known = paths.iter().any(|path| is_gzipped(path) != is_unpacked);
        match (known, is_unpacked) {
            (true, _) => {}
            (false, true) => paths.insert(0, path),
            (false, false) => paths.push(path),
        }
    }

    /// The paths of the only file of a part and content, unpacked before gzipped.
    pub(super) fn only(&self, part: Part, content: Content) -> Result<Option<&[PathBuf]>> {
        let Some(found) = self.found.get(&(part, content)) else {
            return Ok(None);
        };
        if found.len() > 1 {
            let names: Vec<&str> = found.keys().map(String::as_str).collect();
            let problem = format!("contains several datasets: {}", names.join(", "));
            let advice = "Keep one dataset in a directory, or add the prefix of the names to the path, such as \
                          DIR/emnist-letters";
            return Err(Error::file(&self.dir, problem, advice));
        }
        Ok(found.values().next().map(Vec::as_slice))
    }

    /// The images and labels of a part; `None` if there are no files of it.
    fn read(&self, part: Part) -> Result<Option<Images>> {
        let file = |content: Content| -> Result<Option<IdxArray>> {
            let found = self.only(part, content)?;
            found.map(|paths| read_first(paths, ADVICE)).transpose()
        };
        let (images, labels) = (file(Content::Images)?, file(Content::Labels)?);
        match (images, labels) {
            (Some(images), Some(labels)) => Ok(Some(Images { images, labels })),
            (None, None) => Ok(None),
            (Some(images), None) => Err(Error::file(
                &images.path,
                "has no file of labels beside it",
                ADVICE,
            )),
            (None, Some(labels)) => Err(Error::file(
                &labels.path,
                "has no file of images beside it",
                ADVICE,
            )),
        }
    }
}

/// Reads the first of an unpacked and a gzipped file.
pub(super) fn read_first(paths: &[PathBuf], advice: &str) -> Result<IdxArray> {
    IdxArray::read(&paths[0], advice).map_err(|error| {
        let gzipped = paths.get(1).map(|path| IdxArray::read(path, advice));
        match (error, gzipped) {
            (Error::File { path, problem, .. }, Some(Ok(_))) => {
                let advice = "Delete it: the next load reads its .gz instead";
                Error::file(&path, problem, advice)
            }
            (error, _) => error,
        }
    })
}

pub(super) fn is_gzipped(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}

/// Images and their labels.
struct Images {
    images: IdxArray,
    labels: IdxArray,
}

impl Images {
    fn dataset(&self, device: &Device) -> Result<Dataset> {
        let (images, labels) = (&self.images, &self.labels);
        let n = images.dims[0];
        if labels.dims != [n] {
            return Err(Error::invalid(format!(
                "{}: expected one label for each of the {}, found the shape {:?}",
                labels.path.display(),
                counted(n, "image"),
                labels.dims
            )));
        }
        let dims = match images.dims[..] {
            [n] => vec![n, 1],
            [n, height, width] => vec![n, 1, height, width],
            _ => images.dims.clone(),
        };
        let inputs = Tensor::from_vec(images.inputs(), dims, device)?;
        match labels.is_float() {
            true => {
                let values: Vec<f32> = labels.floats().map(|x| x as f32).collect();
                Dataset::regression(&inputs, &Tensor::from_vec(values, n, device)?)
            }
            false => {
                Dataset::classification(&inputs, &Tensor::from_vec(labels.labels()?, n, device)?)
            }
        }
        .map_err(|e| e.in_file(images.path()))
    }
}

/// Whether the files are those of MNIST. Small files are compared first.
fn is_mnist(train: &Images, test: Option<&Images>) -> bool {
    let [train_images, train_labels, test_images, test_labels] = MNIST_SHA256;
    test.is_some_and(|test| {
        has_sha256(test.labels.content(), test_labels)
            && has_sha256(train.labels.content(), train_labels)
            && has_sha256(test.images.content(), test_images)
            && has_sha256(train.images.content(), train_images)
    })
}

pub(super) fn has_sha256(content: &[u8], sha256: &str) -> bool {
    let digest = Sha256::digest(content);
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    found == sha256
}
