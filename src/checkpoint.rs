//! [`Checkpoint`]: a file from which interrupted work resumes.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::{read_bytes, write_atomically};
use crate::vector::{from_bytes, to_bytes};

/// A checkpoint file: a line with the format version, the key of the work, a SHA-256 of the numbers, the numbers.
pub(crate) struct Checkpoint {
    path: PathBuf,
    key: Key,
}

const NAME: &[u8] = b"loss-landscape checkpoint ";
const VERSION: &[u8] = b"1\n";

/// A hash of everything that determines the results of the work.
pub(crate) type Key = [u8; 32];

/// The key of work whose results depend only on `inputs`.
pub(crate) fn key(task: &str, inputs: &[&[f64]]) -> Key {
    let mut hash = Sha256::new();
    hash.update(task);
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(to_bytes(input));
    }
    hash.finalize().into()
}

/// A 64-bit hash of vectors.
pub(crate) fn fingerprint(vectors: &[&[f64]]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key("", vectors);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Checkpoint {
    pub(crate) fn new(path: &Path, key: Key) -> Self {
        let path = path.to_path_buf();
        Self { path, key }
    }

    /// Returns the numbers that were written last; empty if the file does not exist.
    ///
    /// # Errors
    /// A file that is not a checkpoint, of another version, of other work, or damaged.
    pub(crate) fn read(&self) -> Result<Vec<f64>> {
        let bytes = match read_bytes(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                let error = unusable(&self.path, &format!("cannot be read ({e})"));
                return Err(error.caused_by(e));
            }
        };
        self.parse(&bytes)
            .map_err(|problem| unusable(&self.path, problem))
    }

    fn parse(&self, bytes: &[u8]) -> std::result::Result<Vec<f64>, &'static str> {
        let rest = bytes.strip_prefix(NAME).ok_or("is not a checkpoint")?;
        let rest = rest.strip_prefix(VERSION);
        let rest = rest.ok_or("is a checkpoint of another version of this program")?;
        let (key, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (sum, numbers) = rest.split_first_chunk().ok_or(DAMAGED)?;
        if *key != self.key {
            return Err(OTHER_WORK);
        }
        match *sum == hash(numbers) {
            true => Ok(from_bytes(numbers)),
            false => Err(DAMAGED),
        }
    }

    pub(crate) fn write(&self, numbers: &[f64]) -> Result<()> {
        let numbers = to_bytes(numbers);
        let bytes = [NAME, VERSION, &self.key, &hash(&numbers), &numbers].concat();
        write_atomically(&self.path, "Give a writable path", |part| {
            std::fs::write(part, &bytes)
        })
    }

    /// The error for a valid checkpoint whose content does not fit the work.
    pub(crate) fn misfit(&self) -> Error {
        unusable(&self.path, OTHER_WORK)
    }
}

fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

const DAMAGED: &str = "is damaged";

/// Problem of a file with another key.
pub(crate) const OTHER_WORK: &str = "is a checkpoint of other work: another model, point, direction, grid, dataset, or other settings";

/// The error for a file that cannot be used as a checkpoint.
pub(crate) fn unusable(path: &Path, problem: &str) -> Error {
    Error::file(path, problem, "Give another path, or delete the file")
}
