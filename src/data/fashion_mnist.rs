//! Fashion-MNIST (Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
//! 2017): 60,000 training and 10,000 test images of clothes, 28 × 28 grey pixels, in files of MNIST's format.
//!
//! Not included in this crate; [`FashionMnist::load`] downloads it.

use std::path::Path;

use candle_core::Device;

use super::{Dataset, Mnist, PublicSet};
use crate::error::{Error, Result};

/// Fashion-MNIST: images flattened to 784 pixels in [0, 1], `f32`, with labels 0 T-shirt, 1 trousers, 2 pullover, 3 dress, 4 coat,
/// 5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot.
///
/// ```no_run
/// use loss_landscape::data::FashionMnist;
/// use loss_landscape::prelude::*;
///
/// let fashion = FashionMnist::load(&Device::Cpu)?;
/// assert_eq!(fashion.train.inputs().dims(), [60_000, 784]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FashionMnist {
    /// 60,000 training images.
    pub train: Dataset,
    /// 10,000 test images.
    pub test: Dataset,
}

impl FashionMnist {
    /// Loads the files in the directory of [`PublicSet::FashionMnist`], and downloads them first if they are not there.
    ///
    /// # Errors
    /// As [`PublicSet::fetch`] and [`FashionMnist::load_from`].
    pub fn load(device: &Device) -> Result<Self> {
        Self::load_from(PublicSet::FashionMnist.find_or_fetch()?, device)
    }

    /// Loads the four files from `dir`. They have the names of MNIST's files, listed in [`idx`](super::idx).
    ///
    /// # Errors
    /// A file that is missing, truncated, corrupted or of another shape; the files of MNIST.
    pub fn load_from(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let Mnist { train, test, name } = Mnist::load_from(&dir, device)?;
        match name {
            None => Ok(Self { train, test }),
            Some(name) => Err(Error::file(
                dir.as_ref(),
                format!("contains {name}, not Fashion-MNIST"),
                "Give the directory of Fashion-MNIST",
            )),
        }
    }
}
