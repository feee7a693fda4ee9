//! [`Checkpoint`]: where long work stands, in a file, so that it can go on where it was cut off.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::vector::{from_bytes, to_bytes};

/// A file that belongs to one piece of work: its first bytes are the work's key.
pub(crate) struct Checkpoint {
    path: PathBuf,
    key: Key,
}

/// A hash of what work depends on.
pub(crate) type Key = [u8; 32];

/// For work that depends on nothing but `inputs`.
pub(crate) fn key(task: &str, inputs: &[&[f64]]) -> Key {
    let mut hash = Sha256::new();
    hash.update(task);
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(to_bytes(input));
    }
    hash.finalize().into()
}

/// A hash of some vectors that fits into a number.
pub(crate) fn fingerprint(vectors: &[&[f64]]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key("", vectors);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Checkpoint {
    pub(crate) fn new(path: &Path, key: Key) -> Self {
        let path = path.to_path_buf();
        Self { path, key }
    }

    /// What was written last; nothing, if nothing was.
    pub(crate) fn read(&self) -> Result<Vec<f64>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unusable(&self.path, &format!("cannot be read ({e})"))),
        };
        match bytes.strip_prefix(&self.key) {
            Some(numbers) if numbers.len() % 8 == 0 => Ok(from_bytes(numbers)),
            _ => Err(unusable(&self.path, OTHER_WORK)),
        }
    }

    pub(crate) fn write(&self, numbers: &[f64]) -> Result<()> {
        let bytes = [&self.key[..], &to_bytes(numbers)].concat();
        write_whole(&self.path, "Give a path that is writable", |part| {
            std::fs::write(part, &bytes)
        })
    }
}

/// What is the matter with a file whose key is another.
pub(crate) const OTHER_WORK: &str = "holds the beginning of other work: another model, point, direction, grid, dataset, or other settings";

/// A file for unfinished work that cannot be one.
pub(crate) fn unusable(path: &Path, problem: &str) -> Error {
    Error::file(path, problem, "Give another path, or remove it")
}
