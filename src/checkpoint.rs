//! [`Checkpoint`]: what long work has found so far, in a file, so that it can go on where it was cut off.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::progress::Progress;

/// How often the file is written, at most.
const EVERY: Duration = Duration::from_secs(1);

/// A file that belongs to one piece of work: its first bytes are a hash of what the work depends on.
pub(crate) struct Checkpoint {
    path: PathBuf,
    key: [u8; 32],
}

impl Checkpoint {
    /// For work that depends on nothing but `inputs`.
    pub(crate) fn new(path: &Path, task: &str, inputs: &[&[f64]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(task);
        for input in inputs {
            hash.update((input.len() as u64).to_le_bytes());
            for number in *input {
                hash.update(number.to_le_bytes());
            }
        }
        Self {
            path: path.to_path_buf(),
            key: hash.finalize().into(),
        }
    }

    pub(crate) fn read<const N: usize>(&self) -> Result<Vec<[f64; N]>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.unusable(&format!("cannot be read ({e})"))),
        };
        match bytes.strip_prefix(&self.key) {
            Some(values) if values.len() % (8 * N) == 0 => {
                let (numbers, _) = values.as_chunks::<8>();
                let numbers: Vec<f64> = numbers.iter().map(|b| f64::from_le_bytes(*b)).collect();
                Ok(numbers.as_chunks::<N>().0.to_vec())
            }
            _ => Err(self.unusable(
                "holds the beginning of other work: another model, point, direction, grid, dataset, or other settings",
            )),
        }
    }

    pub(crate) fn write<const N: usize>(&self, values: &[[f64; N]]) -> Result<()> {
        let numbers = values.as_flattened().iter().flat_map(|v| v.to_le_bytes());
        let bytes: Vec<u8> = self.key.into_iter().chain(numbers).collect();
        write_whole(&self.path, "Give a path that is writable", |part| {
            std::fs::write(part, &bytes)
        })
    }

    fn unusable(&self, problem: &str) -> Error {
        Error::file(&self.path, problem, "Give another path, or remove it")
    }
}

/// `work` on the items 0 … `count`, `together` at a time, with progress. Where there is a checkpoint, what its file
/// holds is not done again, and the file is kept up to date, at the latest when all is done or `work` fails.
pub(crate) fn in_parts<const N: usize>(
    task: &'static str,
    count: usize,
    together: usize,
    checkpoint: Option<&Checkpoint>,
    mut work: impl FnMut(Range<usize>) -> Result<Vec<[f64; N]>>,
) -> Result<Vec<[f64; N]>> {
    let mut done = match checkpoint {
        Some(checkpoint) => checkpoint.read()?,
        None => Vec::with_capacity(count),
    };
    done.truncate(count);
    let mut progress = Progress::start(task);
    let mut written = Instant::now();
    while done.len() < count {
        let some = done.len()..(done.len() + together).min(count);
        let found = work(some);
        if let Ok(found) = &found {
            done.extend(found);
            progress.part(done.len(), count);
        }
        if let Some(checkpoint) = checkpoint
            && (found.is_err() || done.len() == count || written.elapsed() > EVERY)
        {
            checkpoint.write(&done)?;
            written = Instant::now();
        }
        found?;
    }
    Ok(done)
}
