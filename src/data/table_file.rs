//! Datasets from tables: `.csv` and `.parquet`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::Device;
use polars::prelude::{
    ArrowDataType, CsvReadOptions, DataFrame, ParquetReader, PolarsResult, SerReader,
};

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
        check_separator(path, &bytes)?;
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
        check_once(path, &names)?;
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
        let mut used = schema
            .iter_values()
            .filter(|field| columns.contains(&field.name.to_string()));
        if let Some(field) = used.find(|field| !is_read(field.dtype())) {
            let problem = format!(
                "has a column `{}` of the type {}, which is not read",
                field.name,
                type_name(field.dtype())
            );
            return Err(Error::file(path, problem, CONVERT));
        }
        let frame = table(path, || file.with_columns(Some(columns)).finish())?;
        Ok(Self { frame, inputs })
    }
}

/// Calls polars, whose panics at a damaged file become errors.
fn table<T>(path: &Path, read: impl FnOnce() -> PolarsResult<T>) -> Result<T> {
    let problem = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => return Ok(read),
        // More lines advise on options of polars.
        Ok(Err(e)) => format!(
            "cannot be read ({})",
            e.to_string().lines().next().unwrap_or_default()
        ),
        Err(_) => "cannot be read: it is damaged".to_owned(),
    };
    Err(Error::file(path, problem, ADVICE))
}

/// Advice for a column of another type.
const CONVERT: &str = "Convert it to numbers of 32 or 64 bits, booleans, text or lists of numbers";

/// Whether polars reads columns of a Parquet file that have this type, without the features that this crate leaves out.
fn is_read(dtype: &ArrowDataType) -> bool {
    match dtype {
        ArrowDataType::List(field) | ArrowDataType::LargeList(field) => is_read(field.dtype()),
        ArrowDataType::Null
        | ArrowDataType::Boolean
        | ArrowDataType::Int32
        | ArrowDataType::Int64
        | ArrowDataType::UInt32
        | ArrowDataType::UInt64
        | ArrowDataType::Float32
        | ArrowDataType::Float64
        | ArrowDataType::Utf8
        | ArrowDataType::LargeUtf8
        | ArrowDataType::Utf8View => true,
        _ => false,
    }
}

/// The name of a type, without its parameters.
fn type_name(dtype: &ArrowDataType) -> String {
    let name = format!("{dtype:?}");
    let end = name.find(|c: char| !c.is_alphanumeric());
    name[..end.unwrap_or(name.len())].to_owned()
}

/// Returns an error for a header that is separated by other characters than commas.
fn check_separator(path: &Path, bytes: &[u8]) -> Result<()> {
    let header = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let other = header.iter().find(|byte| b";\t|".contains(byte));
    match other {
        Some(other) if !header.contains(&b',') => {
            let header = String::from_utf8_lossy(header);
            let problem = format!(
                "has the header `{}`, with {:?} in place of commas",
                header.trim_end(),
                char::from(*other)
            );
            Err(Error::file(
                path,
                problem,
                "Separate columns by commas, and write numbers with a decimal point",
            ))
        }
        _ => Ok(()),
    }
}

/// Returns an error for a name of two columns. polars renames the second one.
fn check_once(path: &Path, names: &[&str]) -> Result<()> {
    let twice = names.iter().find_map(|name| {
        let (first, _) = name.rsplit_once("_duplicated_")?;
        names.contains(&first).then_some(first)
    });
    match twice {
        Some(name) => {
            let problem = format!("has two columns `{name}`");
            Err(Error::file(path, problem, "Rename or remove one of them"))
        }
        None => Ok(()),
    }
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
    // pandas writes its index so, by to_csv and to_parquet.
    let is_index = |name: &&str| name.is_empty() || name.starts_with("__index_level_");
    if reader.inputs.is_none()
        && let Some(index) = inputs.iter().find(|name| is_index(name))
    {
        let problem = match index.is_empty() {
            true => "has a column without a name, perhaps the index of pandas".to_owned(),
            false => format!("has the column `{index}`, the index of pandas"),
        };
        let advice = "Write the table with index=False, or name the columns of inputs, on the command line with --inputs";
        return Err(Error::file(path, problem, advice));
    }
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
