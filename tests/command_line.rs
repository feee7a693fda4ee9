//! The command line: output, files and errors.

use std::path::PathBuf;
use std::process::{Command, Output};

use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};

fn landscape(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    let command = command.args(arguments).env("HF_HUB_OFFLINE", "1");
    command.output().unwrap()
}

/// Parses stdout, which must be one JSON object.
fn json(arguments: &[&str]) -> Value {
    let output = landscape(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("landscape-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NET: [&str; 4] = ["--layers", "784,6,10", "--activation", "tanh"];

#[test]
fn from_training_to_curvature() {
    let folder = Folder::new("whole");
    let weights = folder.path("w.safetensors");
    let train = [
        &["train"],
        &NET[..],
        &[
            "--epochs", "1", "--batch", "500", "--lr", "0.01", "--save", &weights,
        ],
    ]
    .concat();
    let trained = json(&train);
    let epoch = &trained["epochs"][0];
    assert!(
        epoch["train_loss"].as_f64().unwrap() < 2.0
            && epoch["test_accuracy"].as_f64().unwrap() > 0.7
    );
    // A failing run does not change the weights of the previous one.
    let before = std::fs::read(&weights).unwrap();
    let relu = [
        "train",
        "--layers",
        "784,6,10",
        "--activation",
        "relu",
        "--optimizer",
        "sgd",
        "--lr",
        "1e30",
    ];
    let failed = landscape(&[&relu[..], &["--save", &weights]].concat());
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(
        failed.status.code() == Some(1)
            && error.contains("training diverged: the loss is no longer finite at step "),
        "{error}"
    );
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    // The same seed gives the same bits.
    let bytes = std::fs::read(&weights).unwrap();
    json(&train);
    assert_eq!(std::fs::read(&weights).unwrap(), bytes);
    assert_eq!(
        std::fs::read_dir(&folder.0).unwrap().count(),
        1,
        "no temporary file is left"
    );

    let at = [&NET[..], &["--weights", &weights, "--samples", "300"]].concat();
    let out = folder.path("out");
    let run = |more: &[&str]| json(&[&["spectrum"], &at[..], more].concat());
    let single = run(&["--top", "4", "--which", "la", "--out", &out]);
    let (values, residuals) = (
        numbers(&single["eigenvalues"]),
        numbers(&single["residuals"]),
    );
    assert!(values.len() == 4 && values.is_sorted_by(|a, b| a >= b));
    assert!(
        residuals.iter().all(|r| *r <= 2e-4 * values[0]),
        "{residuals:?}"
    );
    assert!(single["products"].as_u64().unwrap() > 4 && single["seconds"].as_f64().unwrap() > 0.0);
    let written: Value =
        serde_json::from_slice(&std::fs::read(folder.path("out/spectrum.json")).unwrap()).unwrap();
    assert_eq!(written, single);
    assert!(
        std::fs::metadata(folder.path("out/eigenvectors.safetensors"))
            .unwrap()
            .len()
            > 4 * 8 * 4_000
    );

    let double = run(&[
        "--top",
        "4",
        "--which",
        "la",
        "--dtype",
        "f64",
        "--tolerance",
        "1e-8",
    ]);
    for (a, b) in values.iter().zip(numbers(&double["eigenvalues"])) {
        assert!((a - b).abs() < 1e-4 * b.abs(), "{a} is not {b}");
    }
    let graph = run(&["--top", "2", "--autograd", "--which", "la"]);
    assert!((numbers(&graph["eigenvalues"])[0] - values[0]).abs() < 1e-4 * values[0]);
    let ggn = numbers(&run(&["--top", "2", "--which", "sa", "--operator", "ggn"])["eigenvalues"]);
    assert!(ggn.iter().all(|v| *v > -1e-5), "{ggn:?}");
    let largest = numbers(&run(&["--top", "5", "--which", "lm"])["eigenvalues"]);
    assert!(largest.is_sorted_by(|a, b| a.abs() >= b.abs()));

    let trace = json(&[&["trace"], &at[..], &["--relative-error", "0.05"]].concat());
    let density = json(&[&["density"], &at[..], &["--probes", "4", "--steps", "20"]].concat());
    let estimate = |value: &Value| {
        (
            value["value"].as_f64().unwrap(),
            value["standard_error"].as_f64().unwrap(),
        )
    };
    let ((a, da), (b, db)) = (estimate(&trace["trace"]), estimate(&density["trace"]));
    assert!(
        (a - b).abs() < 5.0 * (da * da + db * db).sqrt(),
        "{a} ± {da} and {b} ± {db}"
    );
    assert_eq!(numbers(&density["density"]["values"]).len(), 400);

    let times = json(&[&["hvp"], &at[..], &["--runs", "1", "--block", "2"]].concat());
    for key in ["gradient_ms", "hvp_ms", "block_hvp_ms_per_vector"] {
        assert!(times[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let text = landscape(&[&["trace"], &at[..], &["--relative-error", "0.2"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("standard error"), "{text}");
}

#[test]
fn spectra_of_blocks() {
    let folder = Folder::new("blocks");
    let (out, resume) = (folder.path("out"), folder.path("finished"));
    let run = |more: &[&str]| {
        let common = [
            "blocks",
            "--samples",
            "200",
            "--probes",
            "3",
            "--steps",
            "8",
            "--pattern",
            "layers.*",
        ];
        json(&[&common[..], &NET, more].concat())
    };
    let found = run(&["--out", &out, "--resume", &resume]);
    let blocks = found["blocks"].as_array().unwrap();
    let names: Vec<&str> = blocks.iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["layers.0", "layers.1"]);
    assert_eq!(found["products"], 3 * 3 * 8);
    let value = |block: &Value, key: &str| block[key]["value"].as_f64().unwrap();
    let whole = &found["whole"];
    for block in blocks {
        assert!(value(block, "largest") <= value(whole, "largest") + 1e-4);
        assert!(value(block, "smallest") <= value(block, "largest"));
    }
    let share = &found["outside_share"];
    assert!(share["standard_error"].as_f64().unwrap() > 0.0);
    let distance = found["js_distances"]["values"][0][1].as_f64().unwrap();
    assert_eq!(found["mean_js_distance"]["value"], distance);
    assert!(distance > 0.0 && distance < 1.0);
    for name in [
        "blocks.csv",
        "blocks.parquet",
        "blocks.html",
        "densities.html",
        "distances.csv",
        "distances.html",
    ] {
        assert!(PathBuf::from(&out).join(name).exists(), "{name}");
    }
    let file = std::fs::read(PathBuf::from(&out).join("blocks.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let probes = file["spectra"]["blocks"][0]["density"]["probes"].as_array();
    assert_eq!(probes.unwrap().len(), 3);
    // Everything is read from the checkpoint.
    let mut again = run(&["--resume", &resume]);
    again["seconds"] = found["seconds"].clone();
    assert_eq!(again, found);

    let text = landscape(&[&["blocks", "--samples", "50", "--probes", "2"], &NET[..]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    for part in [
        "layers.1.bias",
        "whole matrix",
        "outside the blocks",
        "mean Jensen–Shannon distance",
    ] {
        assert!(text.contains(part), "{text}");
    }

    let heads = json(&[
        "blocks",
        "--model",
        "gpt",
        "--context",
        "4",
        "--samples",
        "2",
        "--probes",
        "2",
        "--steps",
        "2",
        "--pattern",
        "blocks.3.attention",
        "--heads",
    ]);
    let blocks = heads["blocks"].as_array().unwrap();
    let names: Vec<&str> = blocks.iter().map(|b| b["name"].as_str().unwrap()).collect();
    let expected = [".head0", ".head1", ".head2", ".head3", ""];
    assert_eq!(
        names,
        expected.map(|part| format!("blocks.3.attention{part}"))
    );
}

#[test]
fn invalid_arguments_are_rejected() {
    let folder = Folder::new("refusals");
    let broken = folder.path("broken.safetensors");
    std::fs::write(&broken, b"not a tensor").unwrap();
    let (missing, nowhere) = (
        folder.path("missing.safetensors"),
        folder.path("no/such/w.safetensors"),
    );
    for (arguments, words) in [
        (
            &["spectrum", "--top", "0", "--samples", "9"][..],
            "--top must be at least 1",
        ),
        (
            &["spectrum", "--top", "999999", "--samples", "9"],
            "ask for 1 to",
        ),
        (&["spectrum", "--tolerance", "nan"], "tolerance"),
        (
            &["spectrum", "--block", "0", "--samples", "9"],
            "--block must be at least 1, found 0",
        ),
        (
            &["spectrum", "--samples", "0"],
            "--samples must be at least 1",
        ),
        (&["spectrum", "--samples", "60001"], "60000"),
        (
            &["spectrum", "--weights", &missing],
            "missing.safetensors: cannot be read",
        ),
        (
            &["spectrum", "--weights", &broken],
            "broken.safetensors: cannot be read",
        ),
        (&["spectrum", "--layers", "784"], "do not define a network"),
        (
            &["spectrum", "--layers", "5,10", "--samples", "9"],
            "Linear (`layers.0.weight`, `layers.0.bias`) cannot take samples of shape (784,)",
        ),
        (
            &["hvp", "--layers", "784,5", "--samples", "9"],
            "label 5 of sample 0 is out of range",
        ),
        (
            &["hvp", "--runs", "0", "--samples", "9"],
            "--runs must be at least 1",
        ),
        (
            &["trace", "--relative-error", "0", "--samples", "9"],
            "--relative-error must be finite and above 0, found 0",
        ),
        (
            &["trace", "--max-products", "3", "--samples", "9"],
            "--max-products must be at least 12",
        ),
        (
            &["density", "--probes", "1", "--samples", "9"],
            "--probes must be at least 2",
        ),
        (
            &["blocks", "--probes", "1", "--samples", "9"],
            "--probes must be at least 2",
        ),
        (
            &["blocks", "--pattern", "layer.*", "--samples", "9"],
            "the pattern `layer.*` selects no parameters",
        ),
        (
            &["blocks", "--heads", "--samples", "9"],
            "the blocks have no parameters of attention heads",
        ),
        (
            &["density", "--points", "1", "--samples", "9", "--steps", "2"],
            "--points must be at least 2",
        ),
        (
            &["surface", "--grid", "1", "--samples", "9"],
            "--grid must be at least 2",
        ),
        (
            &["surface", "--range", "nan", "--samples", "9"],
            "--range must be finite and above 0, found NaN",
        ),
        (
            &["surface", "--out", "/dev/null/x", "--samples", "9"],
            "cannot create directory",
        ),
        (
            &["sharpness", "--radius", "0", "--samples", "9"],
            "--radius must be finite and above 0",
        ),
        (
            &[
                "sharpness",
                "--tolerance",
                "-1",
                "--samples",
                "9",
                "--perturbations",
                "2",
            ],
            "above 0",
        ),
        (
            &["train", "--lr", "-1", "--epochs", "1"],
            "the learning rate is -1",
        ),
        (
            &["train", "--batch", "0", "--epochs", "1"],
            "the batch size is 0",
        ),
        (
            &["train", "--clip", "-1", "--epochs", "1"],
            "gradients are clipped to the norm -1: give a finite number above 0",
        ),
        (
            &["train", "--clip", "NaN", "--epochs", "1"],
            "gradients are clipped to the norm NaN",
        ),
        (
            &["train", "--schedule", "cosine", "--min-lr", "-1"],
            "--min-lr is -1: give a number from 0 to the learning rate, 0.001",
        ),
        (
            &["train", "--schedule", "cosine", "--min-lr", "NaN"],
            "--min-lr is NaN",
        ),
        (
            &["train", "--save", &nowhere],
            "no/such/w.safetensors: cannot be written",
        ),
        (
            &["train", "--data", "/no/such/directory"],
            "/no/such/directory",
        ),
    ] {
        let output = landscape(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
        // On a busy machine, progress may be printed before the error.
        let mut lines = error
            .lines()
            .skip_while(|line| !line.starts_with("error: "));
        assert!(
            lines.any(|line| line.contains(words)),
            "{arguments:?}: {error}"
        );
    }
    let unknown = landscape(&["spectrum", "--which", "middle"]);
    assert_eq!(unknown.status.code(), Some(2));
    let help = String::from_utf8(landscape(&["spectrum", "--help"]).stdout).unwrap();
    for word in ["--layers", "--weights", "--top", "residual"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn surfaces_and_sharpness() {
    let folder = Folder::new("surface");
    let (net, out) = (
        ["--layers", "784,6,10", "--samples", "200"],
        folder.path("out"),
    );
    let run = |what: &str, more: &[&str]| json(&[&[what], &net[..], more].concat());
    let more = [
        "--grid",
        "5",
        "--plane",
        "random",
        "--out",
        &out,
        "--eigenvalues",
    ];
    let report = run("surface", &more);
    let text = std::fs::read_to_string(folder.path("out/surface.csv")).unwrap();
    assert_eq!(
        text.lines().next().unwrap(),
        "alpha,beta,loss,accuracy,smallest,largest"
    );
    let losses: Vec<f64> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(2).unwrap().parse().unwrap())
        .collect();
    let min = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!((losses.len(), report["loss_min"].as_f64()), (25, Some(min)));
    assert!((report["loss_center"].as_f64().unwrap() - losses[12]).abs() < 1e-5);
    let total = 1e-3 * 25.0 * report["ms_per_point"].as_f64().unwrap();
    assert!((total / report["seconds"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    let page = std::fs::read_to_string(folder.path("out/surface.html")).unwrap();
    assert!(
        page.contains("Loss surface") && page.contains("plotly.js v"),
        "no page"
    );
    let parquet = std::fs::read(folder.path("out/surface.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let mut files: Vec<String> = std::fs::read_dir(&out)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "contour.html",
        "directions.safetensors",
        "eigenvalues.html",
        "surface.csv",
        "surface.html",
        "surface.json",
        "surface.npz",
        "surface.parquet",
        "surface.vtk",
    ];
    assert_eq!(files, expected);
    let arrays = Tensor::read_npz(folder.path("out/surface.npz")).unwrap();
    let (name, array) = &arrays[2];
    let array = array.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!((name.as_str(), array), ("loss", losses.clone()));
    // Eigenvectors have length 1, and the curvature along the first is positive.
    let eigen = run(
        "surface",
        &["--grid", "3", "--plane", "eigen", "--range", "0.5"],
    );
    assert!(eigen["loss_max"].as_f64() > eigen["loss_center"].as_f64());
    let filter = run("surface", &["--grid", "3"]);
    assert_eq!(filter, {
        let mut again = run("surface", &["--grid", "3"]);
        for key in ["seconds", "ms_per_point"] {
            again[key] = filter[key].clone();
        }
        again
    });

    let found = run("sharpness", &["--radius", "0.1"]);
    let number = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap();
    assert!(number("/worst/rise") >= number("/random/maximum"));
    assert!((number("/sam/rise") / number("/sam/second_order") - 1.0).abs() < 0.01);
    assert!(number("/stable_rate/limit/value") > 0.0);
    let penalised = run("sharpness", &["--radius", "0.1", "--l2", "0.01"]);
    assert_eq!(penalised["l2"], 0.01);
    assert!(penalised["loss"].as_f64() > found["loss"].as_f64());
    let adaptive = run("sharpness", &["--radius", "0.1", "--adaptive"]);
    assert_ne!(adaptive["worst"]["rise"], found["worst"]["rise"]);
}

#[test]
fn learning_coefficients() {
    // At a high temperature near θ, where the gradient matters little.
    let shared = [
        "llc",
        "--layers",
        "784,6,10",
        "--samples",
        "100",
        "--chains",
        "2",
        "--beta",
        "1e-4",
        "--localization",
        "1e6",
        "--max-gradients",
        "500",
    ];
    let found = json(&shared);
    let number = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap();
    assert_eq!(number("/coefficient/samples"), 2.0);
    assert!(number("/interval/0") <= number("/coefficient/value"));
    assert!(number("/step") > 0.0 && number("/r_hat") > 0.0 && number("/gradients") > 0.0);
    assert_eq!((number("/localization"), number("/beta")), (1e6, 1e-4));
    assert!(found["verdict"].is_string() && found["hand_derived"] == true);
    let batches = json(&[&shared[..], &["--batch-size", "10"]].concat());
    assert_eq!(batches["batch_size"], 10);
    let penalised = json(&[&shared[..], &["--l2", "0.01"]].concat());
    assert_eq!(
        (&penalised["l2"], &found["l2"]),
        (&0.01.into(), &0.0.into())
    );
    assert_ne!(penalised["loss"], found["loss"]);
    let help = landscape(&["llc", "--help"]).stdout;
    assert!(String::from_utf8(help).unwrap().contains("Examples:"));
}

#[test]
fn the_edge_of_stability() {
    let folder = Folder::new("stability");
    let out = folder.path("out");
    let shared = [
        "stability",
        "--layers",
        "784,6,10",
        "--samples",
        "100",
        "--optimizer",
        "sgd",
        "--lr",
        "0.25",
    ];
    let full = ["--batch", "100", "--epochs", "41", "--out", &out];
    let found = json(&[&shared[..], &full].concat());
    let points = found["points"].as_array().unwrap();
    assert_eq!(points.len(), 3);
    for (i, point) in points.iter().enumerate() {
        let number = |name: &str| point[name].as_f64().unwrap();
        assert_eq!(number("step"), 20.0 * i as f64);
        assert_eq!(
            (&point["measure"], number("threshold")),
            (&"sharpness".into(), 8.0)
        );
        assert!((number("ratio") - number("value") / 8.0).abs() < 1e-12);
    }
    assert_eq!(
        (&found["samples"], &found["sharpness_samples"]),
        (&100.into(), &100.into())
    );
    assert!(found["hand_derived"] == true && found["stopped"].is_null());
    let table = std::fs::read_to_string(folder.0.join("out/stability.csv")).unwrap();
    assert!(table.starts_with("step,loss,measure,value,error,threshold,ratio,learning rate\n0,"));
    assert_eq!(table.lines().count(), 4);
    for name in ["stability.html", "stability.json", "stability.parquet"] {
        assert!(folder.0.join("out").join(name).exists(), "{name}");
    }
    let batches = [
        "--measure",
        "batch,critical",
        "--batch",
        "20",
        "--interval",
        "1",
    ];
    let found = json(&[&shared[..], &batches].concat());
    let count = |measure: &str| {
        let points = found["points"].as_array().unwrap().iter();
        points.filter(|point| point["measure"] == measure).count()
    };
    assert_eq!((count("batch"), count("critical")), (15 - 2, 15));
    let help = landscape(&["stability", "--help"]).stdout;
    assert!(String::from_utf8(help).unwrap().contains("Examples:"));
}

#[test]
fn class_structure() {
    let folder = Folder::new("classes");
    let out = folder.path("out");
    let shared = ["classes", "--layers", "784,4,10", "--samples", "200"];
    let few = ["--top", "20", "--max-products", "12", "--out", &out];
    let found = json(&[&shared[..], &few].concat());
    let number = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap();
    let parts = ["class", "cross", "within", "own"];
    let sum: f64 = parts
        .map(|part| number(&format!("/traces/{part}/value")))
        .iter()
        .sum();
    assert!((sum / number("/traces/total/value") - 1.0).abs() < 1e-12);
    assert_eq!(
        found["class_eigenvalues"].as_array().map(Vec::len),
        Some(10)
    );
    assert_eq!(
        found["cross_eigenvalues"].as_array().map(Vec::len),
        Some(80)
    );
    assert_eq!(found["eigenvalues"].as_array().map(Vec::len), Some(20));
    assert_eq!(number("/outliers/significance"), 0.05);
    assert!(
        folder.0.join("out/classes.html").exists() && folder.0.join("out/classes.json").exists()
    );
    let help = landscape(&["classes", "--help"]).stdout;
    assert!(String::from_utf8(help).unwrap().contains("Examples:"));
}

#[test]
fn influences_of_training_samples() {
    let folder = Folder::new("influence");
    let out = folder.path("out");
    let run = |more: &[&str]| {
        let shared = ["influence", "--dataset", "synthetic", "--layers", "20,4,2"];
        let shared = [&shared[..], &["--samples", "60", "--dtype", "f64"]].concat();
        json(&[&shared[..], more].concat())
    };
    let found = run(&["--out", &out]);
    assert_eq!(
        (&found["converged"], &found["test_samples"]),
        (&true.into(), &200.into())
    );
    let csv = std::fs::read_to_string(folder.path("out/influence.csv")).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("sample,influence,error"));
    for (i, line) in lines.enumerate() {
        let expected = format!("{i},{},{}", found["values"][i], found["errors"][i]);
        let parse = |line: &str| -> Vec<f64> {
            let cells = line.split(',');
            cells.map(|x| x.parse().unwrap()).collect()
        };
        for (a, b) in parse(line).iter().zip(parse(&expected)) {
            assert!((a - b).abs() <= 1e-14 * b.abs(), "{line} {expected}");
        }
    }
    // The mean over test samples is the mean of their influences.
    let damped = ["--damping", "0.01", "--tolerance", "1e-10"];
    let both = run(&[&damped[..], &["--test-samples", "2"]].concat());
    let [first, second] = ["0", "1"].map(|i| run(&[&damped[..], &["--test-sample", i]].concat()));
    for (both, (a, b)) in numbers(&both["values"]).iter().zip(
        numbers(&first["values"])
            .iter()
            .zip(numbers(&second["values"])),
    ) {
        assert!((both - (a + b) / 2.0).abs() < 1e-9);
    }
    let plain = run(&[&damped[..], &["--solver", "plain"]].concat());
    let better = run(&damped);
    assert!(plain["products"].as_u64() > better["products"].as_u64());
    let help = landscape(&["influence", "--help"]).stdout;
    assert!(String::from_utf8(help).unwrap().contains("Examples:"));
}

/// A killed run resumes and gives the same numbers.
#[test]
fn a_killed_surface_resumes() {
    let folder = Folder::new("killed");
    let (whole, killed) = (folder.path("whole"), folder.path("killed"));
    let arguments = |out: &'static str| -> Vec<String> {
        let more = [
            "surface",
            "--layers",
            "784,32,10",
            "--samples",
            "5000",
            "--grid",
            "61",
        ];
        let out = folder.path(out);
        more.iter()
            .map(|s| (*s).to_owned())
            .chain(["--out".into(), out])
            .collect()
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_landscape"))
        .args(arguments("killed"))
        .spawn()
        .unwrap();
    let unfinished = folder.0.join("killed/unfinished");
    let size = || std::fs::metadata(&unfinished).map_or(0, |file| file.len());
    while size() <= 55 {
        assert!(child.try_wait().unwrap().is_none(), "too fast to be killed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.0.join("killed/surface.csv").exists());
    let done = (size() - 55) / 32;
    assert!(done > 0 && done < 61 * 61, "{done} points");
    // A checkpoint of another plane is rejected.
    let mut other = arguments("killed");
    other.extend(["--seed".into(), "1".into()]);
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let error = landscape(&other);
    assert!(String::from_utf8_lossy(&error.stderr).contains("other work"));

    for out in ["whole", "killed"] {
        let all = arguments(out);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(landscape(&all).status.success());
    }
    let csv = |dir: &str| std::fs::read(PathBuf::from(dir).join("surface.csv")).unwrap();
    assert_eq!(csv(&whole), csv(&killed));
    assert!(!unfinished.exists());
}

#[test]
fn two_networks_are_connected() {
    let folder = Folder::new("connect");
    let (a, b) = (folder.path("a.safetensors"), folder.path("b.safetensors"));
    for (path, seed) in [(&a, "0"), (&b, "1")] {
        json(
            &[
                &["train"],
                &NET[..],
                &["--epochs", "1", "--seed", seed, "--save", path],
            ]
            .concat(),
        );
    }
    let out = folder.path("out");
    let at = [
        &["connect", &a, &b],
        &NET[..],
        &["--samples", "500", "--epochs", "5"],
    ]
    .concat();
    let found = json(&[&at[..], &["--bends", "2", "--out", &out]].concat());
    let paths = found["paths"].as_array().unwrap();
    let height = |i: usize| paths[i]["barrier_height"].as_f64().unwrap();
    assert_eq!(paths.len(), 5);
    assert!(height(0) > 0.05 && height(3) < height(0) && height(4) < height(0));
    let table = std::fs::read_to_string(folder.path("out/connect.csv")).unwrap();
    assert_eq!(table.lines().count(), 6);
    assert!(folder.0.join("out/connect.html").exists());

    let same = json(
        &[
            &["connect", &a, &a],
            &NET[..],
            &["--samples", "500", "--epochs", "0"],
        ]
        .concat(),
    );
    for path in same["paths"].as_array().unwrap() {
        assert_eq!(
            (path["barrier_height"].as_f64(), path["path_norm"].as_f64()),
            (Some(0.0), Some(0.0))
        );
    }
    let wrong = landscape(&["connect", &a, &b, "--layers", "784,5,10", "--samples", "9"]);
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        error.contains("does not fit the model: 3 tensors have another shape"),
        "{error}"
    );
}

/// Networks with shortcuts, concatenation, attention and each normalisation are aligned. ResNet-18 has the layers of ResNet-20.
#[test]
fn all_networks_are_connected() {
    let folder = Folder::new("connect-zoo");
    let (a, b) = (folder.path("a.safetensors"), folder.path("b.safetensors"));
    let synthetic: (&[usize], usize, &str) = (&[20], 2, "synthetic");
    let images: (&[usize], usize, &str) = (&[1, 28, 28], 10, "mnist");
    let text: (&[usize], usize, &str) = (&[64], 69, "shakespeare");
    let (plain, batch): (Option<Norm>, _) = (None, Some(Norm::Batch));
    for (architecture, norm, (shape, outputs, dataset)) in [
        (Architecture::Residual, plain, synthetic),
        (Architecture::Residual, batch, synthetic),
        (Architecture::Dense, plain, synthetic),
        (Architecture::Dense, batch, synthetic),
        (Architecture::ResNet20, plain, images),
        (Architecture::DenseNet, plain, images),
        (Architecture::DenseNet, batch, images),
        (Architecture::VIT, plain, images),
        (Architecture::GPT, plain, text),
    ] {
        let mut design = architecture.design();
        if let Some(norm) = norm {
            design = design.normalization(norm);
        }
        for (path, seed) in [(&a, 1), (&b, 2)] {
            let model = design.build(shape, outputs, seed, &Device::Cpu).unwrap();
            model.parameters().save(path).unwrap();
        }
        let mut arguments = vec!["connect", &a, &b, "--model", architecture.name()];
        arguments.extend(["--dataset", dataset, "--samples", "8"]);
        arguments.extend(["--epochs", "0", "--points", "3"]);
        if norm.is_some() {
            arguments.extend(["--norm", "batch"]);
        }
        let found = json(&arguments);
        let paths = found["paths"].as_array().unwrap();
        assert_eq!(
            (paths.len(), &found["unmatched"]),
            (3, &serde_json::json!([]))
        );
        let length = |i: usize| paths[i]["path_norm"].as_f64().unwrap();
        assert!(length(1) < length(0), "{arguments:?}: {paths:?}");
    }
    // A trained path needs a last batch of at least two samples.
    let folder = Folder::new("connect-batch");
    let a = folder.path("a.safetensors");
    let design = Architecture::Residual.design().normalization(Norm::Batch);
    let model = design.build(&[20], 2, 1, &Device::Cpu).unwrap();
    model.parameters().save(&a).unwrap();
    let mut arguments = vec!["connect", &a, &a, "--model", "residual", "--norm", "batch"];
    arguments.extend(["--dataset", "synthetic", "--samples", "129"]);
    let wrong = landscape(&arguments);
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        error.contains("use another --samples, or --epochs 0"),
        "{error}"
    );
}

/// Peak memory of a command in MiB, polled every few milliseconds.
#[cfg(target_os = "linux")]
fn peak(arguments: &[&str]) -> f64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_landscape"))
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut highest = 0.0f64;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        highest = highest.max(number.unwrap_or(0.0) / 1024.0);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    highest
}

/// 600 images in the convolutional network cache about 400 MiB without a budget.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_within_its_budget() {
    let net = [
        "hvp",
        "--model",
        "cnn",
        "--samples",
        "600",
        "--runs",
        "1",
        "--block",
        "1",
    ];
    let with = |megabytes: &'static str| peak(&[&net[..], &["--memory", megabytes]].concat());
    let [none, some, all] = ["0", "50", "4096"].map(with);
    assert!(all - none > 200.0, "{none}, {some}, {all} MiB");
    assert!(some - none < 80.0, "{none}, {some}, {all} MiB");
}

/// 400 sequences in the language model cache about 240 MiB without a budget.
#[cfg(target_os = "linux")]
#[test]
fn memory_of_a_language_model_stays_within_its_budget() {
    let net = [
        "hvp",
        "--model",
        "gpt",
        "--context",
        "16",
        "--samples",
        "400",
        "--runs",
        "1",
        "--block",
        "1",
    ];
    let with = |megabytes: &'static str| peak(&[&net[..], &["--memory", megabytes]].concat());
    let [none, some, all] = ["0", "50", "4096"].map(with);
    assert!(all - none > 200.0, "{none}, {some}, {all} MiB");
    assert!(some - none < 80.0, "{none}, {some}, {all} MiB");
}

#[test]
fn convolutional_networks() {
    let folder = Folder::new("cnn");
    let saved = folder.path("w.safetensors");
    for model in ["cnn", "resnet20"] {
        let at = ["--model", model, "--samples", "2"];
        let times = json(&[&["hvp"], &at[..], &["--runs", "1"]].concat());
        assert_eq!(times["hand_derived"], true);
        let found = json(&[&["spectrum", "--top", "2", "--dtype", "f64"], &at[..]].concat());
        let graph = [
            &["spectrum", "--top", "2", "--dtype", "f64", "--autograd"],
            &at[..],
        ]
        .concat();
        for (a, b) in numbers(&found["eigenvalues"])
            .iter()
            .zip(numbers(&json(&graph)["eigenvalues"]))
        {
            assert!((a - b).abs() < 1e-6 * b.abs(), "{model}: {a} is not {b}");
        }
    }
    let design = Architecture::ResNet20.design();
    let model = design.build(&[1, 28, 28], 10, 1, &Device::Cpu).unwrap();
    model.parameters().save(&saved).unwrap();
    let other = landscape(&[
        "hvp",
        "--model",
        "cnn",
        "--samples",
        "8",
        "--weights",
        &saved,
    ]);
    assert!(
        String::from_utf8_lossy(&other.stderr)
            .contains("65 tensors of the file have no partner in the model"),
        "{other:?}"
    );
}

#[test]
fn transformers() {
    let folder = Folder::new("transformers");
    let text = folder.path("text");
    std::fs::write(&text, "to be or not to be: that is it.\n".repeat(30)).unwrap();
    let own = ["--model", "gpt", "--data", &text, "--context", "12"];
    for (network, sequences, parameters) in [
        (&["--model", "vit"][..], 60_000, 204_938),
        (&["--model", "gpt"], 10_000, 819_200),
        (&own, 852, 798_464),
    ] {
        let at = [network, &["--samples", "3"]].concat();
        let times = json(&[&["hvp", "--runs", "1", "--block", "2"], &at[..]].concat());
        assert_eq!(times["hand_derived"], true);
        assert_eq!(times["samples"], 3);
        assert_eq!(times["training_samples"], sequences);
        assert_eq!(times["parameters"], parameters);
        let more = ["--relative-error", "9", "--max-products", "12"];
        let trace = [&["trace", "--dtype", "f64"], &more[..], &at].concat();
        let [by_hand, by_graph] = [&[][..], &["--autograd"]].map(|flag| {
            let found = json(&[&trace, flag].concat());
            found["trace"]["value"].as_f64().unwrap()
        });
        assert!(
            (by_hand - by_graph).abs() < 1e-6 * by_graph.abs(),
            "{network:?}: {by_hand} is not {by_graph}"
        );
    }
    let more = ["--epochs", "2", "--batch", "32", "--lr", "0.003"];
    let trained = json(&[&["train"], &own[..], &more].concat());
    assert_eq!(trained["hand_derived"], true);
    let epoch = &trained["epochs"][1];
    let number = |key: &str| epoch[key].as_f64().unwrap();
    assert!(
        number("train_loss") < 0.5 && number("test_accuracy") > 0.8,
        "{epoch}"
    );
}

#[test]
fn an_analysis_can_be_reproduced() {
    let folder = Folder::new("analyze");
    let (first, again) = (folder.path("first"), folder.path("again"));
    let net = ["analyze", "--model", "shallow", "--dataset", "synthetic"];
    let more = [
        "--compute-hessian",
        "--visualize",
        "--track-trajectory",
        "--samples",
        "300",
        "--top",
        "3",
        "--damping",
        "0.5",
        "--grid",
        "5",
        "--epochs",
        "2",
        "--optimizer",
        "sgd",
        "--lr",
        "0.1",
        "--nesterov",
        "--clip",
        "2",
        "--schedule",
        "cosine",
        "--min-lr",
        "0.01",
        "--warmup",
        "3",
        "--sam",
        "0.05",
        "--seed",
        "4",
        "--save-dir",
        &first,
    ];
    let report = json(&[&net[..], &more].concat());
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap();
    assert!(number("/train/accuracy") > 0.6 && number("/hessian/largest/0/value") > 0.0);
    assert_eq!(report["subsample"]["random"]["samples"], 300);
    assert_eq!(number("/hessian/damping"), 0.5);
    let largest = |name: &str| number(&format!("/hessian/sampling/largest/{name}"));
    assert!(largest("low") < largest("high"));
    let mut files: Vec<String> = std::fs::read_dir(&first)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "config.toml",
        "contour.html",
        "evolution.csv",
        "evolution.html",
        "evolution.parquet",
        "history.csv",
        "history.html",
        "history.parquet",
        "path.csv",
        "path.html",
        "path.json",
        "path.parquet",
        "path_surface.html",
        "report.csv",
        "report.json",
        "report.parquet",
        "spectrum.html",
        "surface.csv",
        "surface.html",
        "surface.npz",
        "surface.parquet",
        "surface.vtk",
        "weights.safetensors",
    ];
    assert_eq!(files, expected);
    let read = |dir: &str, name: &str| std::fs::read(PathBuf::from(dir).join(name)).unwrap();
    let csv = String::from_utf8(read(&first, "report.csv")).unwrap();
    assert!(
        csv.starts_with("quantity,value,uncertainty,low,high,verdict\n"),
        "{csv}"
    );
    let evolution = String::from_utf8(read(&first, "evolution.csv")).unwrap();
    assert!(evolution.lines().count() > 10, "{evolution}");

    let viewed = json(&["view", &first]);
    assert_eq!(viewed["figures"], 7);
    let page = String::from_utf8(read(&first, "view.html")).unwrap();
    assert!(
        page.contains("plotly.js v") && !page.contains("<script src") && !page.contains("@PANELS@")
    );
    let empty = folder.path("nothing");
    std::fs::create_dir_all(&empty).unwrap();
    for (dir, problem) in [
        (&empty, "contains neither"),
        (&folder.path("no"), "is not a directory"),
    ] {
        let output = landscape(&["view", dir]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(problem), "{error}");
    }

    // The file contains all settings, and flags override it.
    let config = folder.path("first/config.toml");
    json(&["analyze", "--config", &config, "--save-dir", &again]);
    for name in ["report.json", "weights.safetensors", "surface.csv"] {
        assert_eq!(read(&first, name), read(&again, name), "{name}");
    }
    let weights = folder.path("first/weights.safetensors");
    let text = std::fs::read_to_string(&config).unwrap();
    let untracked = text.replace("track-trajectory = true", "track-trajectory = false");
    std::fs::write(&config, untracked).unwrap();
    let loaded = json(&[
        "analyze",
        "--config",
        &config,
        "--weights",
        &weights,
        "--save-dir",
        &again,
    ]);
    assert_eq!(loaded, report);
    let plain = json(&[&net[..], &["--epochs", "0", "--save-dir", &again]].concat());
    assert!(plain["hessian"].is_null() && plain["sharpness"]["worst"].as_f64() > Some(0.0));

    let steps = [
        "--steps",
        "9",
        "--track-trajectory",
        "--track-interval",
        "4",
    ];
    json(&[&net[..], &steps, &["--save-dir", &again]].concat());
    let evolution = String::from_utf8(read(&again, "evolution.csv")).unwrap();
    let steps = evolution.lines().skip(1).map(|line| line.split(',').next());
    assert_eq!(
        steps.map(Option::unwrap).collect::<Vec<_>>(),
        ["0", "4", "8", "9"]
    );
}

#[test]
fn reports_are_compared() {
    let folder = Folder::new("compare");
    let dirs = ["shallow", "dense"].map(|model| {
        let dir = folder.path(model);
        let analyze = ["analyze", "--model", model, "--dataset", "synthetic"];
        let more = ["--epochs", "2", "--compute-hessian", "--top", "2"];
        let last = ["--samples", "200", "--save-dir", &dir];
        json(&[&analyze[..], &more, &last].concat());
        dir
    });
    let out = folder.path("comparison");
    let output = landscape(&["compare", &dirs[0], &dirs[1], "--out", &out]);
    let text = String::from_utf8(output.stdout).unwrap();
    let first: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["shallow", "dense"]);
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("largest eigenvalue").contains('['), "{text}");
    assert!(
        text.contains("note: the training losses range from"),
        "{text}"
    );
    let read = |name: &str| std::fs::read_to_string(folder.path("comparison/") + name).unwrap();
    assert!(
        read("comparison.md")
            .starts_with("| quantity | shallow | dense |\n| :--- | :--- | :--- |\n")
    );
    assert!(read("comparison.csv").starts_with("model,parameters,training loss,"));

    // The same report twice, by its file, has nothing to note.
    let file = format!("{}/report.json", dirs[0]);
    let same = json(&["compare", &file, &dirs[0]]);
    assert_eq!(same["notes"], serde_json::json!([]));
    assert_eq!(same["reports"][0]["report"], same["reports"][1]["report"]);
    std::fs::write(folder.path("other.json"), "{}").unwrap();
    for (other, said) in [
        (
            "other.json",
            "not a report of this version of `landscape analyze`",
        ),
        ("missing", "give directories that `landscape analyze` wrote"),
    ] {
        let output = landscape(&["compare", &dirs[0], &folder.path(other)]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(said), "{error}");
    }
}

/// A residual network on photographs, from training to every result.
#[test]
fn a_resnet_is_analysed() {
    let folder = Folder::new("resnet");
    let record = |label: u8| -> Vec<u8> {
        let pixel = |i: usize| (i * (7 + usize::from(label)) % 251) as u8;
        [label].into_iter().chain((0..3072).map(pixel)).collect()
    };
    let cifar = folder.path("cifar-10-batches-bin");
    std::fs::create_dir_all(&cifar).unwrap();
    for (label, name) in [
        "test_batch",
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(format!("{cifar}/{name}.bin"), record(label as u8)).unwrap();
    }
    let (data, results) = (folder.path("."), folder.path("results"));
    let pipeline = [
        "analyze",
        "--model",
        "resnet20",
        "--dataset",
        "cifar10",
        "--visualize",
    ];
    let more = [
        "--compute-hessian",
        "--track-trajectory",
        "--save-dir",
        &results,
    ];
    let small = [
        "--data",
        &data,
        "--samples",
        "2",
        "--steps",
        "1",
        "--batch",
        "5",
        "--top",
        "1",
        "--grid",
        "3",
    ];
    let report = json(&[&pipeline[..], &more, &small].concat());
    assert_eq!(report["parameters"], 272_474);
    assert!(report["hessian"]["largest"][0]["value"].as_f64() > Some(0.0));
    let evolution = std::fs::read_to_string(format!("{results}/evolution.csv")).unwrap();
    assert_eq!(evolution.lines().count(), 1 + 2, "{evolution}"); // before and after the only step
    for name in [
        "surface.html",
        "spectrum.html",
        "evolution.html",
        "weights.safetensors",
    ] {
        assert!(
            std::fs::exists(format!("{results}/{name}")).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn errors_of_wrong_names_list_valid_names() {
    let folder = Folder::new("names");
    let (config, out) = (folder.path("config.toml"), folder.path("out"));
    let run = |text: &str| {
        std::fs::write(&config, text).unwrap();
        landscape(&["analyze", "--config", &config, "--save-dir", &out])
    };
    for (text, words) in [
        (
            "modle = 'cnn'",
            "unknown key `modle`: expected one of model, parameters, layers",
        ),
        ("config = 'x'", "unknown key `config`"),
        ("model = 'resnet19'", "resnet20, resnet18"),
        (
            "dataset = 'svhn'",
            "mnist, fashion-mnist, cifar10, cifar100, cifar100-coarse, synthetic",
        ),
        ("device = 'tpu'", "cpu, cuda"),
        ("optimizer = 'lion'", "sgd, adam, adamw"),
        (
            "epochs = 1.5",
            "invalid value '1.5' for '--epochs <EPOCHS>'",
        ),
        ("lr = true", "invalid value 'true' for '--lr <LR>'"),
        ("[training]\nlr = 1", "unknown key `training`"),
        ("layers = [[1]]", "`layers` cannot be of type array"),
        ("model", "TOML parse error"),
        ("sam = 0.1\nasam = 0.1", "cannot be used with"),
    ] {
        let output = run(text);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {error}");
        assert!(
            error.contains("config.toml: ") && error.contains(words),
            "{text}: {error}"
        );
    }
    let missing = landscape(&["analyze", "--config", &folder.path("none.toml")]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.toml: cannot be read"));
    let net = ["analyze", "--save-dir", &out, "--dataset", "synthetic"];
    for (arguments, words) in [
        (&["--device", "cuda"][..], "use --device cpu"),
        (
            &["--dataset", "cifar10"],
            "CIFAR-10 is not here, and HF_HUB_OFFLINE forbids the download",
        ),
        (&["--model", "cnn"], "channels × height × width"),
        (&["--model", "vit"], "channels × height × width"),
        (
            &["--model", "gpt"],
            "`gpt` reads text, and dataset `synthetic` has none: use --dataset shakespeare, or --dataset text with --data",
        ),
        (
            &["--dataset", "shakespeare"],
            "`mlp` does not read text, and dataset `shakespeare` is text: use --model gpt or another --dataset",
        ),
        (
            &["--model", "gpt", "--dataset", "text"],
            "no text is given: add --data FILE",
        ),
        (
            &["--model", "gpt", "--dataset", "shakespeare", "--data", "x"],
            "--data has no effect: the plays are part of this program",
        ),
        (
            &[
                "--model",
                "gpt",
                "--dataset",
                "shakespeare",
                "--context",
                "40000",
            ],
            "the text has 315697 characters, and --context 40000 needs at least 400010",
        ),
        (
            &[
                "--model",
                "gpt",
                "--dataset",
                "shakespeare",
                "--context",
                "0",
            ],
            "--context must be at least 1, found 0",
        ),
        (
            &["--context", "5"],
            "--context has no effect: only `gpt` reads sequences",
        ),
        (
            &[
                "--model",
                "gpt",
                "--dataset",
                "shakespeare",
                "--norm",
                "batch",
            ],
            "`gpt` normalises every position by LayerNorm",
        ),
        (
            &["--optimizer", "sgd", "--weight-decay", "0.1"],
            "--weight-decay needs --optimizer adamw",
        ),
        (
            &["--decay-group", "matrices"],
            "--decay-group needs --optimizer adamw",
        ),
        (&["--min-lr", "1e-4"], "--min-lr needs --schedule cosine"),
        (&["--momentum", "0.9"], "need --optimizer sgd"),
        (&["--epochs", "0", "--radius", "0"], "above 0"),
        (
            &["--epochs", "0", "--samples", "0"],
            "--samples must be at least 1",
        ),
        (
            &["--epochs", "0", "--top", "0", "--compute-hessian"],
            "at least 1",
        ),
        (&["--save-dir", "/dev/null/x"], "cannot create directory"),
    ] {
        let output = landscape(&[&net[..], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let both = ["--weights", "w", "--track-trajectory"];
    let output = landscape(&[&net[..], &both].concat());
    assert_eq!(output.status.code(), Some(2));
    let spectrum = [
        "spectrum",
        "--dataset",
        "synthetic",
        "--model",
        "residual",
        "--top",
        "2",
    ];
    let found = json(&spectrum);
    assert_eq!(found["samples"], 800);
}

/// A shard reports that it is done, but not if its eigenvalues failed.
#[test]
fn a_failing_shard_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let shard = [
        ["surface", "--layers"],
        ["20,4,2", "--dataset"],
        ["synthetic", "--samples"],
        ["50", "--grid"],
        ["3", "--shard"],
        ["1/2", "--out"],
    ];
    let shard = [shard.as_flattened(), &[out, "--eigenvalues"]].concat();
    let output = landscape(&shard);
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("this shard is done; rows of eigenvalues: 1 of 3")
    );
    // Other shards, and a run that would discard the eigenvalues.
    let error = |from: &str, to: &str| {
        let arguments: Vec<&str> = shard
            .iter()
            .map(|a| if *a == from { to } else { *a })
            .filter(|a| !a.is_empty())
            .collect();
        let output = landscape(&arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let thirds = error("1/2", "1/3");
    assert!(thirds.contains("has points of 2 shards, not 3"), "{thirds}");
    let without = error("--eigenvalues", "");
    assert!(without.contains("add --eigenvalues"), "{without}");
    let file = dir.path().join("unfinished.eigenvalues.shard-1-of-2");
    std::fs::write(
        file,
        "some text that is longer than the key of a checkpoint",
    )
    .unwrap();
    let output = landscape(&shard);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("is not a checkpoint of this program"),
        "{error}"
    );
}

/// A computed spectrum is read from its saved products. Products of another network are rejected.
#[test]
fn a_spectrum_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("products");
    let file = file.to_str().unwrap();
    fn top(file: &str) -> Vec<&str> {
        let network = [
            "--layers",
            "20,4,2",
            "--dataset",
            "synthetic",
            "--samples",
            "200",
        ];
        let matrix = ["spectrum", "--top", "5", "--resume", file];
        [&matrix[..], &network].concat()
    }
    let first = json(&top(file));
    assert_eq!(json(&top(file))["eigenvalues"], first["eigenvalues"]);
    let double = landscape(&[&top(file)[..], &["--dtype", "f64"]].concat());
    let error = String::from_utf8_lossy(&double.stderr);
    assert_eq!(double.status.code(), Some(1), "{error}");
    assert!(error.contains("not computed in f64"), "{error}");
    let other = landscape(&[&top(file)[..], &["--activation", "relu"]].concat());
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(
        error.contains("holds products of another operator"),
        "{error}"
    );
}

/// The commands in the README run, one after another. The long sweep and the command that needs PyTorch are only parsed.
#[test]
fn the_readmes_commands_run() {
    let dir = tempfile::tempdir().unwrap();
    let readme = include_str!("../README.md");
    let commands = readme
        .lines()
        .filter_map(|line| line.strip_prefix("landscape "));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let mut words = shlex::split(command).unwrap();
        let only_parsed = command.starts_with("sweep") || command.contains("--external");
        // A few samples take seconds.
        let few: &[&str] = match command.split(' ').next() {
            _ if only_parsed => &["--help"],
            Some("train" | "compare") => &[],
            Some("analyze") => &["--samples", "64", "--epochs", "1"],
            Some("llc") => &[
                "--samples",
                "16",
                "--batch-size",
                "8",
                "--max-gradients",
                "1000",
            ],
            _ => &["--samples", "16"],
        };
        if let Some(at) = words.iter().position(|word| word == "--samples") {
            words.drain(at..at + 2);
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_landscape"));
        let program = program.current_dir(dir.path()).args(words).args(few);
        let output = program.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
    }
    for file in [
        "W.safetensors",
        "surface/surface.html",
        "results/report.json",
    ] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    assert!(
        !landscape(&["spectrum", "--tops", "30", "--help"])
            .status
            .success()
    );
}

/// A missing browser is an error before the work.
#[test]
fn figures_are_written_in_the_given_formats() {
    let folder = Folder::new("figures");
    let out = folder.path("out");
    let net = [
        "--dataset",
        "synthetic",
        "--layers",
        "20,4,2",
        "--samples",
        "50",
    ];
    let density = |more: &[&str]| {
        landscape(
            &[
                &["density", "--probes", "2", "--steps", "2"],
                &net[..],
                more,
            ]
            .concat(),
        )
    };
    let refused = |more: &[&str], problem: &str| {
        let output = density(more);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && error.contains(problem),
            "{error}"
        );
    };
    refused(
        &["--figures", "svg"],
        "--figures has no effect: it needs --out",
    );
    refused(
        &["--figure-scale", "2", "--out", &out],
        "--figure-scale has no effect: it needs --figures png",
    );
    refused(
        &["--figures", "gif", "--out", &out],
        "[possible values: html, png, svg, pdf]",
    );
    let output = density(&["--figures", "svg,html", "--out", &out]);
    let exists = |name: &str| PathBuf::from(&out).join(name).exists();
    match output.status.success() {
        true => assert!(exists("density.svg") && exists("density.html") && exists("density.csv")),
        false => {
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.contains("install Chrome or Chromium"), "{error}");
            assert!(!exists("density.csv"));
        }
    }
    let output = landscape(
        &[
            &[
                "analyze",
                "--dataset",
                "synthetic",
                "--layers",
                "20,4,2",
                "--weights",
                "w.npz",
            ],
            &["--visualize=false", "--figures", "html", "--save-dir", &out][..],
        ]
        .concat(),
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(
            "--figures has no effect: there is no figure without a training or --visualize"
        ),
        "{error}"
    );
}
