//! Checksum of a point: a SHA-256 of its row and its other files, stored in the row.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::hex;
use crate::files::parent;

const COLUMN: &str = "sha256";

/// Appends the checksum to a CSV table of one row. The files `names` are in `dir`.
pub(super) fn with_checksum(row: &str, dir: &Path, names: &[String]) -> io::Result<String> {
    let row = row.trim_end();
    let sum = checksum(row, dir, names)?;
    let (header, row) = row.split_once('\n').unwrap_or_default();
    Ok(format!("{header},{COLUMN}\n{row},{sum}\n"))
}

/// Whether a file written by [`with_checksum`] and the files next to it are unchanged.
pub(super) fn is_valid(path: &Path, names: &[String]) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let verified = || {
        let (header, row) = text.strip_suffix('\n')?.split_once('\n')?;
        let header = header.strip_suffix(COLUMN)?.strip_suffix(',')?;
        let (row, found) = row.rsplit_once(',')?;
        let sum = checksum(&format!("{header}\n{row}"), parent(path), names).ok()?;
        (sum == found).then_some(())
    };
    verified().is_some()
}

fn checksum(row: &str, dir: &Path, names: &[String]) -> io::Result<String> {
    let mut hash = Sha256::new_with_prefix(row);
    for name in names {
        hash.update(name);
        hash.update(Sha256::digest(fs::read(dir.join(name))?));
    }
    Ok(hex(hash))
}
