//! ONNX files through the library's public interface and on the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use loss_landscape::import::{Onnx, OnnxSettings};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/onnx")
        .join(name)
}

fn refusal(path: &Path, settings: &OnnxSettings) -> String {
    let error = Onnx::load_with(path, settings, &Device::Cpu).unwrap_err();
    error.to_string()
}

#[test]
fn inputs_and_parameters_are_those_of_the_export() {
    let model = Onnx::load(fixture("vgg.onnx"), &Device::Cpu).unwrap();
    let summary = model.summary();
    assert_eq!(model.sample_shape(), [3, 16, 16]);
    assert_eq!(summary.output_shape, [10]);
    let first = summary
        .parameters
        .iter()
        .find(|parameter| parameter.initialiser == "features.0.weight");
    assert_eq!(first.unwrap().shape, [4, 3, 3, 3]);
    assert_eq!(summary.num_parameters, model.parameters().len());
    assert!(summary.to_string().contains("features.0.weight"));
    let tokens = Onnx::load(fixture("gpt_sdpa.onnx"), &Device::Cpu).unwrap();
    assert!(tokens.reads_tokens() && tokens.sample_shape() == [10]);
}

#[test]
fn batch_normalisation_has_running_statistics() {
    let model = Onnx::load(fixture("resnet18.onnx"), &Device::Cpu).unwrap();
    let statistics = model.summary().statistics;
    assert_eq!(statistics.len(), 40);
    let mean = ("bn1.running_mean".to_owned(), vec![4]);
    assert!(statistics.contains(&mean));
}

#[test]
fn patterns_narrow_the_parameters() {
    let path = fixture("mlp.onnx");
    let settings = OnnxSettings::default().with_parameters("4, *.bias");
    let model = Onnx::load_with(&path, &settings, &Device::Cpu).unwrap();
    let summary = model.summary();
    let names: Vec<_> = summary.parameters.iter().map(|p| &p.initialiser).collect();
    assert_eq!(names, ["0.bias", "2.bias", "4.bias", "4.weight"]);
    let unknown = refusal(&path, &settings.with_parameters("head"));
    assert!(
        unknown.contains("`head`") && unknown.contains("0.weight"),
        "{unknown}"
    );
}

#[test]
fn operators_and_shapes_that_do_not_fit_are_refused_by_name() {
    let settings = OnnxSettings::default();
    let lstm = refusal(&fixture("lstm.onnx"), &settings);
    assert!(
        lstm.contains("`LSTM` of node `/lstm/LSTM` is not supported"),
        "{lstm}"
    );
    let settings = settings.with_sample_shape([20]);
    let shape = refusal(&fixture("mlp.onnx"), &settings);
    assert!(shape.contains("(12), not (20,)"), "{shape}");
    let model = Onnx::load(fixture("mlp.onnx"), &Device::Cpu).unwrap();
    let x = Tensor::zeros((2, 7), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward(&x).unwrap_err().to_string();
    assert!(error.contains("(7,)") && error.contains("(12,)"), "{error}");
    let tokens = Tensor::zeros((2, 12), DType::U32, &Device::Cpu).unwrap();
    let error = model.forward(&tokens).unwrap_err().to_string();
    assert!(error.contains("tokens"), "{error}");
    let image = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(model.forward(&image).unwrap().dims(), [2, 5]);
}

#[test]
fn tokens_of_another_shape_are_reshaped() {
    let model = Onnx::load(fixture("gpt_sdpa.onnx"), &Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..40).map(|i| i * i % 7).collect();
    let rows = Tensor::from_vec(tokens, (4, 10), &Device::Cpu).unwrap();
    let folded = rows.reshape((4, 2, 5)).unwrap();
    let outputs = [&rows, &folded].map(|x| model.forward(x).unwrap());
    assert_eq!(outputs[0].dims(), outputs[1].dims());
    let difference = (&outputs[0] - &outputs[1]).unwrap().abs().unwrap();
    assert_eq!(
        difference.max_all().unwrap().to_scalar::<f32>().unwrap(),
        0.0
    );
    let gradient = |x: &Tensor| {
        let data = Dataset::classification(x, &rows).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        assert!(objective.is_hand_derived(), "{}", objective.engine());
        objective.gradient().unwrap()
    };
    assert_eq!(gradient(&rows), gradient(&folded));
}

/// Writes integer inputs and labels as NumPy's uncompressed arrays.
fn integers(path: &Path, inputs: &Tensor, labels: &Tensor) {
    Tensor::write_npz(&[("inputs", inputs), ("targets", labels)], path).unwrap();
}

#[test]
fn integers_are_values_or_tokens_as_the_model_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.npz");
    let hvp = |model: &str| {
        let data = path.to_str().unwrap();
        let model = fixture(model);
        let model = model.to_str().unwrap();
        let arguments = [
            "hvp",
            "--runs",
            "1",
            "--json",
            "--dataset",
            data,
            "--model",
            model,
        ];
        let output = landscape(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let numbers = |count: u32, below: u32| (0..count).map(move |i| i * i % below);
    let pixels = numbers(6 * 3 * 16 * 16, 251).map(|x| x as u8);
    let pixels = Tensor::from_iter(pixels, &Device::Cpu).unwrap();
    let labels = Tensor::from_iter(0..6u32, &Device::Cpu).unwrap();
    integers(&path, &pixels.reshape((6, 3, 16, 16)).unwrap(), &labels);
    let found = hvp("vgg.onnx");
    assert_eq!(found["hand_derived"], true);
    // The pixels are no classes.
    assert_eq!(found["dataset"]["classes"], 6);
    let tokens = Tensor::from_iter(numbers(40, 7).map(i64::from), &Device::Cpu).unwrap();
    let tokens = tokens.reshape((4, 10)).unwrap();
    integers(&path, &tokens, &tokens);
    assert_eq!(hvp("gpt_sdpa.onnx")["samples"], 4);
}

/// A copy of a model whose values are in another file, with a part of its bytes replaced.
fn with_external_data(old: &[u8], new: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.onnx");
    let mut bytes = std::fs::read(fixture("vgg.onnx")).unwrap();
    let places: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|i| bytes[*i..].starts_with(old))
        .collect();
    assert!(!places.is_empty() && old.len() == new.len());
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn values_in_other_files_must_be_complete_and_beside_the_model() {
    let settings = OnnxSettings::default();
    let (dir, path) = with_external_data(b"vgg.onnx.data", b"vgg.onnx.data");
    let missing = refusal(&path, &settings);
    assert!(missing.contains("vgg.onnx.data"), "{missing}");
    let data = std::fs::read(fixture("vgg.onnx.data")).unwrap();
    let beside = dir.path().join("vgg.onnx.data");
    std::fs::write(&beside, &data).unwrap();
    assert!(Onnx::load(&path, &Device::Cpu).is_ok());
    std::fs::write(&beside, &data[..data.len() - 1]).unwrap();
    let short = refusal(&path, &settings);
    assert!(short.contains("bytes at"), "{short}");
    let (dir, path) = with_external_data(b"vgg.onnx.data", b"../onnx.data1");
    let outside = dir.path().parent().unwrap().join("onnx.data1");
    std::fs::write(&outside, &data).unwrap();
    let escape = refusal(&path, &settings);
    std::fs::remove_file(outside).unwrap();
    assert!(
        escape.contains("not in the directory of the model"),
        "{escape}"
    );
}

#[test]
fn damaged_files_are_errors() {
    let whole = std::fs::read(fixture("vit_class_token.onnx")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.onnx");
    for len in (0..whole.len()).step_by(997) {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = refusal(&path, &OnnxSettings::default());
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }
    let missing = refusal(&dir.path().join("none.onnx"), &OnnxSettings::default());
    assert!(missing.contains("is missing"), "{missing}");
}

fn landscape(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command.args(arguments).output().unwrap()
}

#[test]
fn the_command_line_inspects_and_refuses_files() {
    let path = fixture("mlp.onnx");
    let path = path.to_str().unwrap();
    let output = landscape(&["inspect", path, "--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        summary["num_parameters"],
        12 * 24 + 24 + 24 * 16 + 16 + 16 * 5 + 5
    );
    assert_eq!(summary["operators"]["Gemm"], 3);
    let text = landscape(&["inspect", path]).stdout;
    assert!(String::from_utf8(text).unwrap().contains("0.weight"));
    let refused = |arguments: &[&str]| {
        let output = landscape(arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let hvp = ["hvp", "--dataset", "synthetic", "--model"];
    let shapes = refused(&[&hvp[..], &[path]].concat());
    assert!(shapes.contains("(12), not (20,)"), "{shapes}");
    let layers = refused(&[&hvp[..], &[path, "--layers", "12,5"]].concat());
    assert!(
        layers.contains("the ONNX file states the network"),
        "{layers}"
    );
    let unknown = refused(&[&hvp[..], &["nlp"]].concat());
    assert!(unknown.contains("mlp"), "{unknown}");
    let parameters = refused(&[&hvp[..], &["mlp", "--parameters", "head"]].concat());
    assert!(parameters.contains("only ONNX files"), "{parameters}");
}
