//! CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): 50,000 training and 10,000 test
//! photographs of 32 × 32 coloured pixels, in 100 fine and 20 coarse classes.
//!
//! Not included in this crate. The binary version has the files `train.bin` and `test.bin`. Each is a sequence of records of
//! 3,074 bytes: the coarse label, the fine label, then the red, green and blue pixels, each 32 rows of 32.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::Dataset;
use crate::error::{Error, Result};
use crate::files::read;

const PIXELS: usize = 3 * 32 * 32;

const ADVICE: &str = "Give the directory with train.bin and test.bin of the binary version of CIFAR-100, unpacked from its \
                      archive cifar-100-binary.tar.gz";

/// CIFAR-100: images in [0, 1] of shape `(n, 3, 32, 32)` (red, green, blue; rows from the top; columns from the left), `f32`,
/// with fine labels from 0 to 99 or coarse labels from 0 to 19. Both kinds of datasets share the images' memory.
///
/// ```
/// use loss_landscape::data::Cifar100;
/// use loss_landscape::prelude::*;
///
/// // Files with one image each: coarse label 4, fine label 51, then 3,072 pixels.
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let record = [vec![4u8, 51], vec![255; 3072]].concat();
/// std::fs::write(dir.join("train.bin"), &record).unwrap();
/// std::fs::write(dir.join("test.bin"), &record).unwrap();
/// let cifar = Cifar100::load_from(dir, &Device::Cpu)?;
/// assert_eq!(cifar.train.inputs().dims(), [1, 3, 32, 32]);
/// assert_eq!(cifar.train.labels()?, [51]);
/// assert_eq!(cifar.coarse_test.labels()?, [4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cifar100 {
    /// 50,000 training images with fine labels.
    pub train: Dataset,
    /// 10,000 test images with fine labels.
    pub test: Dataset,
    /// The training images with coarse labels.
    pub coarse_train: Dataset,
    /// The test images with coarse labels.
    pub coarse_test: Dataset,
}

impl Cifar100 {
    /// Loads the two files from `dir` or from its subdirectory `cifar-100-binary`, which the archive contains. A file may contain
    /// any number of images.
    ///
    /// # Errors
    /// A file that is missing, empty, truncated or of another format.
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let mut dir = dir.as_ref().to_path_buf();
        let unpacked = dir.join("cifar-100-binary");
        if unpacked.is_dir() {
            dir = unpacked;
        }
        let [train, coarse_train] = load(&dir.join("train.bin"), device)?;
        let [test, coarse_test] = load(&dir.join("test.bin"), device)?;
        Ok(Self {
            train,
            test,
            coarse_train,
            coarse_test,
        })
    }
}

/// The images of a file with fine and with coarse labels.
fn load(path: &Path, device: &Device) -> Result<[Dataset; 2]> {
    let bytes = read(path, ADVICE)?;
    if bytes.is_empty() {
        return Err(Error::file(path, "is empty", ADVICE));
    }
    let records = bytes.chunks_exact(2 + PIXELS);
    if !records.remainder().is_empty() {
        let problem = format!(
            "is truncated or of another format ({} bytes, not a multiple of {})",
            bytes.len(),
            2 + PIXELS
        );
        return Err(Error::file(path, problem, ADVICE));
    }
    let n = records.len();
    let (mut pixels, mut coarse, mut fine) = (Vec::with_capacity(n * PIXELS), vec![], vec![]);
    for (i, record) in records.enumerate() {
        if record[0] > 19 || record[1] > 99 {
            let problem = format!(
                "is damaged or of another format (image {i} has coarse label {} and fine label {}; they are 0 to 19 and 0 to 99)",
                record[0], record[1]
            );
            return Err(Error::file(path, problem, ADVICE));
        }
        coarse.push(u32::from(record[0]));
        fine.push(u32::from(record[1]));
        pixels.extend(record[2..].iter().map(|&p| f32::from(p) / 255.0));
    }
    let images = Tensor::from_vec(pixels, (n, 3, 32, 32), device)?;
    let dataset = |labels| Dataset::classification(&images, &Tensor::from_vec(labels, n, device)?);
    Ok([dataset(fine)?, dataset(coarse)?])
}
