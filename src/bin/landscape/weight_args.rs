//! Flags for the names in files of weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use loss_landscape::Error;
use loss_landscape::import::Matching;
use loss_landscape::prelude::Parameters;
use loss_landscape::serde::Serialize;
use loss_landscape::serde_json::{self, Value};

use crate::output::print_error;
use crate::path_args::path;
use crate::{config_file, mpi_context};

/// Flags that have no effect without a file of weights.
pub const WEIGHTS: [&str; 2] = ["weights-map", "weights-by-order"];

/// How the names in a file of weights are matched to the model's.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct WeightArgs {
    /// JSON or TOML file with the names in the file of weights: for parameters such as "layers.0.weight", or modules such as
    /// "layers.0"
    #[arg(long, value_name = "FILE", value_parser = path())]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    weights_map: Option<PathBuf>,
    /// Match weights of equal shape in their order, whatever their names; prints the pairs
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set)]
    weights_by_order: bool,
}

impl WeightArgs {
    /// Loads the file of weights.
    pub fn load(&self, parameters: &Parameters, weights: &Path) -> Result<(), Error> {
        let mut matching = Matching::default().with_by_order(self.weights_by_order);
        if let Some(path) = &self.weights_map {
            matching = matching.with_map(read_map(path)?);
        }
        let pairs = parameters.load_with(weights, &matching)?;
        if self.weights_by_order && mpi_context::is_root() {
            for (ours, theirs) in pairs {
                print_error(format!("weights: {ours} from {theirs}"));
            }
        }
        Ok(())
    }
}

/// Reads a map of names. Keys with dots, which TOML reads as nested tables, are joined again.
fn read_map(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let wrong = |problem: String| Error::Invalid(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let value: Value = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text).map_err(|e| wrong(format!("is not JSON: {e}")))?,
        false => toml::from_str(&text).map_err(|e| wrong(format!("is not TOML: {e}")))?,
    };
    let mut map = BTreeMap::new();
    match flatten("", &value, &mut map) {
        Ok(()) => Ok(map),
        Err(key) => Err(wrong(format!(
            "the value of `{key}` is not a name: write lines such as \"layers.0\" = \"fc1\""
        ))),
    }
}

/// Collects the names in nested tables, or returns the key of a value that is none.
fn flatten(prefix: &str, value: &Value, map: &mut BTreeMap<String, String>) -> Result<(), String> {
    match value {
        Value::String(name) if !prefix.is_empty() => {
            map.insert(prefix.to_owned(), name.clone());
            Ok(())
        }
        Value::Object(table) => table.iter().try_for_each(|(key, value)| match prefix {
            "" => flatten(key, value, map),
            _ => flatten(&format!("{prefix}.{key}"), value, map),
        }),
        _ => Err(prefix.to_owned()),
    }
}
