//! Rejected settings: invalid, without effect, or larger than the available memory.

mod common;

use std::fs;

use common::{error_of, landscape};
use loss_landscape::model::Design;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};
use tempfile::tempdir;

const CPU: Device = Device::Cpu;
const NET: [&str; 4] = ["--dataset", "synthetic", "--layers", "20,4,2"];

fn json(arguments: &[&str]) -> Value {
    let output = landscape(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn absurd_sizes_are_rejected_before_allocation() {
    let dir = tempdir().unwrap();
    let (a, out) = (dir.path().join("a"), dir.path().join("out"));
    let [a, out] = [&a, &out].map(|path| path.to_str().unwrap());
    json(&[&["train", "--epochs", "0", "--save", a], &NET[..]].concat());
    let largest = usize::MAX.to_string();
    for count in ["10000000000000", &largest] {
        let widths = format!("20,{count},2");
        let synthetic = ["--dataset", "synthetic"];
        for command in [
            &["surface", "--grid", count][..],
            &["surface", "--grid", count, "--out", out],
            &["connect", a, a, "--points", count, "--epochs", "0"],
            &["connect", a, a, "--bends", count, "--epochs", "1"],
            &["sharpness", "--perturbations", count],
            &["llc", "--chains", count],
            &["classes", "--top", count],
            &["spectrum", "--top", count],
            &["hvp", "--block", count],
            &["hvp", "--runs", count, "--block", "1"],
            &[
                "density", "--points", count, "--steps", "3", "--probes", "2",
            ],
            &["analyze", "--visualize", "--grid", count, "--save-dir", out],
            &["sweep", "--l2", "0", "--top", count, "--out", out],
        ] {
            let error = error_of(&[command, &NET[..]].concat());
            let expected = ["of memory", "too many", "ask for 1 to", "must be from 1 to"];
            assert!(
                expected.iter().any(|words| error.contains(words)),
                "{command:?}: {error}"
            );
        }
        for command in ["spectrum", "train"] {
            let error = error_of(&[&[command, "--layers", &widths], &synthetic[..]].concat());
            assert!(error.contains("of memory"), "{error}");
        }
        // These are upper bounds, so any value is accepted.
        let bound = [
            "spectrum", "--top", "2", "--block", count, "--memory", count,
        ];
        json(&[&bound[..], &NET].concat());
        json(&[&["trace", "--max-products", count], &NET[..]].concat());
        json(
            &[
                &[
                    "train", "--batch", count, "--warmup", count, "--epochs", "1",
                ],
                &NET[..],
            ]
            .concat(),
        );
    }
    assert!(Grid::square(1.0, usize::MAX).is_err());
    assert!(Mlp::new(&[usize::MAX, usize::MAX], Activation::Tanh, 0, &CPU).is_err());
}

/// 19 million parameters: a basis of 60 vectors takes 9 GB.
#[cfg(target_os = "linux")]
#[test]
fn a_memory_limit_is_an_error_and_not_an_abort() {
    let error = |top: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = "ulimit -v 6000000; exec \"$@\"";
        shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_landscape")]);
        shell.args(["spectrum", "--layers", "784,4000,4000,10"]);
        shell.args(["--top", top, "--samples", "10"]);
        let output = shell.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        error
    };
    let many = error("30");
    let needed = "60 basis vectors and 7 others of length 19184010 need 10.3 GB of memory, but ";
    assert!(many.contains(needed), "{many}");
    assert!(many.contains("compute at most "), "{many}");
    let fewer = error("16");
    let advice = "allow a basis of at most ";
    assert!(
        fewer.contains("need 6.0 GB") && fewer.contains(advice),
        "{fewer}"
    );
}

#[test]
fn small_models_default_to_all_eigenvalues() {
    let net = ["--dataset", "synthetic", "--layers", "20,1"];
    let found = json(&[&["spectrum"], &net[..]].concat());
    assert_eq!(found["eigenvalues"].as_array().unwrap().len(), 21);
    let dir = tempdir().unwrap();
    let out = dir.path().join("sweep");
    let sweep = [
        "sweep",
        "--l2",
        "0.1",
        "--epochs",
        "1",
        "--out",
        out.to_str().unwrap(),
    ];
    let found = json(&[&sweep[..], &net].concat());
    assert_eq!(
        found["points"][0]["eigenvalues"].as_array().unwrap().len(),
        21
    );
    let many = json(&[&["spectrum"], &NET[..]].concat());
    assert_eq!(many["eigenvalues"].as_array().unwrap().len(), 30);
}

#[test]
fn flags_without_effect_are_rejected() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    let zoo = ["--dataset", "synthetic", "--model", "residual"];
    for (command, words) in [
        (
            &[
                "spectrum",
                "--dataset",
                "synthetic",
                "--model",
                "residual",
                "--layers",
                "20,2",
            ][..],
            "--layers has no effect",
        ),
        (
            &["train", "--dataset", "synthetic", "--data", "."],
            "--data has no effect",
        ),
        (
            &[
                "hvp",
                "--dataset",
                "synthetic",
                "--autograd",
                "--memory",
                "10",
            ],
            "--memory has no effect",
        ),
        (
            &["connect", "a", "b", "--epochs", "0", "--bends", "3"],
            "--bends has no effect",
        ),
        (
            &["connect", "a", "b", "--epochs", "0", "--lr", "0.1"],
            "--lr has no effect",
        ),
        (
            &[
                "analyze",
                "--weights",
                "w",
                "--epochs",
                "5",
                "--save-dir",
                out,
            ],
            "--epochs has no effect",
        ),
        (
            &["analyze", "--weights", "w", "--l2", "5", "--save-dir", out],
            "--l2 has no effect",
        ),
        (
            &["analyze", "--grid", "5", "--save-dir", out],
            "--grid has no effect",
        ),
        (
            &["analyze", "--damping", "0.1", "--save-dir", out],
            "--damping has no effect",
        ),
        (
            &["analyze", "--top", "5", "--save-dir", out],
            "--top has no effect",
        ),
        (
            &["train", "--dataset", "synthetic", "--layers", "20,2,5"],
            "5 outputs, but the dataset has 2 classes",
        ),
        (
            &["train", "--layers", "784,11"],
            "11 outputs, but the dataset has 10 classes",
        ),
    ] {
        let error = error_of(command);
        assert!(error.contains(words), "{command:?}: {error}");
    }
    assert!(!dir.path().join("out").exists());
    // Defaults of the same flags are accepted, and so is one output for binary labels.
    json(&[&["spectrum", "--top", "1"], &zoo[..]].concat());
    json(&[
        "spectrum",
        "--top",
        "1",
        "--dataset",
        "synthetic",
        "--layers",
        "20,3,1",
    ]);
}

/// The directory of the data does not exist: reading it would be the first work.
#[test]
fn invalid_numbers_are_rejected_before_any_work() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, out) = (at("no/data"), at("out"));
    for (command, words) in [
        (
            &["sharpness", "--tolerance", "-1"][..],
            "--tolerance must be finite and above 0, found -1",
        ),
        (
            &["sharpness", "--radius", "inf"],
            "--radius must be finite and above 0, found inf",
        ),
        (
            &["sharpness", "--perturbations", "1"],
            "--perturbations must be at least 2, found 1",
        ),
        (
            &["sharpness", "--starts", "0"],
            "--starts must be at least 1",
        ),
        (
            &["llc", "--beta", "-1"],
            "--beta must be finite and above 0, found -1",
        ),
        (
            &["llc", "--localization", "0"],
            "--localization must be finite and above 0",
        ),
        (
            &["llc", "--relative-error", "nan"],
            "--relative-error must be finite and above 0",
        ),
        (&["llc", "--chains", "1"], "--chains must be at least 2"),
        (
            &["llc", "--batch-size", "0"],
            "--batch-size must be at least 1",
        ),
        (
            &["llc", "--max-gradients", "0"],
            "--max-gradients must be at least 1",
        ),
        (&["classes", "--top", "0"], "--top must be at least 1"),
        (
            &["classes", "--significance", "0"],
            "--significance must be finite and above 0",
        ),
        (
            &["classes", "--max-products", "3"],
            "--max-products must be at least 12",
        ),
        (
            &["influence", "--damping", "-1"],
            "--damping must be finite and at least 0, found -1",
        ),
        (
            &["influence", "--max-products", "1"],
            "--max-products must be at least 2",
        ),
        (
            &["influence", "--tolerance", "0"],
            "--tolerance must be finite and above 0",
        ),
        (
            &["surface", "--range", "-1"],
            "--range must be finite and above 0",
        ),
        (
            &["stability", "--interval", "0"],
            "--interval must be at least 1",
        ),
        (
            &["stability", "--sharpness-samples", "0"],
            "--sharpness-samples must be at least 1",
        ),
        (&["surface", "--grid", "1"], "--grid must be at least 2"),
        (&["spectrum", "--top", "0"], "--top must be at least 1"),
        (
            &["spectrum", "--tolerance", "0"],
            "--tolerance must be finite and above 0",
        ),
        (&["spectrum", "--block", "0"], "--block must be at least 1"),
        (&["density", "--probes", "1"], "--probes must be at least 2"),
        (&["density", "--steps", "1"], "--steps must be at least 2"),
        (
            &["density", "--width", "-1"],
            "--width must be finite and above 0",
        ),
        (&["density", "--points", "1"], "--points must be at least 2"),
        (&["density", "--points", "100000000000000"], "of memory"),
        (
            &["trace", "--relative-error", "nan"],
            "--relative-error must be finite and above 0",
        ),
        (
            &["trace", "--max-products", "11"],
            "--max-products must be at least 12",
        ),
        (&["hvp", "--block", "0"], "--block must be at least 1"),
        (&["hvp", "--runs", "0"], "--runs must be at least 1"),
        (
            &["connect", "a", "b", "--points", "1"],
            "--points must be at least 2",
        ),
        (
            &["connect", "a", "b", "--lr", "0"],
            "--lr must be finite and above 0",
        ),
        (
            &["connect", "a", "b", "--bends", "0"],
            "--bends must be at least 1",
        ),
        (&["train", "--lr", "-1"], "the learning rate is -1"),
        (&["train", "--patience", "0"], "a patience of 0"),
        (&["train", "--batch", "0"], "the batch size is 0"),
        (&["train", "--l2", "-1"], "L2 strength of -1"),
        (
            &["train", "--sam", "0"],
            "the radius of sharpness-aware steps is 0",
        ),
        (
            &["train", "--optimizer", "sgd", "--momentum", "1"],
            "a momentum of 1",
        ),
        (
            &["analyze", "--samples", "0", "--save-dir", &out],
            "--samples must be at least 1",
        ),
        (
            &[
                "analyze",
                "--compute-hessian",
                "--top",
                "0",
                "--save-dir",
                &out,
            ],
            "--top must be at least 1",
        ),
        (
            &["analyze", "--radius", "0", "--save-dir", &out],
            "--radius must be finite and above 0",
        ),
        (
            &[
                "analyze",
                "--compute-hessian",
                "--damping",
                "-1",
                "--save-dir",
                &out,
            ],
            "--damping must be finite and at least 0",
        ),
        (
            &["analyze", "--visualize", "--grid", "1", "--save-dir", &out],
            "at least 2 points",
        ),
        (
            &["analyze", "--asam", "-1", "--save-dir", &out],
            "the radius of sharpness-aware steps is -1",
        ),
        (&["sweep", "--l2", "-1", "--out", &out], "L2 strength of -1"),
        (&["sweep", "--l2", "1,1", "--out", &out], "given twice"),
        (
            &["sweep", "--l2", "1", "--top", "0", "--out", &out],
            "--top must be at least 1",
        ),
        (
            &["sweep", "--l2", "1", "--tolerance", "-1", "--out", &out],
            "tolerance must be",
        ),
        (
            &["sweep", "--l2", "1", "--jobs", "0", "--out", &out],
            "jobs must be at least 1",
        ),
        (
            &["sweep", "--l2", "1", "--patience", "0", "--out", &out],
            "a patience of 0",
        ),
        (
            &["sweep", "--l2", "1", "--samples", "0", "--out", &out],
            "--samples must be at least 1",
        ),
        (&["hvp", "--samples", "0"], "--samples must be at least 1"),
    ] {
        let error = error_of(&[command, &["--data", &data]].concat());
        assert!(error.contains(words), "{command:?}: {error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn settings_that_mean_nothing_are_explained() {
    for (command, words) in [
        (
            &["llc", "--localization", "1e300"][..],
            "is too large: deviations of about 1/√γ = 1e-150",
        ),
        (
            &["stability", "--measure", "sharpness,sharpness"],
            "the measures contain sharpness twice",
        ),
        (&["llc", "--l2", "-1"], "--l2 must be finite and at least 0"),
        (
            &["sharpness", "--l2", "inf"],
            "--l2 must be finite and at least 0",
        ),
    ] {
        let error = error_of(&[command, &NET[..]].concat());
        assert!(error.contains(words), "{command:?}: {error}");
    }
}

/// A checkpoint that another process uses must not be deleted.
#[test]
fn a_checkpoint_in_use_is_not_to_be_deleted() {
    let dir = tempdir().unwrap();
    let file = fs::File::create(dir.path().join("unfinished")).unwrap();
    file.lock().unwrap();
    let out = dir.path().to_str().unwrap();
    let surface = ["surface", "--grid", "3", "--samples", "50", "--out", out];
    let error = error_of(&[&surface[..], &NET[..]].concat());
    assert!(
        error.contains("in use by another process") && error.contains("Wait until it ends"),
        "{error}"
    );
    assert!(!error.contains("delete"), "{error}");
}

#[test]
fn a_last_batch_of_one_sample_is_rejected_before_the_training() {
    let dir = tempdir().unwrap();
    let save = dir.path().join("w");
    let error = error_of(&[
        "train",
        "--dataset",
        "synthetic",
        "--model",
        "residual",
        "--norm",
        "batch",
        "--batch",
        "17",
        "--epochs",
        "100000",
        "--save",
        save.to_str().unwrap(),
    ]);
    assert!(
        error.contains("the last batch has a single sample, with 800 samples in batches of 17"),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    // After a convolution, each channel of a single image has many values, so that it can be normalised.
    let images = Tensor::rand(0f32, 1f32, (5, 1, 8, 8), &CPU).unwrap();
    let labels = Tensor::new(&[0u32, 1, 0, 1, 0], &CPU).unwrap();
    let data = Dataset::classification(&images, &labels).unwrap();
    let design = Design {
        normalization: Norm::Batch,
        ..Architecture::ResNet20.design()
    };
    let model = design.build(&[1, 8, 8], 2, 0, &CPU).unwrap();
    let statistics = || {
        model
            .parameters()
            .statistics()
            .map(|(_, var)| var.to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    let before = statistics();
    Trainer::sgd(1e-3)
        .with_batch_size(2)
        .with_epochs(0)
        .fit(&model, &data, &data)
        .unwrap();
    assert_eq!(statistics(), before);
    Trainer::sgd(1e-3)
        .with_batch_size(2)
        .fit(&model, &data, &data)
        .unwrap();
    assert_ne!(statistics(), before);
}

#[test]
fn an_analysis_reads_its_own_settings() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let seed = u64::MAX.to_string();
    let few = ["--epochs", "1", "--samples", "50"];
    let first = json(
        &[
            &["analyze", "--seed", &seed, "--save-dir", &at("first")],
            &few[..],
            &NET,
        ]
        .concat(),
    );
    let config = at("first/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(&format!("seed = \"{seed}\"")), "{text}");
    let again = json(&["analyze", "--config", &config, "--save-dir", &at("again")]);
    assert_eq!(first, again);

    // A flag replaces a key that it conflicts with, and overrides a key that is true.
    let text = "dataset = 'synthetic'\nlayers = [20, 4, 2]\nepochs = 1\nsamples = 50\nsam = 0.1\nnesterov = true\n\
                optimizer = 'sgd'\ncompute-hessian = true\ntrack-trajectory = true\n";
    fs::write(&config, text).unwrap();
    let with = |more: &[&str]| {
        json(
            &[
                &["analyze", "--config", &config, "--save-dir", &at("with")],
                more,
            ]
            .concat(),
        )
    };
    assert!(with(&[])["hessian"].is_object());
    let adaptive = with(&[
        "--asam",
        "0.2",
        "--compute-hessian=false",
        "--nesterov=false",
    ]);
    assert!(adaptive["hessian"].is_null());
    let written = fs::read_to_string(at("with/config.toml")).unwrap();
    for line in ["asam = 0.2", "compute-hessian = false", "nesterov = false"] {
        assert!(written.lines().any(|l| l == line), "{line} in {written}");
    }
    assert!(
        !written.lines().any(|line| line.starts_with("sam = ")),
        "{written}"
    );
    let weights = at("with/weights.safetensors");
    let loaded = with(&["--weights", &weights]);
    assert!(loaded["hessian"].is_object());
    assert!(!dir.path().join("with/evolution.csv").exists());
}

#[test]
fn a_directory_holds_one_analysis() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let analyze = |more: &[&str]| {
        let few = [
            "analyze",
            "--samples",
            "50",
            "--save-dir",
            out.to_str().unwrap(),
        ];
        landscape(&[&few[..], &NET, more].concat())
    };
    let names = || common::bytes(&out).into_keys().collect::<Vec<_>>();
    assert!(
        analyze(&["--epochs", "1", "--visualize", "--grid", "3"])
            .status
            .success()
    );
    assert!(names().contains(&"surface.html".to_owned()));
    let before = common::bytes(&out);
    // Invalid settings and a diverging training change nothing. All epochs together would take an hour.
    for refused in [
        &["--visualize", "--grid", "1", "--epochs", "1000000"][..],
        &["--lr", "-1"],
        &["--weights", "none"],
        &["--activation", "relu", "--optimizer", "sgd", "--lr", "1e30"],
    ] {
        let output = analyze(refused);
        assert_eq!(output.status.code(), Some(1), "{refused:?}");
        assert!(common::bytes(&out) == before, "{refused:?}");
    }
    // A failure after the training leaves the new weights next to the results of the previous run.
    let failed = analyze(&["--epochs", "2", "--radius", "1e300"]);
    assert_eq!(failed.status.code(), Some(1));
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(error.contains("unfinished.safetensors"), "{error}");
    let mut after = common::bytes(&out);
    let unfinished = after.remove("unfinished.safetensors").unwrap();
    assert!(after == before && unfinished != before["weights.safetensors"]);
    assert!(analyze(&["--epochs", "1"]).status.success());
    assert_eq!(
        names(),
        [
            "config.toml",
            "history.csv",
            "history.html",
            "history.parquet",
            "report.csv",
            "report.json",
            "report.parquet",
            "weights.safetensors"
        ]
    );
}

#[test]
fn an_error_of_a_file_has_its_source() {
    use std::error::Error as _;
    let dir = tempdir().unwrap();
    let missing = dir.path().join("no/such/file");
    let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &CPU).unwrap();
    for error in [
        model.parameters().save(&missing).unwrap_err(),
        model.parameters().load(&missing).unwrap_err(),
        Trajectory::load(&missing).unwrap_err(),
        Mnist::load_from(missing.parent().unwrap(), &CPU)
            .err()
            .unwrap(),
    ] {
        let source = error.source().unwrap().downcast_ref::<std::io::Error>();
        assert_eq!(
            source.unwrap().kind(),
            std::io::ErrorKind::NotFound,
            "{error}"
        );
    }
    fs::write(dir.path().join("text"), "text").unwrap();
    let error = model
        .parameters()
        .load(dir.path().join("text"))
        .unwrap_err();
    assert!(error.source().is_some(), "{error}");
}

/// `Display` contains the whole message, and `source` returns the cause.
#[test]
fn an_error_in_candle_has_its_source() {
    use std::error::Error as _;
    let x = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    let error = Error::from(x.matmul(&x).unwrap_err());
    let source = error.source().unwrap();
    assert!(source.downcast_ref::<candle::Error>().is_some());
    assert_eq!(error.to_string(), source.to_string());
    assert!(error.to_string().contains("matmul"), "{error}");
}
