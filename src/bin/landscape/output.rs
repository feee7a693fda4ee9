//! What a command says and writes at its end.

use loss_landscape::Error;
use loss_landscape::candle::{Device, Tensor};
use loss_landscape::files::{WRITABLE, check_writable, write_atomically, write_tensors};
use loss_landscape::polars::prelude::DataFrame;
use loss_landscape::prelude::{Objective, Parameters};
use loss_landscape::serde_json::{Value, json};
use loss_landscape::tables;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::network_args::TRAINING_SAMPLES;
use crate::{mpi_context, path_args};

/// The result of a command, for people and for programs.
pub struct Report {
    pub text: String,
    pub json: Value,
}

impl Report {
    /// Of an objective: adds its size, its share of the training samples, and how its derivatives are computed.
    pub fn of(objective: &Objective, mut text: String, mut json: Value) -> Self {
        let samples = objective.samples();
        json["parameters"] = objective.dim().into();
        json["samples"] = samples.into();
        if let Some(all) = TRAINING_SAMPLES.get() {
            json["training_samples"] = (*all).into();
            text += &match samples == *all {
                true => format!("on all {all} training samples\n"),
                false => format!(
                    "on the first {samples} of {all} training samples; errors do not include the sampling error\n"
                ),
            };
        }
        json["hand_derived"] = objective.is_hand_derived().into();
        if !objective.is_hand_derived() {
            text += "by candle's automatic differentiation\n";
        }
        Self { text, json }
    }

    pub fn print(&self, json: bool) -> Result<(), Error> {
        if !mpi_context::is_root() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let printed = match json {
            true => writeln!(out, "{}", self.json),
            false => writeln!(out, "{}", self.text.trim_end()),
        };
        match printed {
            // Whoever was reading, such as `head`, has had enough.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Error::Invalid(format!("the report cannot be written: {e}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// What a shard says whose work is done while others' is not.
pub fn unfinished_report(unfinished: &Error) -> Report {
    Report {
        text: format!("this shard is done; {unfinished}\n"),
        json: json!({ "unfinished": unfinished.to_string() }),
    }
}

/// A line on standard error. Work does not end because nobody reads it.
pub fn print_error(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// With so many decimals, or in scientific notation where these would show nothing of it or more digits than are known.
pub fn number(x: f64, decimals: usize) -> String {
    let digits = decimals as i32;
    match x.abs() {
        0.0 => "0".into(),
        size if size >= 10f64.powi(1 - digits) && size < 1e7 => format!("{x:.decimals$}"),
        _ if x.is_finite() => format!("{x:.0$e}", decimals - 1),
        _ => x.to_string(),
    }
}

/// A path in JSON, which has no place for bytes that are not UTF-8.
pub fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes the directory for a command's results, and refuses one in which a file of these names cannot be written.
pub fn prepare_dir(dir: &Path, names: &[&str]) -> Result<(), Error> {
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::Invalid(format!("{} cannot be made: {e}", dir.display())))?;
    if !mpi_context::is_root() {
        return Ok(());
    }
    names
        .iter()
        .try_for_each(|name| check_writable(&dir.join(name), WRITABLE))
}

/// Saves the weights of a training that is over; where that fails, in another place that the error names.
pub fn save_weights(parameters: &Parameters, path: &Path) -> Result<(), Error> {
    let Err(error) = parameters.save(path) else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().display();
    let name = format!("landscape-{}-{name}", std::process::id());
    let places = [
        Some(std::env::temp_dir()),
        path_args::home(),
        Some(PathBuf::from(".")),
    ];
    let mut places = places.into_iter().flatten().map(|dir| dir.join(&name));
    match places.find(|place| parameters.save(place).is_ok()) {
        Some(place) => Err(Error::Invalid(format!(
            "{error}. The weights are in {} instead",
            place.display()
        ))),
        None => Err(error),
    }
}

// Of several ranks one writes.

pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    if !mpi_context::is_root() {
        return Ok(());
    }
    write_atomically(path, WRITABLE, |part| std::fs::write(part, text))
}

/// Writes vectors under their names to a safetensors file.
pub fn write_vectors<'a>(
    path: &Path,
    vectors: impl IntoIterator<Item = (String, &'a [f64])>,
) -> Result<(), Error> {
    if !mpi_context::is_root() {
        return Ok(());
    }
    let tensors = vectors.into_iter().map(|(name, vector)| {
        let tensor = Tensor::from_slice(vector, vector.len(), &Device::Cpu)?;
        Ok((name, tensor))
    });
    write_tensors(path, WRITABLE, tensors.collect::<Result<Vec<_>, Error>>()?)
}

/// Writes `name`.csv and `name`.parquet.
pub fn write_table(dir: &Path, name: &str, table: &mut DataFrame) -> Result<(), Error> {
    if !mpi_context::is_root() {
        return Ok(());
    }
    for ending in ["csv", "parquet"] {
        tables::write(&dir.join(format!("{name}.{ending}")), table)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn small_and_large_numbers_keep_their_digits() {
        for (x, decimals, expected) in [
            (1.12535e-6, 6, "1.12535e-6"),
            (-5e-23, 6, "-5.00000e-23"),
            (0.0, 6, "0"),
            (-0.0, 5, "0"),
            (2.345678, 6, "2.345678"),
            (-0.25, 5, "-0.25000"),
            (0.00123, 4, "0.0012"),
            (0.00099, 4, "9.900e-4"),
            (123456.789, 2, "123456.79"),
            (1e300, 5, "1.0000e300"),
            (f64::NAN, 4, "NaN"),
            (f64::NEG_INFINITY, 4, "-inf"),
        ] {
            assert_eq!(number(x, decimals), expected, "{x}");
        }
    }
}
