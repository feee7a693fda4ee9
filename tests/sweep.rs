//! Sweeps over L2 strengths: contents of the files, and recovery after errors and kills.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use common::{Opaque, bytes};
use loss_landscape::polars::prelude::{
    CsvReadOptions, DataFrame, DataType, ParquetReader, SerReader,
};
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use loss_landscape::sweep::SweepReport;
use tempfile::{TempDir, tempdir};

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (bytes(a), bytes(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{name} differs");
    }
}

/// A column of a table as numbers.
fn column(table: &DataFrame, name: &str) -> Vec<f64> {
    let column = table
        .column(name)
        .unwrap()
        .cast(&DataType::Float64)
        .unwrap();
    column.f64().unwrap().iter().map(Option::unwrap).collect()
}

fn csv(path: impl AsRef<Path>) -> DataFrame {
    let options = CsvReadOptions::default();
    let path = Some(path.as_ref().to_path_buf());
    options
        .try_into_reader_with_file_path(path)
        .unwrap()
        .finish()
        .unwrap()
}

/// Six points on two moons.
fn moons() -> (Sweep, Dataset) {
    let sweep = Sweep::between(0.0, 0.05, 6)
        .unwrap()
        .with_trainer(
            Trainer::adam(0.02)
                .with_batch_size(20)
                .with_epochs(10)
                .with_patience(3),
        )
        .with_top(3)
        .with_tolerance(1e-6)
        .with_seed(5);
    let data = two_moons(100, 0.1, 1, &Device::Cpu).unwrap();
    (sweep, data.to_dtype(DType::F64).unwrap())
}

fn network(seed: u64) -> Result<Mlp, Error> {
    Mlp::new(&[2, 6, 1], Activation::Tanh, seed, &Device::Cpu)?.to_dtype(DType::F64)
}

fn finished() -> (Sweep, Dataset, TempDir) {
    let ((sweep, data), dir) = (moons(), tempdir().unwrap());
    sweep.run(dir.path(), network, &data, &data).unwrap();
    (sweep, data, dir)
}

#[track_caller]
fn assert_refused(sweep: &Sweep, dir: &Path, data: &Dataset, words: &[&str]) {
    let error = sweep.run(dir, network, data, data).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn files_agree_with_their_weights() {
    let mnist = Mnist::load(&Device::Cpu).unwrap();
    let (train, test) = (
        mnist.train.first(2_000).unwrap(),
        mnist.test.first(500).unwrap(),
    );
    let network = |seed| Mlp::new(&[784, 16, 10], Activation::Sigmoid, seed, &Device::Cpu);
    let sweep = Sweep::between(0.0, 0.0018, 10)
        .unwrap()
        .with_trainer(Trainer::adam(0.01).with_epochs(4).with_patience(2))
        .with_top(4)
        .with_seed(3);
    let dir = tempdir().unwrap();
    let report = sweep.run(dir.path(), network, &train, &test).unwrap();
    assert_eq!((report.points.len(), report.computed), (10, 10));
    assert!(report.points[0].test_accuracy.unwrap() > 0.8);

    let mut names = vec!["manifest.json".to_owned()];
    for (id, l2) in [
        "0", "0.0002", "0.0004", "0.0006", "0.0008", "0.001", "0.0012", "0.0014",
    ]
    .into_iter()
    .chain(["0.0016", "0.0018"])
    .enumerate()
    {
        names.push(format!("Model-{id}.csv"));
        for table in ["gradients", "Hessian-eigenvalues", "Hessian-eigenvectors"] {
            names.push(format!("{table}-{id}-{l2}.csv"));
        }
        names.push(format!("model_weights-{id}-{l2}.safetensors"));
    }
    names.sort();
    assert_eq!(bytes(dir.path()).into_keys().collect::<Vec<_>>(), names);

    for point in &report.points {
        let (id, l2) = (point.id, point.l2);
        let file = |what: &str| dir.path().join(format!("{what}-{id}-{l2}.csv"));
        let model = network(99).unwrap();
        let weights = file("model_weights").with_extension("safetensors");
        model.parameters().load(weights).unwrap();
        let plain = Objective::of(&model, &train, Loss::CrossEntropy).unwrap();
        let objective = plain.clone().with_l2(l2).unwrap();

        let row = csv(dir.path().join(format!("Model-{id}.csv")));
        let number = |name: &str| column(&row, name)[0];
        let score = objective.score().unwrap();
        assert_eq!((number("l2"), number("id")), (l2, id as f64));
        assert_eq!(
            (number("train_loss"), point.train_loss),
            (score.loss, score.loss)
        );
        assert_eq!(Some(number("train_accuracy")), score.accuracy);
        let cross_entropy = plain.loss().unwrap();
        assert!((score.loss - number("penalty") - cross_entropy).abs() < 1e-12);
        let tested = plain.with_data(&test).unwrap().score().unwrap();
        assert_eq!(number("test_loss"), tested.loss);
        assert_eq!(Some(number("test_accuracy")), tested.accuracy);
        assert_eq!((number("epochs"), number("best_epoch")), (4.0, 4.0));

        let gradient = csv(file("gradients"));
        assert_eq!(column(&gradient, "value"), objective.gradient().unwrap());
        let first = gradient.column("parameter").unwrap().str().unwrap();
        assert_eq!(
            (first.get(15), first.get(16)),
            (Some("layers.0.bias"), Some("layers.0.weight"))
        );
        assert_eq!(column(&gradient, "index")[14..18], [14.0, 15.0, 0.0, 1.0]);

        let eigen = csv(file("Hessian-eigenvalues"));
        let (values, residuals) = (column(&eigen, "eigenvalue"), column(&eigen, "residual"));
        assert_eq!(
            (&values, &residuals),
            (&point.eigenvalues, &point.residuals)
        );
        assert_eq!(column(&eigen, "rank"), [1.0, 2.0, 3.0, 4.0]);
        let lanczos = Lanczos::default()
            .with_which(Which::LargestMagnitude)
            .with_tolerance(1e-6)
            .with_seed(11);
        let mut again = lanczos.run(&objective.hessian(), 4).unwrap();
        again
            .pairs
            .sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        for ((value, residual), pair) in values.iter().zip(&residuals).zip(&again.pairs) {
            assert!(point.converged && *residual <= 1e-4 * values[0].abs());
            let bound = residual + pair.residual + 1e-6 * values[0].abs();
            assert!(
                (value - pair.value).abs() <= bound,
                "{value} is not {}",
                pair.value
            );
        }
        let vectors = csv(file("Hessian-eigenvectors"));
        for (i, value) in values.iter().enumerate() {
            let v = column(&vectors, &format!("v{}", i + 1));
            let image = objective.hvp(&v).unwrap();
            let error: f64 = image
                .iter()
                .zip(&v)
                .map(|(h, v)| (h - value * v).powi(2))
                .sum();
            assert!(error.sqrt() <= residuals[i] + 1e-6 * values[0].abs());
            let length: f64 = v.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-6);
        }
    }

    let table = report.table().unwrap();
    assert_eq!(
        (table.height(), column(&table, "eigenvalue")[9]),
        (10, report.points[9].eigenvalues[0])
    );
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains("\"gradient_norm\""));

    for jobs in [1, 2] {
        let other = tempdir().unwrap();
        let sweep = sweep.clone().with_jobs(jobs);
        sweep.run(other.path(), network, &train, &test).unwrap();
        assert_same(dir.path(), other.path());
    }
    let again = sweep
        .with_resume(true)
        .run(dir.path(), network, &train, &test)
        .unwrap();
    assert_eq!((again.computed, again.points), (0, report.points));
}

#[test]
fn strengths_are_decimals() {
    let strengths = Sweep::between(0.0, 0.09, 451).unwrap().strengths;
    for (i, strength) in strengths.iter().enumerate() {
        assert_eq!(*strength, format!("{}e-4", 2 * i).parse::<f64>().unwrap());
    }
    let (sweep, data) = moons();
    let dir = tempdir().unwrap();
    let sweep = sweep.with_strengths(vec![0.1 + 0.2, 1e-7, -0.0]);
    sweep.run(dir.path(), network, &data, &data).unwrap();
    for name in [
        "gradients-0-0.3.csv",
        "gradients-1-0.0000001.csv",
        "gradients-2-0.csv",
    ] {
        assert!(dir.path().join(name).exists(), "{name}");
    }
}

#[test]
fn invalid_settings_are_rejected_before_anything_is_written() {
    let ((sweep, data), dir) = (moons(), tempdir().unwrap());
    let out = dir.path().join("out");
    let with = |strengths: &[f64]| sweep.clone().with_strengths(strengths.to_vec());
    for (sweep, words) in [
        (with(&[]), "at least one"),
        (with(&[0.0, -0.1]), "-0.1"),
        (with(&[f64::NAN]), "NaN"),
        (with(&[f64::INFINITY]), "inf"),
        (with(&[0.3, 0.1 + 0.2]), "given twice"),
        (sweep.clone().with_top(0), "from 1 to 25"),
        (sweep.clone().with_top(26), "from 1 to 25"),
        (sweep.clone().with_tolerance(f64::NAN), "tolerance"),
        (sweep.clone().with_jobs(0), "jobs must be at least 1"),
        (
            sweep.clone().with_trainer(Trainer::adam(-1.0)),
            "learning rate",
        ),
        (
            sweep
                .clone()
                .with_trainer(Trainer::adam(0.1).with_batch_size(0)),
            "batch",
        ),
    ] {
        assert_refused(&sweep, &out, &data, &[words]);
        assert!(!out.exists());
    }
    for (start, end, count) in [
        (0.0, 0.1, usize::MAX),
        (0.1, 0.0, 3),
        (0.0, f64::NAN, 3),
        (0.0, 0.0, 2),
    ] {
        assert!(
            Sweep::between(start, end, count).is_err(),
            "{start}, {end}, {count}"
        );
    }
}

#[test]
fn a_directory_belongs_to_one_sweep() {
    let (sweep, data, dir) = finished();
    let before = bytes(dir.path());
    assert_refused(&sweep, dir.path(), &data, &["already contains a sweep"]);
    let resumed = sweep.with_resume(true);
    let trainer = || {
        Trainer::adam(0.02)
            .with_batch_size(20)
            .with_epochs(10)
            .with_patience(3)
    };
    let trained = |trainer| resumed.clone().with_trainer(trainer);
    for (other, words) in [
        (resumed.clone().with_top(4), "top is 3 there and 4 here"),
        (resumed.clone().with_seed(6), "seed is 5 there and 6 here"),
        (
            resumed.clone().with_parquet(true),
            "tables is \"csv\" there",
        ),
        (
            resumed.clone().with_strengths(vec![0.0, 0.01]),
            "strengths has 6 entries there and 2 here",
        ),
        (
            trained(trainer().with_epochs(11)),
            "trainer.epochs is 10 there and 11 here",
        ),
        (
            trained(trainer().with_patience(4)),
            "trainer.patience is 3 there and 4 here",
        ),
        (
            trained(trainer().with_sam(0.1)),
            "trainer.ascent is null there and {",
        ),
    ] {
        assert_refused(&other, dir.path(), &data, &["other settings", words]);
    }
    // λ and the seed of the trainer have no effect, because the sweep sets them.
    assert!(
        trained(trainer().with_l2(3.0).with_seed(9))
            .run(dir.path(), network, &data, &data)
            .is_ok()
    );
    let fewer = data.first(99).unwrap();
    assert_refused(
        &resumed,
        dir.path(),
        &fewer,
        &["samples is 100 there and 99 here"],
    );
    let moved = two_moons(100, 0.1, 2, &Device::Cpu).unwrap();
    assert_refused(
        &resumed,
        dir.path(),
        &moved.to_dtype(DType::F64).unwrap(),
        &["sha256 is"],
    );

    // A directory that another sweep has locked is refused.
    let lock = File::open(dir.path().join("manifest.json")).unwrap();
    lock.try_lock().unwrap();
    assert_refused(&resumed, dir.path(), &data, &["is in use by another sweep"]);
    drop(lock);
    assert_eq!(
        resumed
            .run(dir.path(), network, &data, &data)
            .unwrap()
            .computed,
        0
    );
    assert!(bytes(dir.path()) == before);

    // Results without a manifest have unknown settings.
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    assert_refused(
        &resumed,
        dir.path(),
        &data,
        &["Model-0.csv", "without a manifest"],
    );
    fs::write(dir.path().join("manifest.json"), "{}x").unwrap();
    assert_refused(&resumed, dir.path(), &data, &["not the manifest"]);
    assert!(
        SweepReport::read(dir.path().join("no"))
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
}

/// A sweep killed at any time leaves one of these states.
#[test]
fn an_interrupted_move_is_rolled_forward() {
    let (sweep, data, whole) = finished();
    let resumed = sweep.with_resume(true);
    let of_point_2 = |name: &&String| name.contains("-2-") || *name == "Model-2.csv";
    let names: Vec<String> = bytes(whole.path())
        .into_keys()
        .filter(|n| of_point_2(&n))
        .collect();
    assert_eq!(names.len(), 5);
    let copy = || {
        let dir = tempdir().unwrap();
        for (name, bytes) in bytes(whole.path()) {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    };
    // Interrupted when 0 to 5 files were not moved yet. `Model-2.csv` is the first name and moves last.
    for left in 0..=names.len() {
        let dir = copy();
        let staged = dir.path().join(".unfinished/2-whole");
        fs::create_dir_all(&staged).unwrap();
        for name in &names[..left] {
            fs::rename(dir.path().join(name), staged.join(name)).unwrap();
        }
        let report = resumed.run(dir.path(), network, &data, &data).unwrap();
        assert_eq!(report.computed, 0, "{left} files left");
        assert_same(dir.path(), whole.path());
    }
    // Interrupted while a point was written.
    let dir = copy();
    let staged = dir.path().join(".unfinished/2");
    fs::create_dir_all(&staged).unwrap();
    for name in &names {
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::write(staged.join(name), "half").unwrap();
    }
    let report = resumed.run(dir.path(), network, &data, &data).unwrap();
    assert_eq!(report.computed, 1);
    assert_same(dir.path(), whole.path());
    // Interrupted while the manifest was written.
    let manifest = fs::read(whole.path().join("manifest.json")).unwrap();
    for part in [0, manifest.len() / 2] {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("manifest.json"), &manifest[..part]).unwrap();
        resumed.run(dir.path(), network, &data, &data).unwrap();
        assert_same(dir.path(), whole.path());
    }
}

/// Files are deleted, emptied, truncated or changed in one bit. A resumed sweep computes the point again, with the same bytes.
#[test]
fn files_that_are_lost_or_damaged_are_computed_again() {
    let (sweep, data, dir) = finished();
    let whole = tempdir().unwrap();
    for (name, bytes) in bytes(dir.path()) {
        fs::write(whole.path().join(name), bytes).unwrap();
    }
    let resumed = sweep.with_resume(true);
    let run = || resumed.run(dir.path(), network, &data, &data).unwrap();
    let names = [
        "Model-1.csv",
        "gradients-1-0.01.csv",
        "Hessian-eigenvalues-1-0.01.csv",
        "Hessian-eigenvectors-1-0.01.csv",
        "model_weights-1-0.01.safetensors",
    ];
    for name in names {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        for damaged in [
            None,
            Some(&good[..0]),
            Some(&good[..middle]),
            Some(&flipped),
        ] {
            match damaged {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            assert_eq!(run().computed, 1, "{name}");
            assert_same(dir.path(), whole.path());
        }
    }
    // Swapped files of two points are recognised as damaged.
    let [a, b] = ["gradients-1-0.01.csv", "gradients-2-0.02.csv"].map(|name| dir.path().join(name));
    let bytes = fs::read(&a).unwrap();
    fs::copy(&b, &a).unwrap();
    fs::write(&b, bytes).unwrap();
    assert_eq!(run().computed, 2);
    assert_eq!(run().computed, 0);
}

#[test]
fn a_diverging_training_names_its_strength_and_keeps_other_points() {
    let ((sweep, data), dir) = (moons(), tempdir().unwrap());
    let sweep = sweep
        .with_strengths(vec![0.0, 0.01, 200.0, 0.02])
        .with_trainer(Trainer::sgd(0.1).with_batch_size(20).with_epochs(1_000));
    let words = ["point 3 of 4, L2 200: ", "diverged"];
    assert_refused(&sweep, dir.path(), &data, &words);
    let report = SweepReport::read(dir.path()).unwrap();
    assert_eq!(
        report.points.iter().map(|p| p.l2).collect::<Vec<_>>(),
        [0.0, 0.01, 0.02]
    );
    assert_eq!(bytes(dir.path()).len(), 16);
    assert_refused(
        &sweep.with_resume(true).with_jobs(2),
        dir.path(),
        &data,
        &words,
    );
}

/// The error names strengths that overflow. A tiny strength gets a short file name. Other points are computed.
#[test]
fn extreme_strengths() {
    let ((sweep, data), dir) = (moons(), tempdir().unwrap());
    let sweep = sweep.with_strengths(vec![0.0, 1e308, 1e-320, 1e300, 1.0]);
    for resume in [false, true] {
        let sweep = sweep.clone().with_resume(resume).with_jobs(2);
        let words = [
            "point 2 of 5, L2 1e308: ",
            "point 4 of 5, L2 1e300: ",
            "The other points are finished",
        ];
        assert_refused(&sweep, dir.path(), &data, &words);
    }
    assert!(dir.path().join("gradients-2-1e-320.csv").exists());
    let points = SweepReport::read(dir.path()).unwrap().points;
    assert_eq!(
        points.iter().map(|p| p.l2).collect::<Vec<_>>(),
        [0.0, 1e-320, 1.0]
    );
}

#[test]
fn strong_penalties_give_a_multiple_eigenvalue() {
    let ((sweep, data), dir) = (moons(), tempdir().unwrap());
    // The weights vanish, so the Hessian is 2λI except for the output bias.
    let sweep = sweep
        .with_strengths(vec![50.0])
        .with_top(12)
        .with_tolerance(1e-4);
    let point = sweep
        .run(dir.path(), network, &data, &data)
        .unwrap()
        .points
        .remove(0);
    assert!(point.converged && point.eigenvalues.len() == 12);
    for value in point.eigenvalues {
        assert!((value - 100.0).abs() < 1.0, "{value}");
    }
}

#[test]
fn parquet_files_have_the_same_tables() {
    let (sweep, data, text) = finished();
    let dir = tempdir().unwrap();
    let sweep = sweep.with_parquet(true);
    let report = sweep.run(dir.path(), network, &data, &data).unwrap();
    assert_eq!(
        report.points,
        SweepReport::read(text.path()).unwrap().points
    );
    for (table, columns) in [
        ("gradients-1-0.01", &["index", "value"][..]),
        (
            "Hessian-eigenvalues-1-0.01",
            &["rank", "eigenvalue", "residual"],
        ),
        ("Hessian-eigenvectors-1-0.01", &["v1", "v2", "v3"]),
    ] {
        let file = File::open(dir.path().join(format!("{table}.parquet"))).unwrap();
        let binary = ParquetReader::new(file).finish().unwrap();
        let text = csv(text.path().join(format!("{table}.csv")));
        assert_eq!(binary.get_column_names(), text.get_column_names());
        for name in columns {
            let rounded =
                |table| -> Vec<f32> { column(table, name).iter().map(|v| *v as f32).collect() };
            assert_eq!(rounded(&binary), rounded(&text), "{table}, {name}");
        }
    }
    let again = tempdir().unwrap();
    sweep
        .with_jobs(3)
        .run(again.path(), network, &data, &data)
        .unwrap();
    assert_same(dir.path(), again.path());
}

#[test]
fn custom_models_and_regression() {
    let (sweep, data) = moons();
    let values = data.one_hot(2).unwrap();
    let network = |seed| {
        let mlp = Mlp::new(&[2, 5, 2], Activation::Tanh, seed, &Device::Cpu)?;
        Ok(Opaque(mlp.to_dtype(DType::F64)?))
    };
    let dirs = [1, 3].map(|jobs| {
        let dir = tempdir().unwrap();
        let sweep = sweep.clone().with_jobs(jobs);
        let report = sweep.run(dir.path(), network, &values, &values).unwrap();
        assert!(report.points.iter().all(|p| p.train_accuracy.is_none()));
        assert_eq!(
            report
                .table()
                .unwrap()
                .column("test_accuracy")
                .unwrap()
                .null_count(),
            6
        );
        dir
    });
    assert_same(dirs[0].path(), dirs[1].path());
}

#[test]
fn strengths_on_the_command_line() {
    let dir = tempdir().unwrap();
    let run = |l2: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
        command.args([
            "sweep",
            "--layers",
            "784,4,10",
            "--samples",
            "50",
            "--epochs",
            "1",
        ]);
        command.args(["--top", "1", "--json", "--l2", l2, "--out"]);
        command.arg(dir.path().join(l2)).output().unwrap()
    };
    for wrong in ["", "x", "0:0.1", "0:0.1:1", "0:0.1:x", "0.1:0:3", "1,,2"] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong}");
    }
    let negative = run("-0.1");
    assert_eq!(negative.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&negative.stderr).contains("finite number"));
    for (l2, expected) in [
        ("0:0.3:4", vec![0.0, 0.1, 0.2, 0.3]),
        ("0.5,0", vec![0.5, 0.0]),
    ] {
        let report: serde_json::Value = serde_json::from_slice(&run(l2).stdout).unwrap();
        let points = report["points"].as_array().unwrap();
        let found: Vec<f64> = points.iter().map(|p| p["l2"].as_f64().unwrap()).collect();
        assert_eq!(found, expected);
        let read = SweepReport::read(dir.path().join(l2)).unwrap();
        assert_eq!(read.points[1].l2, expected[1]);
    }
}

/// A limit on file sizes simulates a full disk.
#[cfg(unix)]
#[test]
fn a_failed_write_keeps_finished_points() {
    let dir = tempdir().unwrap();
    let run = |out: &str, limit: &str, more: &[&str]| {
        let out = dir.path().join(out);
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\""),
            "sh",
        ]);
        shell.args([
            env!("CARGO_BIN_EXE_landscape"),
            "sweep",
            "--layers",
            "784,8,10",
        ]);
        shell.args([
            "--samples",
            "300",
            "--epochs",
            "1",
            "--top",
            "3",
            "--l2",
            "0,0.01,0.02",
        ]);
        let output = shell.arg("--out").arg(&out).args(more).output().unwrap();
        (
            out,
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (whole, good, error) = run("whole", "unlimited", &[]);
    assert!(good, "{error}");
    let (full, ..) = run("full", "unlimited", &[]);
    for (name, _) in bytes(&full) {
        if name.contains("-1-") || name == "Model-1.csv" {
            fs::remove_file(full.join(name)).unwrap();
        }
    }
    let before = bytes(&full);
    let (_, good, error) = run("full", "40", &["--resume"]);
    assert!(
        !good && error.starts_with("error: ") && error.contains("cannot be written"),
        "{error}"
    );
    assert!(bytes(&full) == before);
    let (_, good, error) = run("full", "unlimited", &["--resume"]);
    assert!(good, "{error}");
    assert_same(&full, &whole);
    let (_, good, error) = run("full/manifest.json/below", "unlimited", &[]);
    assert!(
        !good && error.contains("cannot create directory"),
        "{error}"
    );
}
