//! Datasets from tables of polars.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use polars::prelude::{Column, DataFrame, DataType, IntoColumn};

use super::Dataset;
use super::labels::to_labels;
use crate::error::{Error, Result};

impl Dataset {
    /// A dataset from columns of a table. A column of inputs contains numbers, booleans or lists of numbers of one length. The inputs
    /// of a sample are its cells in the order of `inputs`.
    ///
    /// Targets that are integers or booleans are labels, floating-point numbers are values to fit. Texts become labels: classes are
    /// the different texts in sorted order. A list gives several targets to each sample.
    ///
    /// # Shapes
    /// Inputs `(n, features)`: `f64` if a column is, else `f32`.
    ///
    /// ```
    /// use loss_landscape::polars::df;
    /// use loss_landscape::prelude::*;
    ///
    /// let table = df!("width" => [1.0, 2.0, 4.0], "height" => [3, 5, 7], "kind" => ["b", "a", "b"])?;
    /// let data = Dataset::from_frame(&table, &["width", "height"], "kind", &Device::Cpu)?;
    /// assert_eq!(data.inputs().to_vec2::<f64>()?, [[1.0, 3.0], [2.0, 5.0], [4.0, 7.0]]);
    /// assert_eq!(data.labels()?, [1, 0, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// No rows; a column that is missing or of another type; empty cells, text that is no number in a column of inputs, numbers that
    /// are not finite, negative labels, lists of different lengths: the message names row and column. Rows count from 1.
    pub fn from_frame(
        frame: &DataFrame,
        inputs: &[&str],
        targets: &str,
        device: &Device,
    ) -> Result<Self> {
        let inputs: Vec<String> = inputs.iter().map(|&name| name.to_owned()).collect();
        Ok(convert(frame, &inputs, targets, false, device)?.0)
    }
}

/// The dataset in columns of a table, and the names of its classes if targets are text. With `tokens`, inputs are tokens.
pub(super) fn convert(
    frame: &DataFrame,
    inputs: &[String],
    targets: &str,
    tokens: bool,
    device: &Device,
) -> Result<(Dataset, Option<Vec<String>>)> {
    if frame.height() == 0 {
        return Err(Error::invalid("the table has no rows"));
    }
    let inputs = join(frame, inputs, tokens, device)?;
    let targets = cells(column(frame, targets)?)?;
    let dims = targets.dims(frame.height());
    Ok(match &targets.values {
        Values::Integers(values) => {
            let labels =
                to_labels(values.iter().copied()).map_err(|_| targets.negative("label"))?;
            let labels = Tensor::from_vec(labels, dims, device)?;
            (Dataset::classification(&inputs, &labels)?, None)
        }
        Values::Floats(values) => {
            let values = Tensor::from_slice(values, dims, device)?;
            (Dataset::regression(&inputs, &values)?, None)
        }
        Values::Texts(texts) => {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            check_classes(&texts, &targets.name)?;
            let (labels, names) = from_texts(&texts);
            let labels = Tensor::from_vec(labels, dims, device)?;
            (Dataset::classification(&inputs, &labels)?, Some(names))
        }
    })
}

fn column<'a>(frame: &'a DataFrame, name: &str) -> Result<&'a Column> {
    frame.column(name).map_err(|_| {
        let names = frame.get_column_names();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        Error::invalid(no_column(name, &names))
    })
}

/// The error for a column that is missing in a table with these columns.
pub(super) fn no_column(name: &str, found: &[&str]) -> String {
    const SHOWN: usize = 12;
    let shown = found.iter().take(SHOWN).map(|name| format!("`{name}`"));
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if found.len() > SHOWN {
        shown += &format!(" and {} more", found.len() - SHOWN);
    }
    format!("has no column `{name}`; its columns are {shown}")
}

/// The columns of inputs as one tensor `(n, features)`.
fn join(frame: &DataFrame, names: &[String], tokens: bool, device: &Device) -> Result<Tensor> {
    let columns = names.iter().map(|name| {
        let cells = cells(column(frame, name)?)?;
        match tokens {
            true => cells.tokens(),
            false => cells.numbers(),
        }
    });
    let columns = columns.collect::<Result<Vec<Numbers>>>()?;
    let (rows, width) = (
        frame.height(),
        columns.iter().map(|column| column.width).sum(),
    );
    if width == 0 {
        return Err(Error::invalid("no column of inputs is named"));
    }
    let mut values = vec![0.0; rows * width];
    let mut offset = 0;
    for column in &columns {
        let cells = column.values.chunks_exact(column.width);
        for (row, cells) in values.chunks_exact_mut(width).zip(cells) {
            row[offset..offset + column.width].copy_from_slice(cells);
        }
        offset += column.width;
    }
    let dtype = match (tokens, columns.iter().any(|column| column.is_double)) {
        (true, _) => DType::U32,
        (false, true) => DType::F64,
        (false, false) => DType::F32,
    };
    Ok(Tensor::from_vec(values, (rows, width), device)?.to_dtype(dtype)?)
}

/// The cells of a column, row by row.
struct Cells {
    name: String,
    /// Length of the lists, if cells are lists.
    list: Option<usize>,
    is_double: bool,
    values: Values,
}

enum Values {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// A column of inputs as numbers, row by row.
struct Numbers {
    width: usize,
    is_double: bool,
    values: Vec<f64>,
}

fn at(row: usize, column: &str, problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("row {}, column `{column}`: {problem}", row + 1))
}

impl Cells {
    fn width(&self) -> usize {
        self.list.unwrap_or(1)
    }

    fn dims(&self, rows: usize) -> Vec<usize> {
        [Some(rows), self.list].into_iter().flatten().collect()
    }

    /// The error for the first negative or too large integer.
    fn negative(&self, what: &str) -> Error {
        let Values::Integers(values) = &self.values else {
            return Error::invalid(format!("column `{}` has no integers", self.name));
        };
        let is_wrong = |value: &i64| u32::try_from(*value).is_err();
        let at_value = values.iter().position(is_wrong).unwrap_or_default();
        let problem = format!(
            "{} is not a {what}: {what}s are the integers 0, 1, 2, …",
            values[at_value]
        );
        at(at_value / self.width(), &self.name, problem)
    }

    fn numbers(self) -> Result<Numbers> {
        let (width, is_double) = (self.width(), self.is_double);
        let values = match self.values {
            Values::Integers(values) => values.into_iter().map(|x| x as f64).collect(),
            Values::Floats(values) => values,
            Values::Texts(texts) => {
                let number = |(i, text): (usize, &String)| {
                    let number = text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
                    number.ok_or_else(|| {
                        let problem = format!("`{text}` is not a number");
                        at(i / width, &self.name, problem)
                    })
                };
                texts
                    .iter()
                    .enumerate()
                    .map(number)
                    .collect::<Result<_>>()?
            }
        };
        Ok(Numbers {
            width,
            is_double,
            values,
        })
    }

    fn tokens(self) -> Result<Numbers> {
        let Values::Integers(values) = &self.values else {
            return Err(Error::invalid(format!(
                "column `{}` cannot be tokens: they are integers",
                self.name
            )));
        };
        match values.iter().any(|value| u32::try_from(*value).is_err()) {
            true => Err(self.negative("token")),
            false => self.numbers(),
        }
    }
}

fn cells(column: &Column) -> Result<Cells> {
    let name = column.name().to_string();
    let is_double = matches!(leaf(column.dtype()), DataType::Float64 | DataType::String);
    let mut list = None;
    let values = match column.dtype() {
        DataType::List(_) => {
            let lists = column.list()?;
            let mut all: Option<Values> = None;
            for row in 0..lists.len() {
                let cell = lists.get_as_series(row);
                let cell = cell.ok_or_else(|| at(row, &name, "the cell is empty"))?;
                let expected = *list.get_or_insert(cell.len());
                if cell.len() != expected || expected == 0 {
                    let problem = format!(
                        "the list has {} values, and that of row 1 has {expected}: lists need one length, at least 1",
                        cell.len()
                    );
                    return Err(at(row, &name, problem));
                }
                let cell = cell.into_column();
                let values = scalars(&cell, &name, |_| row)?;
                match (&mut all, values) {
                    (Some(Values::Integers(all)), Values::Integers(more)) => all.extend(more),
                    (Some(Values::Floats(all)), Values::Floats(more)) => all.extend(more),
                    (Some(Values::Texts(_)), _) | (_, Values::Texts(_)) => {
                        return Err(at(row, &name, "a list of text cannot be read"));
                    }
                    (all, values) => *all = Some(values),
                }
            }
            all.unwrap_or(Values::Floats(Vec::new()))
        }
        _ => scalars(column, &name, |i| i)?,
    };
    Ok(Cells {
        name,
        list,
        is_double,
        values,
    })
}

/// The type of the values in lists of any depth.
fn leaf(dtype: &DataType) -> &DataType {
    match dtype {
        DataType::List(inner) => leaf(inner),
        dtype => dtype,
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

/// The error for the first text that is not a number.
fn not_a_number(texts: &[&str], column: &str) -> Error {
    let row = texts.iter().position(|text| number(text).is_none());
    let row = row.unwrap_or_default();
    at(row, column, format!("`{}` is not a number", texts[row]))
}

/// Texts that mark a missing value, in lower case.
const MISSING: [&str; 6] = ["", "na", "n/a", "nan", "none", "null"];

/// Returns an error for missing classes, and for fractions beside other texts: then values to fit are missing.
fn check_classes(texts: &[&str], column: &str) -> Result<()> {
    let is_missing = |text: &&str| MISSING.contains(&text.to_lowercase().as_str());
    if let Some(row) = texts.iter().position(is_missing) {
        return Err(at(row, column, format!("`{}` is not a class", texts[row])));
    }
    let is_fraction = |text: &&str| number(text).is_some() && text.parse::<i64>().is_err();
    match texts.iter().any(is_fraction) {
        true => Err(not_a_number(texts, column)),
        false => Ok(()),
    }
}

/// The labels that texts stand for, and the text of each class. Classes are the different texts in sorted order.
fn from_texts<'a>(texts: &[&'a str]) -> (Vec<u32>, Vec<String>) {
    let names: BTreeSet<&'a str> = texts.iter().copied().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let class = |text: &&str| names.partition_point(|name| name < text) as u32;
    let labels = texts.iter().map(class).collect();
    (labels, names.into_iter().map(str::to_owned).collect())
}

/// The values of a column without lists. `row` is the row of its i-th value in the table.
fn scalars(column: &Column, name: &str, row: impl Fn(usize) -> usize) -> Result<Values> {
    let empty = |i: usize| at(row(i), name, "the cell is empty");
    match column.dtype() {
        DataType::String => {
            let texts = column.str()?.iter().enumerate();
            let texts = texts.map(|(i, text)| text.map(str::trim).ok_or_else(|| empty(i)));
            let texts: Vec<&str> = texts.collect::<Result<_>>()?;
            // Quoted numbers are numbers.
            let integers: Option<Vec<i64>> = texts.iter().map(|text| text.parse().ok()).collect();
            let floats = || texts.iter().map(|text| number(text)).collect();
            if let Some(integers) = integers {
                return Ok(Values::Integers(integers));
            }
            if let Some(floats) = floats() {
                return Ok(Values::Floats(floats));
            }
            Ok(Values::Texts(
                texts.into_iter().map(str::to_owned).collect(),
            ))
        }
        dtype if dtype.is_float() => {
            let column = column.cast(&DataType::Float64)?;
            let numbers = column.f64()?.iter().enumerate();
            let numbers = numbers.map(|(i, number)| match number {
                None => Err(empty(i)),
                Some(number) if number.is_finite() => Ok(number),
                Some(number) => Err(Error::NotFinite(
                    at(row(i), name, format!("{number} is not finite")).to_string(),
                )),
            });
            Ok(Values::Floats(numbers.collect::<Result<_>>()?))
        }
        dtype if dtype.is_integer() || dtype.is_bool() => {
            // An integer that is too large becomes an empty cell.
            let integers = column.cast(&DataType::Int64)?;
            let is_empty = column.is_null();
            let integers = integers.i64()?.iter().enumerate().map(|(i, integer)| {
                integer.ok_or_else(|| match is_empty.get(i) {
                    Some(false) => at(row(i), name, "the integer is larger than 2⁶³ − 1"),
                    _ => empty(i),
                })
            });
            Ok(Values::Integers(integers.collect::<Result<_>>()?))
        }
        DataType::Null => Err(empty(0)),
        dtype => Err(Error::invalid(format!(
            "column `{name}` has type {dtype}: expected numbers, booleans, text or lists of numbers"
        ))),
    }
}
