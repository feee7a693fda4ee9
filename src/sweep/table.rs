//! Tables as files, CSV or Parquet by the name's ending.

use std::fs::File;
use std::path::Path;

use polars::prelude::{CsvReadOptions, DataFrame, ParquetReader, PolarsResult, SerReader};

use crate::error::{Error, Result};
use crate::files::is_parquet;

pub(super) fn read(path: &Path) -> Result<DataFrame> {
    let by_path = || -> PolarsResult<DataFrame> {
        match is_parquet(path) {
            true => ParquetReader::new(File::open(path)?).finish(),
            false => CsvReadOptions::default()
                .try_into_reader_with_file_path(Some(path.to_path_buf()))?
                .finish(),
        }
    };
    by_path().map_err(|e| {
        let cure = "Give the directory of a sweep, whose files are as it wrote them";
        Error::file(path, format!("cannot be read ({e})"), cure)
    })
}
