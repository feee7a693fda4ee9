//! Datasets from tables: `.csv` and `.parquet`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::Device;
use polars::prelude::{CsvReadOptions, DataFrame, ParquetReader, PolarsResult, SerReader};

use super::frame::{convert, no_column};
use super::reader::NAMES;
use super::{DataReader, TrainTest};
use crate::error::{Error, Result};
use crate::files;
use crate::tables::is_parquet;

pub(super) fn read(reader: &DataReader, path: &Path, device: &Device) -> Result<TrainTest> {
    let bytes = files::read(path, ADVICE)?;
    let Table { frame, inputs } = match is_parquet(path) {
        true => Table::from_parquet(reader, path, bytes)?,
        false => Table::from_csv(reader, path, bytes)?,
    };
    if frame.height() == 0 {
        return Err(Error::file(path, "has no rows", ADVICE));
    }
    let tokens = reader.tokens.unwrap_or(false);
    let convert = || {
        let (data, class_names) = convert(&frame, &inputs, reader.targets(), tokens, device)?;
        let samples = reader.join(data, None)?;
        Ok(TrainTest {
            class_names,
            ..samples
        })
    };
    convert().map_err(|e: Error| e.in_file(path))
}

const ADVICE: &str = "Give a table with a row for each sample, and columns of numbers, booleans, text or lists of numbers";

/// A table with the columns of inputs and targets, and perhaps others.
struct Table {
    frame: DataFrame,
    /// Names of the columns of inputs.
    inputs: Vec<String>,
}

impl Table {
    fn from_csv(reader: &DataReader, path: &Path, mut bytes: Vec<u8>) -> Result<Self> {
        bytes.truncate(bytes.trim_ascii_end().len());
        let is_header = !bytes.contains(&b'\n');
        if is_header {
            return Err(Error::file(path, "has no rows", ADVICE));
        }
        if let Some(ragged) = first_ragged_row(&bytes) {
            let problem = format!(
                "row {} has {} fields, and the header has {}",
                ragged.row, ragged.fields, ragged.expected
            );
            return Err(Error::file(path, problem, ADVICE));
        }
        // The types of columns depend on all rows.
        let options = CsvReadOptions::default().with_infer_schema_length(None);
        let frame = table(path, || {
            let reader = options.into_reader_with_file_handle(Cursor::new(bytes));
            reader.finish()
        })?;
        let names = frame.get_column_names();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let inputs = inputs(reader, path, &names)?;
        Ok(Self { frame, inputs })
    }

    /// Reads only the columns of inputs and targets.
    fn from_parquet(reader: &DataReader, path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let mut file = ParquetReader::new(Cursor::new(bytes));
        let schema = table(path, || file.schema())?;
        let names: Vec<&str> = schema.iter_names().map(|name| name.as_str()).collect();
        let inputs = inputs(reader, path, &names)?;
        let mut columns = inputs.clone();
        columns.push(reader.targets().to_owned());
        columns.sort_unstable();
        columns.dedup();
        let frame = table(path, || file.with_columns(Some(columns)).finish())?;
        Ok(Self { frame, inputs })
    }
}

/// Calls polars, whose panics at a damaged file become errors.
fn table<T>(path: &Path, read: impl FnOnce() -> PolarsResult<T>) -> Result<T> {
    let problem = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(e)) => format!("cannot be read ({e})"),
        Err(_) => "cannot be read: it is damaged".to_owned(),
    };
    Err(Error::file(path, problem, ADVICE))
}

/// The names of the columns of inputs, in a table with these columns.
fn inputs(reader: &DataReader, path: &Path, found: &[&str]) -> Result<Vec<String>> {
    let targets = reader.targets();
    let inputs: Vec<&str> = match &reader.inputs {
        Some(names) => names.iter().map(String::as_str).collect(),
        None if found.contains(&"inputs") => vec!["inputs"],
        None => found
            .iter()
            .copied()
            .filter(|name| *name != targets)
            .collect(),
    };
    let mut names = inputs.iter().chain([&targets]);
    if let Some(missing) = names.find(|name| !found.contains(name)) {
        return Err(Error::file(path, no_column(missing, found), NAMES));
    }
    Ok(inputs.iter().map(|&name| name.to_owned()).collect())
}

/// A row of a CSV file with another number of fields than the header.
struct Ragged {
    /// Counts from 1, without the header.
    row: usize,
    fields: usize,
    expected: usize,
}

fn first_ragged_row(bytes: &[u8]) -> Option<Ragged> {
    let (mut row, mut expected) = (0, None);
    let (mut fields, mut is_quoted) = (1, false);
    for byte in bytes.iter().chain(b"\n") {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => fields += 1,
            b'\n' if !is_quoted => {
                let expected = *expected.get_or_insert(fields);
                if fields != expected {
                    return Some(Ragged {
                        row,
                        fields,
                        expected,
                    });
                }
                (row, fields) = (row + 1, 1);
            }
            _ => {}
        }
    }
    None
}
