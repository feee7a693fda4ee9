//! Downloads of public datasets by candle-datasets and hf-hub, written in the format of the original files.
//!
//! candle-datasets has loaders of images, and calls hf-hub, which has no time limits, does not show progress, and keeps what it
//! downloads in its own cache. So the download runs on a thread of its own while this one watches the cache.

use std::env;
use std::fs::{self, OpenOptions};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use candle_core::{D, Tensor};
use candle_datasets::vision;

use super::PublicSet;
use super::idx::has_sha256;
use super::mnist::MNIST_SHA256;
use crate::error::{Error, Result};
use crate::files::{LockFile, WRITABLE, is_locked, with_ending, write_atomically};
use crate::progress::{Progress, call_watched, check};

/// Time within which the server must answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a download may make no progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Time between two looks at the cache of hf-hub.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A dataset and its files in a repository.
struct Source {
    task: &'static str,
    /// Name of its directory in the cache of hf-hub.
    repository: &'static str,
    revision: &'static str,
    files: &'static [&'static str],
    /// Downloads the files unless they are in the cache. Returns the contents of the [files](PublicSet::files) of the set, or what
    /// is wrong.
    load: fn() -> Result<Vec<Vec<u8>>, String>,
}

const MNIST: Source = Source {
    task: "download of MNIST",
    repository: "datasets--ylecun--mnist",
    revision: PARQUET,
    files: &["mnist/test/0000.parquet", "mnist/train/0000.parquet"],
    load: || idx_files(vision::mnist::load),
};

const FASHION_MNIST: Source = Source {
    task: "download of Fashion-MNIST",
    repository: "datasets--zalando-datasets--fashion_mnist",
    revision: PARQUET,
    files: &[
        "fashion_mnist/test/0000.parquet",
        "fashion_mnist/train/0000.parquet",
    ],
    load: || idx_files(vision::fashion_mnist::load),
};

const CIFAR10: Source = Source {
    task: "download of CIFAR-10",
    repository: "datasets--cifar10",
    revision: PARQUET,
    files: &[
        "plain_text/test/0000.parquet",
        "plain_text/train/0000.parquet",
    ],
    load: || batches(vision::cifar::load),
};

const TINY_STORIES: Source = Source {
    task: "download of TinyStories",
    repository: "datasets--roneneldan--TinyStories",
    revision: "main",
    files: &["TinyStories-valid.txt"],
    load: stories,
};

/// Revision of a repository with its data as Parquet files.
const PARQUET: &str = "refs/convert/parquet";

/// Number of images in a file of CIFAR-10.
const BATCH: usize = 10_000;

/// Downloads the set, and writes its files to `dir`.
pub(super) fn download(set: PublicSet, dir: &Path) -> Result<()> {
    let source = match set {
        PublicSet::Mnist => MNIST,
        PublicSet::FashionMnist => FASHION_MNIST,
        PublicSet::Cifar10 => CIFAR10,
        PublicSet::TinyStories => TINY_STORIES,
    };
    fs::create_dir_all(dir)
        .map_err(|e| Error::file(dir, format!("cannot be created ({e})"), WRITABLE))?;
    let mut progress = Progress::start(source.task);
    let _lock = lock(dir, &mut progress)?;
    // Another process may have downloaded it in the meantime.
    if set.is_in(dir) {
        return Ok(());
    }
    let cache = Cache::of(&source);
    let is_cached = cache.is_complete();
    if !is_cached && is_offline() {
        return Err(set.missing(dir, "HF_HUB_OFFLINE forbids the download"));
    }
    let mut watch = Watch::new(&cache);
    let load = source.load;
    let files = call_watched(load, || {
        check()?;
        let silent = watch.look(&mut progress);
        match silent.filter(|_| !is_cached) {
            None => Ok(()),
            Some(problem) => Err(set.missing(dir, &problem)),
        }
    })?;
    let damaged = |problem: String| {
        Error::file(
            &cache.repository,
            format!("the download is not {} ({problem})", set.title()),
            "Delete this directory, and try again",
        )
    };
    let files = files.map_err(|problem| match cache.is_complete() {
        true => damaged(problem),
        false => set.missing(dir, &format!("the download failed ({problem})")),
    })?;
    let mut originals = files.iter().zip(MNIST_SHA256);
    if set == PublicSet::Mnist && !originals.all(|(file, sha256)| has_sha256(file, sha256)) {
        return Err(damaged("its SHA-256 hashes differ".into()));
    }
    for (name, file) in set.files().iter().zip(files) {
        check()?;
        write_atomically(&dir.join(name), WRITABLE, |part| fs::write(part, file))?;
    }
    Ok(())
}

/// Waits until no other process downloads the set.
fn lock(dir: &Path, progress: &mut Progress) -> Result<LockFile> {
    let path = with_ending(dir, ".lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file =
        file.map_err(|e| Error::file(&path, format!("cannot be written ({e})"), WRITABLE))?;
    let file = LockFile::new(file);
    while is_locked(&file, true) {
        check()?;
        progress.tick(|| "waiting for another process that downloads it".into());
        sleep(POLL_INTERVAL);
    }
    Ok(file)
}

/// Downloads images. Checks their shapes and numbers, for training and test, and the labels.
fn images(
    load: fn() -> candle_core::Result<vision::Dataset>,
    counts: [usize; 2],
    shape: &[usize],
) -> Result<vision::Dataset, String> {
    // A damaged image makes candle-datasets panic.
    let images = catch_unwind(load).map_err(|_| "one of its images is damaged")?;
    let images = images.map_err(|e| Error::from(e).to_string())?;
    let parts = [
        ("training", &images.train_images, &images.train_labels),
        ("test", &images.test_images, &images.test_labels),
    ];
    for ((part, images, labels), count) in parts.into_iter().zip(counts) {
        let expected = [&[count], shape].concat();
        if images.dims() != expected || labels.dims() != [count] {
            return Err(format!(
                "expected {part} images of shape {expected:?}, found {:?} with labels of shape {:?}",
                images.dims(),
                labels.dims()
            ));
        }
        let labels = labels.to_vec1::<u8>().map_err(|e| e.to_string())?;
        if let Some(label) = labels.iter().find(|label| **label > 9) {
            return Err(format!("label {label} is not in 0 to 9"));
        }
    }
    Ok(images)
}

/// The contents of the four IDX files.
fn idx_files(load: fn() -> candle_core::Result<vision::Dataset>) -> Result<Vec<Vec<u8>>, String> {
    let images = images(load, [60_000, 10_000], &[28 * 28])?;
    let parts = [
        (&images.train_images, &images.train_labels),
        (&images.test_images, &images.test_labels),
    ];
    let mut files = Vec::new();
    for (images, labels) in parts {
        let labels = labels.to_vec1::<u8>().map_err(|e| e.to_string())?;
        files.push(idx(&[labels.len(), 28, 28], &bytes(images)?));
        files.push(idx(&[labels.len()], &labels));
    }
    Ok(files)
}

/// An IDX file of bytes.
fn idx(shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, shape.len() as u8];
    file.extend(shape.iter().flat_map(|n| (*n as u32).to_be_bytes()));
    file.extend(bytes);
    file
}

/// The contents of the six files of the binary version of CIFAR-10.
fn batches(load: fn() -> candle_core::Result<vision::Dataset>) -> Result<Vec<Vec<u8>>, String> {
    let images = images(load, [50_000, 10_000], &[3, 32, 32])?;
    let (train, labels) = (&images.train_images, &images.train_labels);
    let starts = (0..50_000).step_by(BATCH);
    let train = starts.map(|start| {
        batch(
            train.narrow(0, start, BATCH),
            labels.narrow(0, start, BATCH),
        )
    });
    let test = batch(Ok(images.test_images), Ok(images.test_labels));
    train.chain([test]).collect()
}

/// A file of CIFAR-10: for each image its label and its pixels.
fn batch(
    images: candle_core::Result<Tensor>,
    labels: candle_core::Result<Tensor>,
) -> Result<Vec<u8>, String> {
    let parts = || {
        // candle-datasets 0.11.1 returns images with rows and columns swapped. Cargo.toml requires that version.
        let images = images?.transpose(D::Minus2, D::Minus1)?;
        Ok((images, labels?.to_vec1::<u8>()?))
    };
    let (images, labels) = parts().map_err(|e: candle_core::Error| e.to_string())?;
    let pixels = bytes(&images)?;
    let records = labels
        .chunks_exact(1)
        .zip(pixels.chunks_exact(pixels.len() / labels.len()));
    Ok(records
        .flat_map(|(label, pixels)| [label, pixels].concat())
        .collect())
}

/// Pixels in [0, 1] as bytes.
fn bytes(images: &Tensor) -> Result<Vec<u8>, String> {
    let pixels = images
        .flatten_all()
        .and_then(|pixels| pixels.to_vec1::<f32>());
    let pixels = pixels.map_err(|e| e.to_string())?;
    Ok(pixels
        .into_iter()
        .map(|p| (255.0 * p).round() as u8)
        .collect())
}

/// End of a story in the text of TinyStories.
const END_OF_STORY: &str = "<|endoftext|>";

/// A text with fewer stories is not TinyStories, but for example the message of a server.
const FEWEST_STORIES: usize = 1_000;

/// The validation text of TinyStories.
fn stories() -> Result<Vec<Vec<u8>>, String> {
    let text = hf_hub::HFClientSync::new().and_then(|hub| {
        let repository = hub.dataset("roneneldan", "TinyStories");
        let file = repository.download_file();
        let file = file
            .filename(TINY_STORIES.files[0])
            .revision(TINY_STORIES.revision);
        match file.clone().local_files_only(true).send() {
            Err(hf_hub::HFError::LocalEntryNotFound { .. }) => file.send(),
            cached => cached,
        }
    });
    let text = fs::read(text.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let text = String::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    let count = text.matches(END_OF_STORY).count();
    match count >= FEWEST_STORIES {
        true => Ok(vec![text.into_bytes()]),
        false => Err(format!(
            "expected at least {FEWEST_STORIES} stories that end with {END_OF_STORY}, found {count}"
        )),
    }
}

/// The files of a repository in the cache of hf-hub.
struct Cache {
    repository: PathBuf,
    locks: PathBuf,
    revision: &'static str,
    files: &'static [&'static str],
}

impl Cache {
    fn of(source: &Source) -> Self {
        let dir = hub_cache();
        Self {
            repository: dir.join(source.repository),
            locks: dir.join(".locks").join(source.repository),
            revision: source.revision,
            files: source.files,
        }
    }

    /// Whether all files have been downloaded.
    fn is_complete(&self) -> bool {
        let commit = fs::read_to_string(self.repository.join("refs").join(self.revision));
        commit.is_ok_and(|commit| {
            let snapshot = self.repository.join("snapshots").join(commit.trim());
            self.files.iter().all(|file| snapshot.join(file).exists())
        })
    }

    /// Number of downloaded bytes, and time of the last change.
    fn state(&self) -> (u64, Option<SystemTime>) {
        let dirs = [&self.repository.join("blobs"), &self.locks];
        let entries = dirs.into_iter().filter_map(|dir| fs::read_dir(dir).ok());
        let files = entries
            .flatten()
            .filter_map(|entry| entry.ok()?.metadata().ok());
        let state = files.map(|file| (file.len(), file.modified().ok()));
        state.fold((0, None), |(size, last), (len, modified)| {
            (size + len, last.max(modified))
        })
    }
}

/// Directory of the cache of hf-hub, found as hf-hub finds it.
fn hub_cache() -> PathBuf {
    let variable = |name: &str| env::var(name).ok().map(PathBuf::from);
    let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let home = || variable("HF_HOME").map(|home| home.join("hub"));
    let user = || {
        let cache = variable("XDG_CACHE_HOME");
        let home = || variable("HOME").unwrap_or("/tmp".into()).join(".cache");
        cache.unwrap_or_else(home).join("huggingface").join("hub")
    };
    cache.or_else(home).unwrap_or_else(user)
}

/// Whether downloads are turned off by the variable that also turns them off in Python.
fn is_offline() -> bool {
    let value = env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "on", "true", "yes"].contains(&value.to_lowercase().as_str())
}

/// Watches the cache of hf-hub during a download.
struct Watch<'a> {
    cache: &'a Cache,
    start: (u64, Option<SystemTime>),
    last: (u64, Option<SystemTime>),
    last_look: Instant,
    last_change: Instant,
}

impl<'a> Watch<'a> {
    fn new(cache: &'a Cache) -> Self {
        let (start, now) = (cache.state(), Instant::now());
        Self {
            cache,
            start,
            last: start,
            last_look: now,
            last_change: now,
        }
    }

    /// Shows the progress. Returns what is wrong if nothing has changed for too long.
    fn look(&mut self, progress: &mut Progress) -> Option<String> {
        if self.last_look.elapsed() < POLL_INTERVAL {
            return None;
        }
        self.last_look = Instant::now();
        let state = self.cache.state();
        if state != self.last {
            (self.last, self.last_change) = (state, Instant::now());
        }
        let has_answer = state != self.start;
        let megabytes = state.0.saturating_sub(self.start.0) as f64 / 1e6;
        progress.tick(|| match has_answer {
            false => "waiting for an answer".into(),
            true => format!("{megabytes:.1} MB"),
        });
        let silent = self.last_change.elapsed();
        match has_answer {
            false if silent > RESPONSE_TIMEOUT => Some(format!(
                "no server has answered within {} seconds",
                RESPONSE_TIMEOUT.as_secs()
            )),
            true if silent > STALL_TIMEOUT => Some(format!(
                "the download has made no progress for {} minutes",
                STALL_TIMEOUT.as_secs() / 60
            )),
            _ => None,
        }
    }
}
