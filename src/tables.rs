//! Tables as files, CSV or Parquet, and as Markdown.

use std::fs::File;
use std::path::Path;

use polars::prelude::{AnyValue, CsvWriter, DataFrame, ParquetWriter, PolarsError, SerWriter};

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

/// Returns a table in Markdown: numbers of five significant digits, aligned right, and nothing for missing values.
///
/// ```
/// use loss_landscape::tables;
/// use loss_landscape::polars::df;
/// use loss_landscape::prelude::*;
///
/// let table = df!("model" => ["deep", "a|b"], "sharpness" => [Some(0.012345678), None])?;
/// let expected = "| model | sharpness |
/// | :--- | ---: |
/// | deep | 0.012346 |
/// | a\\|b |  |
/// ";
/// assert_eq!(tables::markdown(&table)?, expected);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Polars errors.
pub fn markdown(table: &DataFrame) -> Result<String> {
    let columns = table.columns();
    let mut rows = vec![
        columns
            .iter()
            .map(|column| column.name().to_string())
            .collect(),
        columns
            .iter()
            .map(|column| match column.dtype().is_primitive_numeric() {
                true => "---:".into(),
                false => ":---".into(),
            })
            .collect::<Vec<String>>(),
    ];
    for i in 0..table.height() {
        let cells = columns.iter().map(|column| Ok(cell_text(&column.get(i)?)));
        rows.push(cells.collect::<Result<_>>()?);
    }
    let escaped = |cell: &String| cell.replace('|', "\\|").replace(['\n', '\r'], " ");
    let line = |cells: &Vec<String>| {
        let cells: Vec<String> = cells.iter().map(escaped).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    Ok(rows.iter().map(line).collect())
}

/// The text of a cell: nothing if the value is missing, and numbers with five significant digits.
pub(crate) fn cell_text(value: &AnyValue) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float32(x) => digits(f64::from(*x)),
        AnyValue::Float64(x) => digits(*x),
        AnyValue::String(text) => (*text).to_owned(),
        other => other.to_string(),
    }
}

/// Five significant digits, scientific where plain notation would be long.
fn digits(x: f64) -> String {
    let magnitude = x.abs();
    if x == 0.0 || !x.is_finite() {
        format!("{x}")
    } else if !(1e-4..1e6).contains(&magnitude) {
        format!("{x:.3e}")
    } else {
        let before_point = magnitude.log10().floor() as i32 + 1;
        format!("{x:.*}", (5 - before_point).clamp(0, 8) as usize)
    }
}

pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

impl From<PolarsError> for Error {
    fn from(error: PolarsError) -> Self {
        Self::Polars(Box::new(error))
    }
}
