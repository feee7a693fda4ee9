//! [`Checkpoint`]: where long work stands, in a file, so that it can go on where it was cut off.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::write_whole;

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
        for number in *input {
            hash.update(number.to_le_bytes());
        }
    }
    hash.finalize().into()
}

impl Checkpoint {
    pub(crate) fn new(path: &Path, key: Key) -> Self {
        let path = path.to_path_buf();
        Self { path, key }
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
