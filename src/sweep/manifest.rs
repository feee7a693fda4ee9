//! The manifest: all settings that determine the results of a sweep.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Sweep;
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};
use crate::memory;
use crate::model::{Model, Parameters};

/// Number of samples hashed at once.
const BATCH: usize = 4096;

/// The manifest as JSON. `model` is untrained.
pub(super) fn manifest(
    sweep: &Sweep,
    model: &impl Model,
    [train, test]: [&Dataset; 2],
) -> Result<String> {
    let parameters = model.parameters();
    let n = parameters.len();
    if sweep.top == 0 || sweep.top > n {
        return Err(Error::invalid(format!(
            "the number of eigenpairs must be from 1 to {n}, found {}",
            sweep.top
        )));
    }
    // Eigenvectors, and a basis of at least as many vectors.
    let numbers = 2.0 * (sweep.jobs.min(sweep.strengths.len()) * sweep.top) as f64 * n as f64;
    memory::check(
        8.0 * numbers,
        &format!("{} and a basis", counted(sweep.top, "eigenvector")),
    )?;
    let mut trainer = json!(sweep.trainer);
    if let Some(trainer) = trainer.as_object_mut() {
        // The sweep replaces them.
        trainer.remove("l2");
        trainer.remove("seed");
    }
    let manifest = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "strengths": sweep.strengths,
        "trainer": trainer,
        "top": sweep.top,
        "tolerance": sweep.tolerance,
        "seed": sweep.seed,
        "tables": sweep.endings().tables,
        "weights": sweep.endings().weights,
        "model": {
            "parameters": n,
            "shapes": shapes(parameters),
            "dtype": parameters.dtype().as_str(),
            "layers": model.layers(),
            "first_weights_sha256": weights_hash(parameters)?,
        },
        "train": { "samples": train.len(), "sha256": data_hash(train)? },
        "test": { "samples": test.len(), "sha256": data_hash(test)? },
    });
    Ok(format!("{manifest:#}\n"))
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| {
        let problem = format!("is not the manifest of a sweep ({e})");
        Error::file(path, problem, "Give another directory")
    })
}

/// Describes a setting that differs between two manifests. Prefers settings to hashes.
pub(super) fn difference(there: &Value, here: &Value) -> Option<String> {
    let mut all = Vec::new();
    differ("", there, here, &mut all);
    all.sort_by_key(|found| found.contains("sha256"));
    all.into_iter().next()
}

fn differ(name: &str, there: &Value, here: &Value, all: &mut Vec<String>) {
    match (there, here) {
        _ if there == here => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let name = format!("{name}{}{key}", if name.is_empty() { "" } else { "." });
                differ(&name, &there[key], &here[key], all);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() != b.len() => {
            all.push(format!(
                "{name} has {} there and {} here",
                counted(a.len(), "entry"),
                b.len()
            ));
        }
        (Value::Array(a), Value::Array(b)) => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{name}.{i}"), a, b, all);
            }
        }
        _ => all.push(format!("{name} is {there} there and {here} here")),
    }
}

/// Shapes by name, such as `[16, 784]`.
fn shapes(parameters: &Parameters) -> BTreeMap<String, String> {
    let shapes = parameters.shapes().into_iter();
    shapes
        .map(|(name, shape)| (name, format!("{shape:?}")))
        .collect()
}

fn weights_hash(parameters: &Parameters) -> Result<String> {
    let mut hash = Sha256::new();
    for number in parameters
        .to_flat()?
        .iter()
        .chain(&parameters.flat_statistics()?)
    {
        hash.update(number.to_le_bytes());
    }
    Ok(hex(hash))
}

fn data_hash(data: &Dataset) -> Result<String> {
    let mut hash = Sha256::new();
    for batch in data.batches(BATCH)? {
        let batch = batch?;
        let (Targets::Labels(targets) | Targets::Values(targets)) = batch.targets();
        let mut bytes = Vec::new();
        batch.inputs().write_bytes(&mut bytes)?;
        targets.write_bytes(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(hex(hash))
}

pub(super) fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
