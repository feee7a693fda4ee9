//! Files that are whole or not there.

use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use polars::prelude::{CsvWriter, DataFrame, ParquetWriter, PolarsError, SerWriter};

use crate::error::{Error, Result};

/// Lets `write` write to another name beside `path`, and renames that: no reader ever sees half a file, and where
/// something fails `path` is as it was.
///
/// ```
/// use loss_landscape::files::{WRITABLE, write_whole};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("notes.txt");
/// write_whole(&path, WRITABLE, |part| std::fs::write(part, "first"))?;
/// let failed = write_whole(&path, WRITABLE, |part| {
///     std::fs::write(part, "sec").map_err(|e| e.to_string())?;
///     Err("the power went".to_owned())
/// });
/// assert!(matches!(failed, Err(Error::File { .. })));
/// assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of writing and renaming, with `cure` as the way to mend them.
pub fn write_whole<E: Display>(
    path: &Path,
    cure: &str,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let written = write(&part).map_err(|e| e.to_string());
    let written = written.and_then(|()| std::fs::rename(&part, path).map_err(|e| e.to_string()));
    written.map_err(|problem| {
        let _ = std::fs::remove_file(&part);
        Error::file(path, format!("cannot be written ({problem})"), cure)
    })
}

/// What to do about a file in a directory that cannot be written to.
pub const WRITABLE: &str = "Give a directory that is writable and has room";

/// Writes a table as [`write_whole`] does: as Parquet where the name ends so, else as CSV.
///
/// ```
/// use loss_landscape::files::write_table;
/// use loss_landscape::polars::df;
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("squares.csv");
/// let mut table = df!("n" => [1, 2], "square" => [1, 4])?;
/// write_table(&path, &mut table)?;
/// assert_eq!(
///     std::fs::read_to_string(&path).unwrap(),
///     "n,square\n1,1\n2,4\n"
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of writing.
pub fn write_table(path: &Path, table: &mut DataFrame) -> Result<()> {
    write_whole(path, WRITABLE, |part| {
        let file = File::create(part).map_err(PolarsError::from)?;
        match is_parquet(path) {
            true => ParquetWriter::new(file).finish(table).map(drop),
            false => CsvWriter::new(file).finish(table),
        }
    })
}

/// The path with `ending` at its end.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Whether another process has locked the file; if not, this one has now, alone or together with others that do so.
/// There are file systems without locks: there nobody has.
pub(crate) fn is_taken(file: &File, alone: bool) -> bool {
    let locked = match alone {
        true => file.try_lock(),
        false => file.try_lock_shared(),
    };
    matches!(locked, Err(TryLockError::WouldBlock))
}

pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

/// All bytes of the file at `path`.
pub(crate) fn read(path: &Path, cure: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        let problem = match e.kind() {
            ErrorKind::NotFound => "is missing".into(),
            _ => format!("cannot be read ({e})"),
        };
        Error::file(path, problem, cure)
    })
}
