//! Loading weights: from other programs, from damaged files, and of other models.

mod common;

use std::collections::HashMap;
use std::fs;

use common::numbers;
use loss_landscape::candle::safetensors;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn model() -> Mlp {
    Mlp::new(&[3, 4, 2], Activation::Tanh, 1, &CPU).unwrap()
}

type Tensors = HashMap<String, Tensor>;

/// The tensors of another model of the same shape.
fn tensors() -> Tensors {
    let other = Mlp::new(&[3, 4, 2], Activation::Tanh, 2, &CPU).unwrap();
    let named = other.parameters().iter();
    named
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect()
}

fn theta(model: &Mlp) -> Vec<f64> {
    model.parameters().to_flat().unwrap()
}

/// θ after loading these tensors, or the error. Asserts that an error leaves the model unchanged.
fn loaded(tensors: &Tensors) -> Result<Vec<f64>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    safetensors::save(tensors, &path).unwrap();
    let model = model();
    let before = theta(&model);
    let error = match model.parameters().load(&path) {
        Ok(()) => return Ok(theta(&model)),
        Err(error) => error.to_string(),
    };
    assert_eq!(theta(&model), before);
    assert!(error.contains("w.safetensors: "), "{error}");
    Err(error)
}

fn with(name: &str, tensor: Tensor) -> Tensors {
    let mut tensors = tensors();
    tensors.insert(name.to_owned(), tensor);
    tensors
}

#[test]
fn wrapper_prefixes_and_batch_counters_are_ignored() {
    let expected = loaded(&tensors()).unwrap();
    for prefix in [
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "net.layers.0.bias.",
    ] {
        let named = tensors().into_iter();
        let renamed = named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
        assert_eq!(loaded(&renamed.collect()), Ok(expected.clone()), "{prefix}");
    }
    let counted = with("norm.num_batches_tracked", Tensor::new(7i64, &CPU).unwrap());
    assert_eq!(loaded(&counted), Ok(expected.clone()));
    let halves = tensors().into_iter();
    let halves = halves.map(|(name, t)| (name, t.to_dtype(DType::F16).unwrap()));
    let halves = loaded(&halves.collect()).unwrap();
    common::assert_close(&halves, &expected, 1e-3);
}

#[test]
fn errors_name_the_tensor() {
    let refused = |tensors: &Tensors, words: &[&str]| {
        let error = loaded(tensors).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word} in {error}");
        }
    };
    let integers = Tensor::zeros((4, 3), DType::U8, &CPU).unwrap();
    refused(
        &with("layers.0.weight", integers),
        &["`layers.0.weight` of U8", "cannot hold weights"],
    );
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &CPU).unwrap();
    refused(
        &with("layers.0.weight", zeros(&[3, 4])),
        &["of shape [3, 4], where the model's is [4, 3]; transpose it"],
    );
    let infinite = Tensor::new(&[0f32, f32::NEG_INFINITY], &CPU).unwrap();
    refused(
        &with("layers.1.bias", infinite),
        &["`layers.1.bias` that is not finite: entry 1 of 2 is -inf"],
    );
    // The first names are listed, in alphabetical order.
    let mut many = tensors();
    for i in (0..8).rev() {
        many.insert(format!("more.{i}"), zeros(&[1]));
    }
    refused(
        &many,
        &[
            "tensors `more.0`, `more.1`, `more.2`, `more.3`, `more.4` and 3 more, which the model does not have",
        ],
    );
    let mut half = tensors();
    half.remove("layers.1.bias");
    half.insert("module.layers.1.bias".to_owned(), zeros(&[2]));
    refused(
        &half,
        &[
            "no tensor `layers.1.bias`, and a tensor `module.layers.1.bias`, which the model does not have",
        ],
    );
}

/// A mutated file is either loaded or refused. A refusal leaves the model unchanged.
#[test]
fn mutated_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let model = model();
    model.parameters().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let positions = numbers(1000, 3);
    let mut refused = 0;
    for pair in positions.chunks(2) {
        let at = ((pair[0] + 1.0) / 2.0 * whole.len() as f64) as usize;
        let mut mutated = whole.clone();
        match (pair[1] * 30.0) as i32 {
            0 => mutated.truncate(at),
            1..5 => mutated.extend(&whole[at..]),
            5..10 => drop(mutated.remove(at)),
            change => mutated[at] ^= 1 << (change.unsigned_abs() % 8),
        }
        fs::write(&path, mutated).unwrap();
        let before = theta(&model);
        if model.parameters().load(&path).is_err() {
            refused += 1;
            assert_eq!(theta(&model), before);
        }
    }
    assert!(refused > 100, "{refused}");
}
