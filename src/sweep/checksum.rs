//! A point's row, sealed by a SHA-256 of itself and the point's other files.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::hex;
use crate::files::parent;

const COLUMN: &str = "sha256";

/// A table of one row in CSV, with the seal as its last column. The files of these names are in `dir`.
pub(super) fn with_checksum(row: &str, dir: &Path, names: &[String]) -> io::Result<String> {
    let row = row.trim_end();
    let seal = seal(row, dir, names)?;
    let (header, row) = row.split_once('\n').unwrap_or_default();
    Ok(format!("{header},{COLUMN}\n{row},{seal}\n"))
}

/// Whether a file of [`sealed`] and those beside it are as they were written.
pub(super) fn is_valid(path: &Path, names: &[String]) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let opened = || {
        let (header, row) = text.strip_suffix('\n')?.split_once('\n')?;
        let header = header.strip_suffix(COLUMN)?.strip_suffix(',')?;
        let (row, found) = row.rsplit_once(',')?;
        let seal = seal(&format!("{header}\n{row}"), parent(path), names).ok()?;
        (seal == found).then_some(())
    };
    opened().is_some()
}

fn seal(row: &str, dir: &Path, names: &[String]) -> io::Result<String> {
    let mut hash = Sha256::new_with_prefix(row);
    for name in names {
        hash.update(name);
        hash.update(Sha256::digest(fs::read(dir.join(name))?));
    }
    Ok(hex(hash))
}
