//! Tables as files, CSV or Parquet by the name's ending.

use std::fs::File;
use std::path::Path;

use polars::prelude::{
    CsvReadOptions, CsvWriter, DataFrame, ParquetReader, ParquetWriter, PolarsError, PolarsResult,
    SerReader, SerWriter,
};

use super::directory::WRITABLE;
use crate::error::{Error, Result};

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

pub(super) fn write(path: &Path, table: &mut DataFrame) -> Result<()> {
    let written = File::create(path).map_err(PolarsError::from);
    let written = written.and_then(|file| match is_parquet(path) {
        true => ParquetWriter::new(file).finish(table).map(drop),
        false => CsvWriter::new(file).finish(table),
    });
    written.map_err(|e| Error::file(path, format!("cannot be written ({e})"), WRITABLE))
}

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
