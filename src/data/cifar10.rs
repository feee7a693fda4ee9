//! CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): 50,000
//! training and 10,000 test photographs of 32 × 32 coloured pixels, in ten classes.
//!
//! Not included in this crate; [`Cifar10::load`] downloads it. The binary version has six files, `data_batch_1.bin` to `data_batch_5.bin` for training and
//! `test_batch.bin`. Each is a sequence of records of 3,073 bytes: the label, then the red, green and blue pixels, each 32
//! rows of 32.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::{Dataset, PublicSet};
use crate::error::{Error, Result};
use crate::files::read;

const PIXELS: usize = 3 * 32 * 32;

const ADVICE: &str = "Give the directory with the six .bin files of the binary version of CIFAR-10, \
                    unpacked from its archive cifar-10-binary.tar.gz";

/// CIFAR-10: images in [0, 1] of shape `(n, 3, 32, 32)` (red, green, blue; rows from the top;
/// columns from the left), `f32`, with labels 0 airplane, 1 automobile, 2 bird, 3 cat, 4 deer, 5
/// dog, 6 frog, 7 horse, 8 ship, 9 truck.
///
/// ```
/// use loss_landscape::data::Cifar10;
/// use loss_landscape::prelude::*;
///
/// // Files with one image each: the label 3 (cat), then 3,072 pixels.
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let record = [vec![3u8], vec![255; 3072]].concat();
/// for name in [
///     "data_batch_1",
///     "data_batch_2",
///     "data_batch_3",
///     "data_batch_4",
///     "data_batch_5",
///     "test_batch",
/// ] {
///     std::fs::write(dir.join(name).with_extension("bin"), &record).unwrap();
/// }
/// let cifar = Cifar10::load_from(dir, &Device::Cpu)?;
/// assert_eq!(cifar.train.inputs().dims(), [5, 3, 32, 32]);
/// assert_eq!(cifar.test.labels()?, [3]);
/// assert_eq!(cifar.test.inputs().max_all()?.to_scalar::<f32>()?, 1.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cifar10 {
    /// The five training batches: 50,000 images.
    pub train: Dataset,
    /// The test batch: 10,000 images.
    pub test: Dataset,
}

impl Cifar10 {
    /// Loads the files in the directory of [`PublicSet::Cifar10`], and downloads them first if they are not there. The training
    /// images are in the order of the download, in which the five batches may be permuted.
    ///
    /// # Errors
    /// As [`PublicSet::fetch`] and [`Cifar10::load_from`].
    pub fn load(device: &Device) -> Result<Self> {
        Self::load_from(PublicSet::Cifar10.find_or_fetch()?, device)
    }

    /// Loads the six files from `dir` or from its subdirectory `cifar-10-batches-bin`, which the archive contains. A file may
    /// contain any number of images.
    ///
    /// # Errors
    /// A file that is missing, empty, truncated or of another format.
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let dir = unpacked(dir.as_ref().to_path_buf());
        let mut train = Images::default();
        for i in 1..=5 {
            train.append(&dir.join(format!("data_batch_{i}.bin")))?;
        }
        let mut test = Images::default();
        test.append(&dir.join("test_batch.bin"))?;
        Ok(Self {
            train: train.dataset(device)?,
            test: test.dataset(device)?,
        })
    }
}

/// The directory with the files: `dir`, or the subdirectory that the archive contains.
pub(super) fn unpacked(dir: PathBuf) -> PathBuf {
    let unpacked = dir.join("cifar-10-batches-bin");
    match unpacked.is_dir() {
        true => unpacked,
        false => dir,
    }
}

#[derive(Default)]
struct Images {
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Images {
    fn append(&mut self, path: &Path) -> Result<()> {
        let bytes = read(path, ADVICE)?;
        if bytes.is_empty() {
            return Err(Error::file(path, "is empty", ADVICE));
        }
        let records = bytes.chunks_exact(1 + PIXELS);
        if !records.remainder().is_empty() {
            let problem = format!(
                "is truncated or of another format ({} bytes, not a multiple of {})",
                bytes.len(),
                1 + PIXELS
            );
            return Err(Error::file(path, problem, ADVICE));
        }
        for (i, record) in records.enumerate() {
            let label = record[0];
            if label > 9 {
                let problem = format!(
                    "is damaged or of another format (image {i} has label {label}; labels are 0 to 9)"
                );
                return Err(Error::file(path, problem, ADVICE));
            }
            self.labels.push(u32::from(label));
            let pixels = record[1..].iter();
            self.pixels.extend(pixels.map(|&p| f32::from(p) / 255.0));
        }
        Ok(())
    }

    fn dataset(self, device: &Device) -> Result<Dataset> {
        let n = self.labels.len();
        Dataset::classification(
            &Tensor::from_vec(self.pixels, (n, 3, 32, 32), device)?,
            &Tensor::from_vec(self.labels, n, device)?,
        )
    }
}
