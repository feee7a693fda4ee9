//! Tables as files, CSV or Parquet.

use std::fs::File;
use std::path::Path;

use polars::prelude::{CsvWriter, DataFrame, ParquetWriter, PolarsError, SerWriter};

use crate::error::{Error, Result};
use crate::files::{WRITABLE, write_atomically};

/// Writes a table with [`write_atomically`]: as Parquet if the name ends in `.parquet`, else as CSV.
///
/// ```
/// use loss_landscape::tables;
/// use loss_landscape::polars::df;
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("squares.csv");
/// let mut table = df!("n" => [1, 2], "square" => [1, 4])?;
/// tables::write(&path, &mut table)?;
/// assert_eq!(
///     std::fs::read_to_string(&path).unwrap(),
///     "n,square\n1,1\n2,4\n"
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A path that cannot be written.
pub fn write(path: &Path, table: &mut DataFrame) -> Result<()> {
    write_atomically(path, WRITABLE, |part| {
        let file = File::create(part).map_err(PolarsError::from)?;
        match is_parquet(path) {
            true => ParquetWriter::new(file).finish(table).map(drop),
            false => CsvWriter::new(file).finish(table),
        }
    })
}

pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

impl From<PolarsError> for Error {
    fn from(error: PolarsError) -> Self {
        Self::Polars(Box::new(error))
    }
}
