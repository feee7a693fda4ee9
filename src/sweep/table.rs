//! Reads tables from CSV or Parquet files, by extension.

use std::fs::File;
use std::path::Path;

use polars::prelude::{CsvReader, DataFrame, ParquetReader, PolarsResult, SerReader};

use crate::error::{Error, Result};
use crate::tables::is_parquet;

pub(super) fn read(path: &Path) -> Result<DataFrame> {
    let by_path = || -> PolarsResult<DataFrame> {
        match is_parquet(path) {
            true => ParquetReader::new(File::open(path)?).finish(),
            // Opened here, since polars requires UTF-8 paths.
            false => CsvReader::new(File::open(path)?).finish(),
        }
    };
    by_path().map_err(|e| {
        let advice = "Give the directory of a sweep with unchanged files";
        Error::file(path, format!("cannot be read ({e})"), advice)
    })
}
