//! Reports and result files of commands.

use loss_landscape::Error;
use loss_landscape::candle::{Device, Tensor};
use loss_landscape::files::{WRITABLE, check_writable, write_atomically, write_tensors};
use loss_landscape::polars::prelude::DataFrame;
use loss_landscape::prelude::{Objective, Parameters, Plane};
use loss_landscape::serde_json::{Value, json};
use loss_landscape::tables;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::dataset::loaded;
use crate::{mpi_context, path_args};

/// The result of a command as text and as JSON.
pub struct Report {
    pub text: String,
    pub json: Value,
}

impl Report {
    /// Adds number of parameters, number of samples and the way derivatives are computed.
    pub fn new(objective: &Objective, mut text: String, mut json: Value) -> Self {
        let samples = objective.samples();
        json["parameters"] = objective.dim().into();
        json["samples"] = samples.into();
        if let Some(all) = loaded().map(|data| data.counts[0]) {
            json["training_samples"] = all.into();
            text += &match samples == all {
                true => format!("all {all} training samples\n"),
                false => format!(
                    "first {samples} of {all} training samples; errors do not include the sampling error\n"
                ),
            };
        }
        let mut report = Self { text, json };
        report.add_engine(objective);
        report.add_dataset();
        report
    }

    /// Adds what the dataset is, if one is loaded.
    pub fn add_dataset(&mut self) {
        if let Some(data) = loaded() {
            self.text += &data.text();
            self.json["dataset"] = data.json();
        }
    }

    /// Adds how derivatives are computed, and why not by the fast rules if they are not.
    pub fn add_engine(&mut self, objective: &Objective) {
        let engine = objective.engine();
        self.text += &format!("derivatives: {engine}\n");
        self.json["hand_derived"] = objective.is_hand_derived().into();
        self.json["engine"] = engine.to_string().into();
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
            // The reader, such as `head`, has closed the pipe.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Error::Invalid(format!("cannot write the report: {e}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// Report for a finished shard while other shards are still running.
pub fn unfinished_report(unfinished: &Error) -> Report {
    Report {
        text: format!("this shard is done; {unfinished}\n"),
        json: json!({ "unfinished": unfinished.to_string() }),
    }
}

/// Prints a line to stderr. Ignores errors such as a closed pipe.
pub fn print_error(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a line about the work to stderr, on the root rank only.
pub fn print_note(line: impl Display) {
    if mpi_context::is_root() {
        print_error(line);
    }
}

/// Formats `x` with `decimals` decimals, or in scientific notation if it is too small or too large for that.
pub fn number(x: f64, decimals: usize) -> String {
    let digits = decimals as i32;
    match x.abs() {
        0.0 => "0".into(),
        size if size >= 10f64.powi(1 - digits) && size < 1e7 => format!("{x:.decimals$}"),
        _ if x.is_finite() => format!("{x:.0$e}", decimals - 1),
        _ => x.to_string(),
    }
}

/// Formats `x` in scientific notation, and zero as 0.
pub fn scientific(x: f64, decimals: usize) -> String {
    match x {
        0.0 => "0".into(),
        _ => format!("{x:.decimals$e}"),
    }
}

/// A path for JSON, lossy if it is not UTF-8.
pub fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// Creates the directory for a command's results. Fails if one of these files or figures cannot be written there.
pub fn prepare_dir(dir: &Path, names: &[&str], figures: &[String]) -> Result<(), Error> {
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::Invalid(format!("cannot create directory {}: {e}", dir.display())))?;
    if !mpi_context::is_root() {
        return Ok(());
    }
    let names = names.iter().copied();
    let mut names = names.chain(figures.iter().map(String::as_str));
    names.try_for_each(|name| check_writable(&dir.join(name), WRITABLE))
}

/// Saves the trained weights; if that fails, saves them elsewhere and returns an error that names the place.
pub fn save_weights(parameters: &Parameters, path: &Path) -> Result<(), Error> {
    let Err(error) = parameters.save(path) else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().display();
    let name = format!("landscape-{}-{name}", std::process::id());
    let candidates = [
        Some(std::env::temp_dir()),
        path_args::home(),
        Some(PathBuf::from(".")),
    ];
    let mut candidates = candidates.into_iter().flatten().map(|dir| dir.join(&name));
    match candidates.find(|path| parameters.save(path).is_ok()) {
        Some(path) => Err(Error::Invalid(format!(
            "{error}. The weights are in {} instead",
            path.display()
        ))),
        None => Err(error),
    }
}

// Only the root rank writes.

pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    write_bytes(path, text.as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if !mpi_context::is_root() {
        return Ok(());
    }
    write_atomically(path, WRITABLE, |part| std::fs::write(part, bytes))
}

/// Writes named arrays to a `.npz` or safetensors file.
pub fn write_arrays(path: &Path, arrays: Vec<(String, Tensor)>) -> Result<(), Error> {
    if !mpi_context::is_root() {
        return Ok(());
    }
    write_tensors(path, WRITABLE, arrays)
}

/// Writes vectors under their names to a safetensors file.
pub fn write_vectors<'a>(
    path: &Path,
    vectors: impl IntoIterator<Item = (String, &'a [f64])>,
) -> Result<(), Error> {
    let tensors = vectors.into_iter().map(|(name, vector)| {
        let tensor = Tensor::from_slice(vector, vector.len(), &Device::Cpu)?;
        Ok((name, tensor))
    });
    write_arrays(path, tensors.collect::<Result<_, Error>>()?)
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

/// Writes surface.csv, .parquet, .npz and .vtk.
pub fn write_plane(dir: &Path, plane: &Plane) -> Result<(), Error> {
    write_table(dir, "surface", &mut plane.table()?)?;
    write_arrays(&dir.join("surface.npz"), plane.arrays()?)?;
    write_bytes(&dir.join("surface.vtk"), &plane.vtk())
}

#[cfg(test)]
mod tests {
    use super::{number, scientific};

    #[test]
    fn zero_has_no_exponent() {
        assert_eq!(scientific(0.0, 1), "0");
        assert_eq!(scientific(-0.0, 1), "0");
        assert_eq!(scientific(1.25e-7, 1), "1.2e-7");
    }

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
