//! Loading weights: from other programs, from damaged files, and of other models.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{error_of, landscape, numbers};
use loss_landscape::candle::safetensors;
use loss_landscape::files::{WRITABLE, write_tensors};
use loss_landscape::import::Matching;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;

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
        &[
            "does not fit the model: 1 tensor has another shape. Transpose the tensors of the file that are marked",
            "layers.0.weight [4, 3]  layers.0.weight [3, 4]  transposed?",
        ],
    );
    refused(
        &with("layers.0.weight", zeros(&[5, 3])),
        &[
            "1 tensor has another shape. Build the model with the sizes of the file",
            "layers.0.weight [4, 3]  layers.0.weight [5, 3]",
        ],
    );
    let infinite = Tensor::new(&[0f32, f32::NEG_INFINITY], &CPU).unwrap();
    refused(
        &with("layers.1.bias", infinite),
        &["`layers.1.bias` that is not finite: entry 1 of 2 is -inf"],
    );
    let missing = Tensor::new(&[f32::NAN, 0.0], &CPU).unwrap();
    refused(
        &with("layers.1.bias", missing),
        &["`layers.1.bias` that is not finite: entry 0 of 2 is NaN"],
    );
    let large = Tensor::new(&[1e300, 0.0], &CPU).unwrap();
    refused(
        &with("layers.1.bias", large),
        &["`layers.1.bias` with a number too large for F32: entry 0 of 2 is 1e300"],
    );
    // At most 20 rows are listed.
    let mut many = tensors();
    for i in (10..35).rev() {
        many.insert(format!("more.{i}"), zeros(&[1]));
    }
    refused(
        &many,
        &[
            "25 tensors of the file have no partner in the model",
            "  -      more.10 [1]\n  -      more.11 [1]\n",
            "  -      more.29 [1]\n  and 5 more",
        ],
    );
    let mut half = tensors();
    half.remove("layers.1.bias");
    half.insert("module.layers.1.bias".to_owned(), zeros(&[2]));
    refused(
        &half,
        &[
            "1 tensor (`layers.1.bias`) of the model has no partner in the file, 1 tensor (`module.layers.1.bias`) of the \
             file has no partner in the model",
            "layers.1.bias [2]  module.layers.1.bias [2]",
            "--weights-map FILE",
        ],
    );
    refused(
        &Tensors::new(),
        &["4 tensors of the model have no partner in the file"],
    );
}

/// θ of the perceptron that tests/weights/make.py writes.
fn theirs() -> Vec<f64> {
    let numbers = |position: usize, len: usize| {
        (0..len).map(move |i| (i as f64 - 3.0) / 8.0 + position as f64)
    };
    // layers.0.bias, layers.0.weight, layers.1.bias, layers.1.weight.
    let parts = [numbers(1, 4), numbers(0, 12), numbers(3, 2), numbers(2, 8)];
    parts.into_iter().flatten().collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/weights")
        .join(name)
}

#[test]
fn every_kind_of_file_gives_the_same_weights() {
    for name in [
        "sequential.pth",
        "parameters.pt",
        "legacy.pth",
        "protocol4.pth",
        "half.pth",
        "bfloat.pth",
        "wrapped.pth",
        "checkpoint.ckpt",
        "plain.npz",
        "compressed.npz",
        "half.safetensors",
        "model.safetensors.index.json",
    ] {
        for dtype in [DType::F32, DType::F64] {
            let model = model().to_dtype(dtype).unwrap();
            model.parameters().load(fixture(name)).unwrap();
            assert_eq!(theta(&model), theirs(), "{name}");
        }
    }
    // The numbers of `nn.Sequential` are not the model's, whose layers are 0 and 1.
    let pairs = model()
        .parameters()
        .load_with(fixture("legacy.pth"), &Matching::default());
    let pairs = pairs.unwrap();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("layers.0.bias", "0.bias"),
            ("layers.0.weight", "0.weight"),
            ("layers.1.bias", "2.bias"),
            ("layers.1.weight", "2.weight"),
        ]
    );
}

#[test]
fn saved_files_are_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let other = Mlp::new(&[3, 4, 2], Activation::Tanh, 2, &CPU).unwrap();
    for dtype in [DType::F32, DType::F64] {
        for name in ["w.pth", "w.pt", "w.safetensors", "w"] {
            let path = dir.path().join(name);
            let (a, b) = (
                other.to_dtype(dtype).unwrap(),
                model().to_dtype(dtype).unwrap(),
            );
            a.parameters().save(&path).unwrap();
            assert_eq!(
                name.contains(".p"),
                fs::read(&path).unwrap().starts_with(b"PK")
            );
            b.parameters().load(&path).unwrap();
            assert_eq!(theta(&a), theta(&b), "{name}");
        }
    }
}

#[test]
fn maps_name_tensors_or_modules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let names = [
        ("layers.0.weight", "model.first.weight"),
        ("layers.0.bias", "model.first.bias"),
        ("layers.1.weight", "model.last.kernel"),
        ("layers.1.bias", "model.layers.1.bias"),
    ];
    let theirs = names.map(|(ours, theirs)| (theirs, tensors()[ours].clone()));
    safetensors::save(&HashMap::from(theirs), &path).unwrap();
    let load = |matching: Matching| {
        let model = model();
        let loaded = model.parameters().load_with(&path, &matching);
        loaded.map(|_| theta(&model)).map_err(|e| e.to_string())
    };
    let expected = loaded(&tensors()).unwrap();
    let map = |map: &[(&str, &str)]| Matching::default().with_map(map.iter().copied());
    // With and without the prefix that all names share.
    for prefix in ["", "model."] {
        let [first, last] = ["first", "last.kernel"].map(|name| format!("{prefix}{name}"));
        let found = load(map(&[("layers.0", &first), ("layers.1.weight", &last)]));
        assert_eq!(found, Ok(expected.clone()), "{prefix}");
    }
    for (matching, words) in [
        (
            Matching::default(),
            "layers.1.weight [2, 4]  model.last.kernel [2, 4]",
        ),
        (
            map(&[("layers.0", "first")]),
            "1 tensor (`layers.1.weight`) of the model has no partner",
        ),
        (
            map(&[("layers.0", "first"), ("layers.1", "last")]),
            "2 tensors of the model have no partner",
        ),
        (
            map(&[("layers", "first"), ("layer", "last")]),
            "the map of weights has `layer`, which is not a parameter or module of the model: it has layers.0.bias,",
        ),
        (
            map(&[("layers.0", "first")]).with_by_order(true),
            "give one of them",
        ),
        // Two parameters cannot have the same tensor.
        (
            map(&[
                ("layers.0", "first"),
                ("layers.1.weight", "last.kernel"),
                ("layers.1.bias", "first.bias"),
            ]),
            "model.layers.1.bias [2]",
        ),
    ] {
        let error = load(matching).unwrap_err();
        assert!(error.contains(words), "{words} in {error}");
    }
    let matching = map(&[("layers.0", "first")]);
    let text = serde_json::to_string(&matching).unwrap();
    assert_eq!(serde_json::from_str::<Matching>(&text).unwrap(), matching);
}

#[test]
fn equal_shapes_are_matched_in_their_order_on_request() {
    let by_order = Matching::default().with_by_order(true);
    let model = model();
    let parameters = model.parameters();
    assert!(parameters.load(fixture("positional.npz")).is_err());
    let pairs = parameters
        .load_with(fixture("positional.npz"), &by_order)
        .unwrap();
    assert_eq!(theta(&model), theirs());
    assert_eq!(pairs[0], ("layers.0.bias".to_owned(), "arr_1".to_owned()));
    // Eleven layers of one shape: their order is that of the numbers, not of the letters.
    let [deep, other] =
        [1, 2].map(|seed| Mlp::new(&[2; 12], Activation::Tanh, seed, &CPU).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let renamed = (0..11).flat_map(|layer| {
        ["weight", "bias"].map(|part| {
            let var = other
                .parameters()
                .get(&format!("layers.{layer}.{part}"))
                .unwrap();
            (
                format!("{}.{part}", ["z", "y"][layer % 2].repeat(12 - layer)),
                var.as_tensor().clone(),
            )
        })
    });
    write_tensors(&path, WRITABLE, renamed).unwrap();
    deep.parameters().load_with(&path, &by_order).unwrap();
    assert_eq!(theta(&deep), theta(&other));
    let error = parameters
        .load_with(&path, &by_order)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no partner"), "{error}");
}

/// torchvision's names of a network, each with a tensor of its shape, or of one entry, filled with the name's position.
fn torchvision(network: &str, is_small: bool) -> Vec<(String, Tensor)> {
    let text = fs::read_to_string(fixture(network)).unwrap();
    let names = text.lines().filter_map(|line| {
        let (name, shape) = line.trim_end_matches(',').split_once(": ")?;
        Some((
            name.trim().trim_matches('"').to_owned(),
            serde_json::from_str::<Vec<usize>>(shape).unwrap(),
        ))
    });
    let tensors = names.enumerate().map(|(i, (name, shape))| {
        let shape = if is_small { vec![1] } else { shape };
        let tensor = Tensor::full(i as f32, shape, &CPU).unwrap();
        (name, tensor)
    });
    tensors
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .collect()
}

#[test]
fn names_of_torchvision_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resnet18.pth");
    let build = |architecture: Architecture, norm, outputs| {
        let design = architecture.design().normalization(norm);
        design.build(&[3, 32, 32], outputs, 0, &CPU).unwrap()
    };
    let refusal = |model: &Layered| model.parameters().load(&path).unwrap_err().to_string();
    let model = build(Architecture::ResNet18, Norm::Batch, 1000);
    let grouped = build(Architecture::ResNet18, Norm::Group(8), 1000);

    let mut theirs = torchvision("resnet18.json", false);
    write_tensors(&path, WRITABLE, theirs.clone()).unwrap();
    let error = refusal(&model);
    assert!(error.contains("begins with a 7 × 7 convolution"), "{error}");
    assert!(
        error.contains("stem.conv.weight [64, 3, 3, 3]  conv1.weight [64, 3, 7, 7]"),
        "{error}"
    );

    // The same network for small images.
    theirs[0].1 = Tensor::zeros((64, 3, 3, 3), DType::F32, &CPU).unwrap();
    write_tensors(&path, WRITABLE, theirs.clone()).unwrap();
    let pairs = model
        .parameters()
        .load_with(&path, &Matching::default())
        .unwrap();
    // Every tensor has the number of its name.
    for (ours, name) in &pairs {
        let position = theirs
            .iter()
            .position(|(theirs, _)| theirs == name)
            .unwrap();
        let expected = theirs[position].1.flatten_all().unwrap().get(0).unwrap();
        let all = model
            .parameters()
            .iter()
            .chain(model.parameters().statistics());
        let (_, var) = all.into_iter().find(|(name, _)| name == ours).unwrap();
        let found = var.flatten_all().unwrap().get(0).unwrap();
        assert_eq!(
            found.to_scalar::<f32>().unwrap(),
            expected.to_scalar::<f32>().unwrap()
        );
    }
    // The order of both networks is the same.
    let by_order = Matching::default().with_by_order(true);
    assert_eq!(
        model.parameters().load_with(&path, &by_order).unwrap(),
        pairs
    );
    let error = refusal(&grouped);
    assert!(
        error.contains("build the model with it (--norm batch, or Norm::Batch)"),
        "{error}"
    );
    let error = refusal(&build(Architecture::ResNet18, Norm::Batch, 10));
    assert!(
        error.contains("Build the model with the sizes of the file"),
        "{error}"
    );
    assert!(
        error.contains("out.weight [10, 512]  fc.weight [1000, 512]"),
        "{error}"
    );
    theirs.retain(|(name, _)| !name.contains("running"));
    write_tensors(&path, WRITABLE, theirs).unwrap();
    let error = refusal(&model);
    assert!(
        error.contains("The file has no running statistics of batch normalisation"),
        "{error}"
    );

    write_tensors(&path, WRITABLE, torchvision("densenet121.json", true)).unwrap();
    let error = refusal(&build(Architecture::DenseNet, Norm::Batch, 10));
    assert!(
        error.contains("dense layers have two convolutions"),
        "{error}"
    );
}

/// The zoo's DenseNet under the names that torchvision gives its parts.
#[test]
fn a_densenet_without_bottlenecks_is_recognised() {
    let [model, other] = [0, 1].map(|seed| {
        let design = Architecture::DenseNet.design().normalization(Norm::Batch);
        design.build(&[3, 32, 32], 10, seed, &CPU).unwrap()
    });
    let all = other
        .parameters()
        .iter()
        .chain(other.parameters().statistics());
    let renamed = all.map(|(name, var)| {
        let parts: Vec<&str> = name.split('.').collect();
        let after = |part: &str, name: &str| {
            part.strip_prefix(name)
                .map(|n| n.parse::<usize>().unwrap() + 1)
        };
        let name = match parts[..] {
            ["stem", "conv", end] => format!("features.conv0.{end}"),
            ["norm", end] => format!("features.norm4.{end}"),
            ["out", end] => format!("classifier.{end}"),
            [first, part, end] => format!(
                "features.transition{}.{part}.{end}",
                after(first, "transition").unwrap()
            ),
            [block, layer, part, end] => format!(
                "features.denseblock{}.denselayer{}.{part}1.{end}",
                after(block, "block").unwrap(),
                after(layer, "layer").unwrap()
            ),
            _ => panic!("{name}"),
        };
        (name, var.as_tensor().clone())
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("densenet.pth");
    write_tensors(&path, WRITABLE, renamed).unwrap();
    assert_ne!(
        model.parameters().to_flat().unwrap(),
        other.parameters().to_flat().unwrap()
    );
    model.parameters().load(&path).unwrap();
    assert_eq!(
        model.parameters().to_flat().unwrap(),
        other.parameters().to_flat().unwrap()
    );
}

/// A mutated file is either loaded or refused. A refusal leaves the model unchanged.
#[test]
fn mutated_files_never_panic() {
    for name in ["w.safetensors", "w.pth"] {
        mutate(name);
    }
}

fn mutate(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
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

/// Commands read and write the files, and match names by a map or by their order.
#[test]
fn commands_read_and_write_files_of_pytorch() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let network = ["--dataset", "synthetic", "--layers", "20,4,2"];
    let run = |command: &str, arguments: &[&str]| {
        let output = landscape(&[&[command][..], &network, arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        (String::from_utf8(output.stdout).unwrap(), error)
    };
    let (pth, other) = (path("w.pth"), path("other.npz"));
    run("train", &["--epochs", "1", "--save", &pth]);
    assert!(fs::read(&pth).unwrap().starts_with(b"PK"));
    let eigenvalues = |arguments: &[&str]| {
        let arguments = [&["--samples", "50", "--top", "2", "--json"], arguments].concat();
        let (report, error) = run("spectrum", &arguments);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        (report["eigenvalues"].clone(), error)
    };
    let (expected, _) = eigenvalues(&["--weights", &pth]);
    assert_eq!(expected.as_array().unwrap().len(), 2);
    assert_ne!(eigenvalues(&[]).0, expected);

    // The same weights under other names.
    let model = Mlp::new(&[20, 4, 2], Activation::Sigmoid, 5, &CPU).unwrap();
    model.parameters().load(&pth).unwrap();
    let renamed = [("layers.0", "a"), ("layers.1", "b.c")]
        .into_iter()
        .flat_map(|(ours, theirs)| {
            ["weight", "bias"].map(|part| {
                let var = model.parameters().get(&format!("{ours}.{part}")).unwrap();
                (format!("{theirs}.{part}"), var.as_tensor().clone())
            })
        });
    Tensor::write_npz(&renamed.collect::<Vec<_>>(), &other).unwrap();
    for (name, text) in [
        (
            "map.toml",
            "layers.0 = \"a\"\n\"layers.1.weight\" = \"b.c.weight\"\nlayers.1.bias = 'b.c.bias'",
        ),
        ("map.json", r#"{"layers.0": "a", "layers.1": "b.c"}"#),
    ] {
        fs::write(path(name), text).unwrap();
        let found = eigenvalues(&["--weights", &other, "--weights-map", &path(name)]);
        assert_eq!(found.0, expected, "{name}");
    }
    let (found, printed) = eigenvalues(&["--weights", &other, "--weights-by-order"]);
    assert_eq!(found, expected);
    assert!(
        printed.contains("weights: layers.1.weight from b.c.weight\n"),
        "{printed}"
    );

    fs::write(path("number.toml"), "layers.0 = 3").unwrap();
    let number = path("number.toml");
    for (arguments, words) in [
        (
            &["--weights-by-order"][..],
            "--weights-by-order has no effect: it needs --weights",
        ),
        (
            &["--weights", &other],
            "layers.0.weight [4, 20]  a.weight [4, 20]",
        ),
        (
            &["--weights", &other, "--weights-map", &number],
            "the value of `layers.0` is not a name",
        ),
        (
            &["--weights", &pth, "--weights-map", &path("no.toml")],
            "no.toml: cannot be read",
        ),
    ] {
        let error = error_of(&[&["spectrum"][..], &network, arguments].concat());
        assert!(error.contains(words), "{words} in {error}");
    }

    let out = path("sweep");
    run(
        "sweep",
        &[
            "--l2",
            "0,0.01",
            "--epochs",
            "1",
            "--top",
            "1",
            "--weights",
            "pth",
            "--out",
            &out,
        ],
    );
    let swept = Path::new(&out).join("model_weights-1-0.01.pth");
    model.parameters().load(&swept).unwrap();
    assert!(fs::read(&swept).unwrap().starts_with(b"PK"));
    // A damaged file is computed again.
    fs::write(&swept, "").unwrap();
    let again = [
        "--l2",
        "0,0.01",
        "--epochs",
        "1",
        "--top",
        "1",
        "--weights",
        "pth",
        "--out",
        &out,
        "--resume",
    ];
    assert!(run("sweep", &again).0.contains("1 of them new"));
}
