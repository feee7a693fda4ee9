//! [`PublicSet`]: public datasets, the directories of their files, and their download.

use std::env;
use std::path::{Path, PathBuf};

use super::{cifar10, mnist};
use crate::error::{Error, Result};

/// Directory of the public datasets: `LOSS_LANDSCAPE_DATA`, by default `loss-landscape/data` in `XDG_CACHE_HOME` or in
/// `~/.cache`. Each set has a subdirectory with its [name](PublicSet::name).
///
/// ```
/// use loss_landscape::data::{PublicSet, data_dir};
///
/// let dir = data_dir()?;
/// assert_eq!(PublicSet::FashionMnist.dir()?, dir.join("fashion-mnist"));
/// # Ok::<(), loss_landscape::Error>(())
/// ```
///
/// # Errors
/// The variable is not set, and there is no home directory.
pub fn data_dir() -> Result<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = variable("LOSS_LANDSCAPE_DATA") {
        return Ok(dir.into());
    }
    // A relative XDG_CACHE_HOME is invalid and is ignored.
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.filter(|dir| dir.is_absolute());
    let home = || env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let cache = cache.or_else(|| Some(home()?.join(".cache")));
    let cache = cache.ok_or_else(|| {
        Error::invalid(
            "there is no home directory for downloaded datasets: set LOSS_LANDSCAPE_DATA to a directory",
        )
    })?;
    Ok(cache.join("loss-landscape").join("data"))
}

/// A public dataset.
///
/// ```no_run
/// use loss_landscape::data::PublicSet;
///
/// let dir = PublicSet::FashionMnist.fetch()?;
/// println!("the files are in {}", dir.display());
/// # Ok::<(), loss_landscape::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicSet {
    /// MNIST: see [`Mnist`](super::Mnist).
    Mnist,
    /// Fashion-MNIST: see [`FashionMnist`](super::FashionMnist).
    FashionMnist,
    /// CIFAR-10: see [`Cifar10`](super::Cifar10).
    Cifar10,
    /// The validation text of TinyStories: see [`Text::tiny_stories`](super::Text::tiny_stories).
    TinyStories,
}

/// Files of MNIST and Fashion-MNIST.
const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

impl PublicSet {
    /// All public datasets.
    pub const ALL: [Self; 4] = [
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::TinyStories,
    ];

    /// Name on the command line, and name of its subdirectory of [`data_dir`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::TinyStories => "tinystories",
        }
    }

    /// Name in texts.
    pub fn title(self) -> &'static str {
        match self {
            Self::Mnist => "MNIST",
            Self::FashionMnist => "Fashion-MNIST",
            Self::Cifar10 => "CIFAR-10",
            Self::TinyStories => "TinyStories",
        }
    }

    /// Names of its files. Those of MNIST and Fashion-MNIST may differ as [`idx`](super::idx) states, such as by `.gz`.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Mnist | Self::FashionMnist => &IDX_FILES,
            Self::Cifar10 => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
                "test_batch.bin",
            ],
            Self::TinyStories => &["TinyStories-valid.txt"],
        }
    }

    /// Approximate size of the download in MB.
    pub fn download_megabytes(self) -> u64 {
        match self {
            Self::Mnist | Self::TinyStories => 20,
            Self::FashionMnist => 35,
            Self::Cifar10 => 145,
        }
    }

    /// Its subdirectory of [`data_dir`], which need not exist.
    ///
    /// # Errors
    /// As [`data_dir`].
    pub fn dir(self) -> Result<PathBuf> {
        Ok(data_dir()?.join(self.name()))
    }

    /// Directory that holds all its files: its subdirectory of [`data_dir`], or `data/mnist` in the source directory of this
    /// crate. `None` if neither does.
    pub fn find(self) -> Option<PathBuf> {
        let source = (self == Self::Mnist).then(mnist::included_mnist);
        let mut dirs = self.dir().ok().into_iter().chain(source);
        dirs.find(|dir| self.is_in(dir))
    }

    /// Downloads the set into its subdirectory of [`data_dir`] unless all its files are there. Returns that directory.
    ///
    /// hf-hub downloads Parquet files of images, and the text of TinyStories, into its cache, which keeps them: `HF_HUB_CACHE`, by default
    /// `~/.cache/huggingface/hub`. `HF_ENDPOINT` names another server, `HTTPS_PROXY` a proxy. With `HF_HUB_OFFLINE=1`, only
    /// files in the cache are read. This function writes them in the format of the original files. It compares MNIST with
    /// the SHA-256 hashes of the original files, and counts the images and stories of the other sets. A file is complete or not there.
    /// A call that is interrupted downloads the unfinished file again. If another process downloads the set, the call waits.
    ///
    /// # Errors
    /// No network, with the names of the files to copy by hand; no answer within 30 seconds, or no progress for 10 minutes; a
    /// download that is not the expected dataset; a directory that is not writable; a build without the feature `datasets`;
    /// [`Error::Interrupted`].
    pub fn fetch(self) -> Result<PathBuf> {
        let dir = self.dir()?;
        if !self.is_in(&dir) {
            self.download(&dir)?;
        }
        Ok(dir)
    }

    #[cfg(feature = "datasets")]
    fn download(self, dir: &Path) -> Result<()> {
        super::download::download(self, dir)
    }

    #[cfg(not(feature = "datasets"))]
    fn download(self, dir: &Path) -> Result<()> {
        Err(self.missing(
            dir,
            "it can only be downloaded by a build with the feature `datasets`: compile with --features datasets",
        ))
    }

    /// [`find`](Self::find), or else [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn find_or_fetch(self) -> Result<PathBuf> {
        self.find().map_or_else(|| self.fetch(), Ok)
    }

    /// Whether all its files are in `dir`.
    pub(super) fn is_in(self, dir: &Path) -> bool {
        let have = |dir: &Path| self.files().iter().all(|name| dir.join(name).exists());
        match self {
            Self::Mnist | Self::FashionMnist => mnist::are_in(dir),
            Self::Cifar10 => have(&cifar10::unpacked(dir.to_path_buf())),
            Self::TinyStories => have(dir),
        }
    }

    /// The error for a set that is not in `dir`.
    pub(super) fn missing(self, dir: &Path, problem: &str) -> Error {
        let files = match self.files() {
            [file] => (*file).to_owned(),
            [files @ .., last] => format!("{} and {last}", files.join(", ")),
            [] => String::new(),
        };
        let title = self.title();
        let advice = format!(
            "Copy {files} into this directory, or name another one with LOSS_LANDSCAPE_DATA, or with --data on the command line"
        );
        Error::file(dir, format!("{title} is not here, and {problem}"), advice)
    }
}
