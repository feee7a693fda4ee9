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

mod array;
mod files;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use super::mnist::MNIST_SHA256;
use super::{Dataset, StoredSamples, TrainTest};
use crate::error::{Error, Result, counted};
use array::Element;
pub(super) use array::{IdxArray, is_gzipped};
pub(super) use files::{Content, IdxFiles, Part, read_first};
use rows::{IdxRows, ImageRows};

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
    let read = |file: &[PathBuf]| read_first(file, ADVICE);
    let images = |part: Part| -> Result<Option<Images>> {
        let pair = files.pair(part, read)?;
        Ok(pair.map(|[images, labels]| Images {
            images,
            labels,
            first: 0,
        }))
    };
    let train = images(Part::Train)?.ok_or_else(|| no_training_images(dir.as_ref()))?;
    let test = images(Part::Test)?;
    let name = is_mnist(&train, test.as_ref()).then_some("MNIST");
    let test = test.map(|test| test.dataset(device)).transpose()?;
    let samples = TrainTest::new(train.dataset(device)?, test, None, 0)?;
    Ok(TrainTest { name, ..samples })
}

fn no_training_images(dir: &Path) -> Error {
    let problem = "contains no IDX file of training images, such as train-images-idx3-ubyte";
    Error::file(dir, problem, ADVICE)
}

/// Opens the files of [`load_from`] without reading their samples. Returns the training samples, and the test samples if there are
/// test files.
///
/// [`Objective::with_source`](crate::objective::Objective::with_source) reads them in parts. Numbers are converted to `dtype`.
/// A gzipped file is unpacked from its start in each pass over the samples.
///
/// ```
/// use loss_landscape::data::{SampleSource, idx};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let images = [&[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 51, 102, 255]];
/// let labels = [0u8, 0, 8, 1, 0, 0, 0, 2, 1, 0];
/// std::fs::write(dir.join("train-images-idx3-ubyte"), images.concat()).unwrap();
/// std::fs::write(dir.join("train-labels-idx1-ubyte"), labels).unwrap();
/// let (train, test) = idx::open(dir, DType::F64, &Device::Cpu)?;
/// assert_eq!((train.len(), test.is_none()), (2, true));
/// assert_eq!(train.read(1..2)?.labels()?, [0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`load_from`], except for labels, which are checked when they are read; a `dtype` that is not `f32` or `f64`.
pub fn open(
    dir: impl AsRef<Path>,
    dtype: DType,
    device: &Device,
) -> Result<(StoredSamples, Option<StoredSamples>)> {
    let files = IdxFiles::find(dir.as_ref())?;
    let samples = |part: Part| -> Result<Option<StoredSamples>> {
        let pair = files.pair(part, IdxRows::open)?;
        let rows = pair.map(|[images, labels]| ImageRows::new(images, labels));
        let samples = rows.map(|rows| StoredSamples::new(Arc::new(rows?), dtype, device));
        samples.transpose()
    };
    let train = samples(Part::Train)?.ok_or_else(|| no_training_images(dir.as_ref()))?;
    Ok((train, samples(Part::Test)?))
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

/// Images and their labels.
struct Images {
    images: IdxArray,
    labels: IdxArray,
    /// Index of the first image in the file.
    first: usize,
}

impl Images {
    fn dataset(&self, device: &Device) -> Result<Dataset> {
        check_labels(&self.labels.path, self.images.dims[0], &self.labels.dims)?;
        self.samples(device)
            .map_err(|e| e.in_file(self.images.path()))
    }

    /// The samples; errors do not name the file of images.
    fn samples(&self, device: &Device) -> Result<Dataset> {
        let (images, labels) = (&self.images, &self.labels);
        let n = images.dims[0];
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
                let labels = labels.labels(self.first)?;
                Dataset::classification(&inputs, &Tensor::from_vec(labels, n, device)?)
            }
        }
    }
}

/// Returns an error unless labels of this shape are one for each of `n` images.
fn check_labels(path: &Path, n: usize, dims: &[usize]) -> Result<()> {
    match dims == [n] {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{}: expected one label for each of the {}, found the shape {dims:?}",
            path.display(),
            counted(n, "image"),
        ))),
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
