//! Objectives whose samples are read in parts.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{assert_close, numbers};
use loss_landscape::data::{DataReader, InputNormalization, SampleSource, StoredSamples, idx};
use loss_landscape::files::{WRITABLE, write_tensors};
use loss_landscape::objective::CrossEntropy;
use loss_landscape::prelude::*;
use tempfile::tempdir;

const CPU: Device = Device::Cpu;

/// Counts the samples that are read, and replaces the labels of a range.
struct Counting {
    data: Dataset,
    read: Arc<AtomicUsize>,
    largest: Arc<AtomicUsize>,
}

impl Counting {
    fn new(data: &Dataset) -> Self {
        Self {
            data: data.clone(),
            read: Arc::default(),
            largest: Arc::default(),
        }
    }
}

impl SampleSource for Counting {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn read(&self, range: Range<usize>) -> Result<Dataset, Error> {
        self.read.fetch_add(range.len(), Ordering::Relaxed);
        self.largest.fetch_max(range.len(), Ordering::Relaxed);
        // A copy, as from a file.
        self.data.select(&range.collect::<Vec<_>>())
    }
}

fn data(loss: &Loss, dtype: DType) -> Dataset {
    let n = 73;
    let x = Tensor::from_vec(numbers(n * 5, 1), (n, 5), &CPU).unwrap();
    let data = match loss {
        Loss::Mse => {
            let y = Tensor::from_vec(numbers(n * 3, 2), (n, 3), &CPU);
            Dataset::regression(&x, &y.unwrap())
        }
        _ => {
            let labels: Vec<u32> = (0..n as u32).map(|i| i * i % 3).collect();
            Dataset::classification(&x, &Tensor::from_vec(labels, n, &CPU).unwrap())
        }
    };
    data.unwrap().to_dtype(dtype).unwrap()
}

#[test]
fn results_are_those_of_all_samples_up_to_rounding() {
    for loss in [Loss::CrossEntropy, Loss::Mse] {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let data = data(&loss, dtype);
            let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
            let model = model.to_dtype(dtype).unwrap();
            let whole = Objective::of(&model, &data, loss.clone()).unwrap();
            let whole = whole.with_l2(0.01).unwrap();
            for whole in [whole.clone(), whole.by_autograd()] {
                for part in [1, 20, 72, 73, 1000] {
                    let parts = whole.with_source(Counting::new(&data), part).unwrap();
                    compare(&whole, &parts, tolerance);
                }
            }
        }
    }
}

#[track_caller]
fn compare(whole: &Objective, parts: &Objective, tolerance: f64) {
    assert_eq!(parts.samples(), whole.samples());
    assert_eq!(parts.is_hand_derived(), whole.is_hand_derived());
    let theta = numbers(whole.dim(), 7);
    for scores in [
        [whole.score().unwrap(), parts.score().unwrap()],
        [
            whole.score_at(&theta).unwrap(),
            parts.score_at(&theta).unwrap(),
        ],
    ] {
        let [a, b] = scores;
        assert_close(&[a.loss], &[b.loss], tolerance);
        assert_eq!(a.accuracy, b.accuracy);
    }
    let [a, b] = [whole, parts].map(|o| o.gradient().unwrap());
    assert_close(&a, &b, tolerance);
    let [a, b] = [whole, parts].map(|o| o.gradient_at(&theta).unwrap());
    assert_close(&[a.0], &[b.0], tolerance);
    assert_close(&a.1, &b.1, tolerance);
    let vectors = [numbers(whole.dim(), 8), numbers(whole.dim(), 9)];
    let [a, b] = [whole, parts].map(|o| common::products(o, &vectors));
    for (a, b) in a.iter().zip(&b) {
        assert_close(a, b, tolerance);
    }
    let [a, b] = [whole, parts].map(|o| {
        let fixed = o.gauss_newton().at(theta.clone()).unwrap();
        fixed.block(&["layers.1"]).unwrap().dense().unwrap()
    });
    for (a, b) in a.matrix().iter().zip(b.matrix().iter()) {
        assert_close(&[*a], &[*b], 100.0 * tolerance);
    }
    let [a, b] = [whole, parts].map(|o| Plane::random(o, 0, 1.0, 3).unwrap());
    let [a, b] = [a, b].map(|plane| plane.losses.iter().copied().collect::<Vec<f64>>());
    assert_close(&a, &b, 10.0 * tolerance);
}

#[test]
fn each_evaluation_reads_every_sample_once_and_never_more_than_a_part() {
    let data = data(&Loss::CrossEntropy, DType::F64);
    let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let whole = Objective::of(&model, &data.first(2).unwrap(), Loss::CrossEntropy).unwrap();
    let source = Counting::new(&data);
    let (read, largest) = (source.read.clone(), source.largest.clone());
    let parts = whole.with_source(source, 20).unwrap();
    assert_eq!(read.swap(0, Ordering::Relaxed), 20);
    assert_eq!(parts.data().len(), 20);
    parts.loss().unwrap();
    parts.gradient().unwrap();
    let vectors = vec![numbers(parts.dim(), 1); 7];
    parts.hessian().apply_block(&vectors).unwrap();
    assert_eq!(read.load(Ordering::Relaxed), 3 * 73);
    assert_eq!(largest.load(Ordering::Relaxed), 20);
    // After more training it is the objective at the new θ.
    model
        .parameters()
        .set_flat(&numbers(parts.dim(), 3))
        .unwrap();
    let all = whole.with_data(&data).unwrap();
    assert_close(&[parts.loss().unwrap()], &[all.loss().unwrap()], 1e-12);
}

#[test]
fn what_needs_all_samples_and_unfit_samples_are_errors() {
    let data = data(&Loss::CrossEntropy, DType::F64);
    let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let whole = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let parts = whole.with_source(data.clone(), 20).unwrap();
    let trained = Trainer::sgd(0.1).fit_objective(&parts, &parts);
    let error = trained.unwrap_err().to_string();
    assert!(
        error.contains("training needs all samples in memory"),
        "{error}"
    );
    assert!(parts.with_source(data.clone(), 20).is_err());
    assert!(whole.with_source(data.clone(), 0).is_err());

    // A label out of range in the third part.
    let mut labels = data.labels().unwrap();
    labels[50] = 3;
    let labels = Tensor::from_vec(labels, data.len(), &CPU).unwrap();
    let wrong = Dataset::classification(data.inputs(), &labels).unwrap();
    for whole in [whole.clone(), whole.clone().by_autograd()] {
        let parts = whole.with_source(wrong.clone(), 20).unwrap();
        let error = parts.gradient().unwrap_err().to_string();
        assert!(
            error.contains("samples 40..60 cannot be used: label 3 of sample 10"),
            "{error}"
        );
    }
    let single = data.to_dtype(DType::F32).unwrap();
    assert!(whole.with_source(single, 20).is_err());

    let weighted = CrossEntropy::default().with_label_smoothing(0.1);
    let weighted = Objective::of(&model, &data, weighted).unwrap();
    let error = weighted.with_source(data, 20).unwrap_err().to_string();
    assert!(error.contains("needs the labels of all samples"), "{error}");
}

/// Writes inputs and values; `.npz` files are not compressed.
fn write(path: &Path, data: &Dataset) {
    let Targets::Values(values) = data.targets() else {
        unreachable!()
    };
    let arrays = [
        ("x".to_owned(), data.inputs().clone()),
        ("y".to_owned(), values.clone()),
    ];
    write_tensors(path, WRITABLE, arrays).unwrap();
}

#[test]
fn files_are_read_in_parts() {
    let dir = tempdir().unwrap();
    let data = data(&Loss::Mse, DType::F64);
    let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let whole = Objective::of(&model, &data, Loss::Mse).unwrap();
    for name in ["a.safetensors", "a.npz"] {
        let path = dir.path().join(name);
        write(&path, &data);
        let stored = StoredSamples::open(&path, "x", "y", DType::F64).unwrap();
        assert_eq!(stored.len(), 73);
        let [a, b] = [stored.read(20..40).unwrap(), data.read(20..40).unwrap()];
        let rows = |data: &Dataset| data.inputs().to_vec2::<f64>().unwrap();
        assert_eq!(rows(&a), rows(&b));
        assert!(stored.read(60..74).is_err());
        let parts = whole.with_source(stored, 20).unwrap();
        assert_close(
            &parts.gradient().unwrap(),
            &whole.gradient().unwrap(),
            1e-12,
        );
        let single = StoredSamples::open(&path, "x", "y", DType::F32).unwrap();
        assert_eq!(single.read(0..1).unwrap().inputs().dtype(), DType::F32);

        let error = StoredSamples::open(&path, "inputs", "y", DType::F64).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("has no array `inputs`; it has `x` [73, 5], `y` [73, 3]"),
            "{error}"
        );
        assert!(StoredSamples::open(&path, "x", "y", DType::U32).is_err());
        // A file that is cut or damaged is an error, at the latest when its samples are read.
        let bytes = fs::read(&path).unwrap();
        for len in (0..bytes.len()).step_by(97) {
            fs::write(&path, &bytes[..len]).unwrap();
            let stored = StoredSamples::open(&path, "x", "y", DType::F64);
            assert!(stored.is_err(), "{name} of {len} bytes");
        }
        for at in (0..bytes.len()).step_by(5) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            fs::write(&path, &damaged).unwrap();
            if let Ok(stored) = StoredSamples::open(&path, "x", "y", DType::F64) {
                let _ = stored.read(0..stored.len().min(1000));
            }
        }
    }
}

/// Integers are labels and tokens.
#[test]
fn labels_and_tokens_are_read_in_parts() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("tokens.safetensors");
    let tokens = Tensor::new(&[[0u32, 1, 2], [2, 1, 0], [1, 1, 1]], &CPU).unwrap();
    let labels = Tensor::new(&[0i64, 1, 1], &CPU).unwrap();
    let arrays = [("inputs", tokens.clone()), ("targets", labels)]
        .into_iter()
        .collect();
    let arrays: HashMap<&str, Tensor> = arrays;
    candle::safetensors::save(&arrays, &path).unwrap();
    let stored = StoredSamples::open(&path, "inputs", "targets", DType::F32).unwrap();
    let read = stored.read(1..3).unwrap();
    assert_eq!(read.labels().unwrap(), [1, 1]);
    assert_eq!(
        read.inputs().to_vec2::<u32>().unwrap(),
        [[2, 1, 0], [1, 1, 1]]
    );
    let swapped = StoredSamples::open(&path, "inputs", "inputs", DType::F32);
    assert_eq!(
        swapped.unwrap().read(0..1).unwrap().labels().unwrap(),
        [0, 1, 2]
    );
}

/// Writes arrays of any type as safetensors.
fn save(path: &Path, arrays: &[(&str, Tensor)]) {
    let arrays = arrays.iter().cloned();
    let arrays: HashMap<&str, Tensor> = arrays.collect();
    candle::safetensors::save(&arrays, path).unwrap();
}

fn rows(data: &Dataset) -> Vec<Vec<f64>> {
    let inputs = data.inputs().to_dtype(DType::F64).unwrap();
    inputs.flatten_from(1).unwrap().to_vec2().unwrap()
}

#[test]
fn negative_integers_are_refused_with_their_sample() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("wrong.safetensors");
    let good = Tensor::new(&[[0i64, 1], [1, 1], [2, 0], [1, 0]], &CPU).unwrap();
    let wrong = Tensor::new(&[[0i64, 1], [1, 1], [2, 0], [1, -3]], &CPU).unwrap();
    for (inputs, targets, words) in [
        (
            &wrong,
            &good,
            "array `inputs` has the integer -3 in sample 3",
        ),
        (&good, &wrong, "target -3 of sample 3 is not a label"),
    ] {
        save(
            &path,
            &[("inputs", inputs.clone()), ("targets", targets.clone())],
        );
        let stored = StoredSamples::open(&path, "inputs", "targets", DType::F32).unwrap();
        assert!(stored.read(0..3).is_ok());
        let error = stored.read(2..4).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("wrong.safetensors"),
            "{error}"
        );
    }
    let values = Tensor::zeros((4, 1), DType::F32, &CPU).unwrap();
    for labels in [Tensor::new(&[0i64, 1, -1, 0], &CPU).unwrap(), wrong] {
        let error = Dataset::classification(&values, &labels).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("target -1 of sample 2") || error.contains("target -3 of sample 3"),
            "{error}"
        );
    }
    let large = Tensor::new(&[0i64, 1 << 32, 1, 0], &CPU).unwrap();
    let error = Dataset::classification(&values, &large).unwrap_err();
    assert!(
        error.to_string().contains("target 4294967296 of sample 1"),
        "{error}"
    );
}

#[test]
fn a_file_opened_in_parts_has_the_samples_of_the_file_in_memory() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("data.safetensors");
    let bytes: Vec<u8> = (0..60).map(|i: u8| i.wrapping_mul(41)).collect();
    let a = Tensor::from_vec(bytes, (20, 3), &CPU).unwrap();
    let b = Tensor::from_vec(numbers(20, 3), 20, &CPU).unwrap();
    let labels = Tensor::from_iter((0..20i64).map(|i| i * i % 5), &CPU).unwrap();
    save(
        &path,
        &[
            ("a", a.clone()),
            ("b", b.to_dtype(DType::F32).unwrap()),
            ("y", labels.unsqueeze(1).unwrap()),
            ("test_a", a.narrow(0, 0, 2).unwrap()),
            (
                "test_b",
                b.narrow(0, 0, 2).unwrap().to_dtype(DType::F32).unwrap(),
            ),
            ("test_y", labels.narrow(0, 0, 2).unwrap()),
        ],
    );
    let reader = DataReader::default()
        .with_inputs(["a", "b"])
        .with_targets("y")
        .with_tokens(false);
    let whole = reader.read(&path, &CPU).unwrap();
    let (train, test) = reader.open(&path, DType::F32, &CPU).unwrap();
    assert_eq!((train.len(), test.unwrap().len()), (20, 2));
    assert_eq!(train.bytes(), 20.0 * (4.0 * 4.0 + 4.0));
    assert_eq!(train.class_counts().unwrap().unwrap(), [4, 8, 0, 0, 8]);
    assert_eq!(train.num_tokens().unwrap(), 0);
    let normalization = InputNormalization::per_channel(&whole.train).unwrap();
    assert_eq!(
        InputNormalization::per_channel(&train).unwrap(),
        normalization
    );
    let normalized = train
        .normalized(&normalization)
        .unwrap()
        .read(5..20)
        .unwrap();
    let expected = whole.train.normalized(&normalization).unwrap();
    assert_eq!(rows(&normalized), rows(&expected)[5..]);
    assert_eq!(
        normalized.labels().unwrap(),
        whole.train.labels().unwrap()[5..]
    );
    assert!(train.first(7).unwrap().read(0..8).is_err());
    assert!(train.first(21).is_err());
    let shared = reader.with_test_share(0.5).open(&path, DType::F32, &CPU);
    assert!(
        shared
            .unwrap_err()
            .to_string()
            .contains("all samples in memory")
    );
}

/// Writes grey images of 12 × 20 bytes and their labels, of 3 classes, as `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`.
fn write_idx(prefix: &Path, n: usize, seed: u64) {
    let file = |name: &str, head: &[u8], body: Vec<u8>| {
        let path = format!("{}-{name}", prefix.display());
        fs::write(path, [head, &body].concat()).unwrap();
    };
    let count = (n as u32).to_be_bytes();
    let pixels = numbers(n * 240, seed)
        .into_iter()
        .map(|x| (100.0 * (x + 1.0)) as u8);
    let labels = (0..n).map(|i| ((i * i + i / 2) % 3) as u8);
    let head = [&[0, 0, 8, 3][..], &count, &[0, 0, 0, 12, 0, 0, 0, 20]].concat();
    file("images-idx3-ubyte", &head, pixels.collect());
    let head = [&[0, 0, 8, 1][..], &count].concat();
    file("labels-idx1-ubyte", &head, labels.collect());
}

/// Replaces a file by its gzipped content.
fn gzip(path: &Path) {
    let packed = fs::File::create(format!("{}.gz", path.display())).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    encoder.write_all(&fs::read(path).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn idx_files_opened_in_parts_have_the_samples_of_the_files_in_memory() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    write_idx(&dir.join("train"), 50, 0);
    write_idx(&dir.join("t10k"), 7, 1);
    let images = dir.join("train-images-idx3-ubyte");
    let whole = idx::load_from(dir, &CPU).unwrap();
    for is_gzipped in [false, true] {
        if is_gzipped {
            gzip(&images);
        }
        let (train, test) = idx::open(dir, DType::F64, &CPU).unwrap();
        let test = test.unwrap();
        assert_eq!((train.len(), test.len()), (50, 7));
        assert_eq!(train.bytes(), 50.0 * (240.0 * 8.0 + 4.0));
        assert_eq!(
            train.class_counts().unwrap().unwrap().iter().sum::<usize>(),
            50
        );
        // Gzipped files are also read backwards.
        for range in [0..50, 20..30, 30..50, 3..4, 0..1] {
            let found = train.read(range.clone()).unwrap();
            assert_eq!(found.inputs().dims()[1..], [1, 12, 20]);
            assert_eq!(found.inputs().dtype(), DType::F64);
            assert_eq!(rows(&found), rows(&whole.train)[range.clone()]);
            assert_eq!(
                found.labels().unwrap(),
                whole.train.labels().unwrap()[range]
            );
        }
        assert_eq!(rows(&test.read(2..7).unwrap()), rows(&whole.test)[2..]);
    }
}

#[test]
fn damaged_idx_files_in_parts_are_errors() {
    let open = |dir: &Path| idx::open(dir, DType::F32, &CPU);
    let error = |dir: &Path| open(dir).unwrap_err().to_string();
    let folder = || {
        let dir = tempdir().unwrap();
        write_idx(&dir.path().join("train"), 50, 0);
        let [images, labels] = ["images-idx3", "labels-idx1"]
            .map(|name| dir.path().join(format!("train-{name}-ubyte")));
        (dir, images, labels)
    };
    let (dir, images, labels) = folder();
    let bytes = fs::read(&images).unwrap();
    fs::write(&images, &bytes[..bytes.len() - 1]).unwrap();
    assert!(error(dir.path()).contains("states the shape [50, 12, 20], and it has 12015 bytes"));
    fs::write(&images, &bytes).unwrap();
    let mut wrong = fs::read(&labels).unwrap();
    wrong[3] = 0;
    fs::write(&labels, &wrong).unwrap();
    assert!(
        error(dir.path()).contains("no samples"),
        "{}",
        error(dir.path())
    );

    // A byte of the last row, and a checksum.
    let (dir, images, _) = folder();
    gzip(&images);
    let packed = dir.path().join("train-images-idx3-ubyte.gz");
    let bytes = fs::read(&packed).unwrap();
    for (cut, changed) in [(9, None), (0, Some(6))] {
        let mut bytes = bytes[..bytes.len() - cut].to_vec();
        if let Some(from_end) = changed {
            let i = bytes.len() - from_end;
            bytes[i] ^= 1;
        }
        fs::write(&packed, bytes).unwrap();
        let (train, _) = open(dir.path()).unwrap();
        assert!(train.read(0..10).is_ok());
        let error = train.read(40..50).unwrap_err().to_string();
        assert!(
            error.contains("truncated or corrupted") && error.contains("ubyte.gz"),
            "{error}"
        );
    }

    // Signed labels: −1 in sample 7.
    let (dir, _, labels) = folder();
    let mut bytes = fs::read(&labels).unwrap();
    bytes[2] = 9;
    bytes[8 + 7] = 255;
    fs::write(&labels, bytes).unwrap();
    let (train, _) = open(dir.path()).unwrap();
    for error in [
        train.read(5..9).unwrap_err(),
        train.class_counts().unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("target -1 of sample 7") && error.matches("labels-idx1").count() == 1,
            "{error}"
        );
    }
}

#[test]
fn a_plane_of_samples_in_parts_is_resumed() {
    let dir = tempdir().unwrap();
    let data = data(&Loss::CrossEntropy, DType::F64);
    let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let whole = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let parts = whole.with_source(data, 20).unwrap();
    let grid = Grid::square(1.0, 3).unwrap();
    let saved = grid.clone().with_checkpoint(dir.path().join("plane"));
    let [d1, d2] = [1, 2].map(|seed| direction::gaussian(model.parameters(), seed));
    let plane = |grid: &Grid| Plane::on_grid(&parts, &d1, &d2, grid).unwrap().losses;
    assert_eq!(plane(&saved), plane(&grid));
    assert_eq!(plane(&saved), plane(&grid));
}

#[cfg(feature = "cli")]
mod command_line {
    use common::error_of;
    use loss_landscape::serde_json::{self, Value};

    use super::*;

    /// Runs a command that must succeed. Returns its JSON and its stderr.
    #[track_caller]
    fn run(arguments: &[&str]) -> (Value, String) {
        let output = common::landscape(&[arguments, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        (serde_json::from_slice(&output.stdout).unwrap(), error)
    }

    fn floats(json: &Value) -> Vec<f64> {
        let values = json.as_array().unwrap().iter();
        values.map(|x| x.as_f64().unwrap()).collect()
    }

    /// 1,500 grey images of 12 × 20 pixels in `f32` take 1.4 MB.
    fn images(path: &Path) {
        let (n, size) = (1500, 12 * 20);
        let x = Tensor::from_vec(numbers(n * size, 1), (n, 1, 12, 20), &CPU).unwrap();
        let y = Tensor::from_iter((0..n as i64).map(|i| (i * i + i / 2) % 3), &CPU).unwrap();
        let x = x.to_dtype(DType::F32).unwrap();
        match path.extension().unwrap() == "npz" {
            true => Tensor::write_npz(&[("inputs", &x), ("targets", &y)], path).unwrap(),
            false => save(path, &[("inputs", x), ("targets", y)]),
        }
    }

    const SMALL: [&str; 4] = ["--layers", "240,6,3", "--normalize", "--activation"];

    #[test]
    fn a_file_that_memory_does_not_hold_is_read_in_parts() {
        let dir = tempdir().unwrap();
        for name in ["data.safetensors", "data.npz"] {
            let path = dir.path().join(name);
            images(&path);
            let path = path.to_str().unwrap();
            let data = [&["--dataset", path], &SMALL[..], &["tanh"]].concat();
            let memory = ["--memory", "1"];
            let spectrum = [&["spectrum", "--top", "3", "--dtype", "f64"], &data[..]].concat();
            let (whole, said) = run(&spectrum);
            assert!(!said.contains("in parts"), "{said}");
            let (parts, said) = run(&[&spectrum[..], &memory].concat());
            assert!(
                said.contains("1500 samples have 2.9 MB, and memory allows 1.0 MB: they are read in parts of 272"),
                "{said}"
            );
            common::assert_close(
                &floats(&parts["eigenvalues"]),
                &floats(&whole["eigenvalues"]),
                1e-9,
            );
            assert_eq!(parts["dataset"]["samples_per_part"], 272);
            assert_eq!(whole["dataset"]["samples_per_part"], Value::Null);
            for key in ["samples", "training_samples", "parameters", "hand_derived"] {
                assert_eq!(parts[key], whole[key], "{key}");
            }
            for key in [
                "classes",
                "shape",
                "normalization",
                "test_samples",
                "empty_classes",
            ] {
                assert_eq!(parts["dataset"][key], whole["dataset"][key], "{key}");
            }
            // Samples that fit are held in memory: the same bits.
            let few = [&spectrum[..], &["--samples", "300"]].concat();
            let (whole, _) = run(&few);
            let (first, said) = run(&[&few[..], &memory].concat());
            assert!(!said.contains("in parts"), "{said}");
            assert_eq!(first["eigenvalues"], whole["eigenvalues"]);
            assert_eq!(
                (&first["samples"], &first["training_samples"]),
                (&300.into(), &1500.into())
            );
        }
        let path = dir.path().join("data.npz");
        let data = [
            &["--dataset", path.to_str().unwrap()],
            &SMALL[..],
            &["tanh", "--memory", "1"],
        ]
        .concat();
        let out = dir.path().join("out");
        for command in [
            &["density", "--probes", "2", "--steps", "3"][..],
            &["trace", "--max-products", "12"],
            &["blocks", "--probes", "2", "--steps", "3"],
            &["surface", "--grid", "3", "--out", out.to_str().unwrap()],
            &["hvp", "--runs", "1", "--autograd"],
            &["sharpness", "--perturbations", "2", "--starts", "1"],
            &[
                "llc",
                "--chains",
                "2",
                "--max-gradients",
                "1",
                "--beta",
                "1e-4",
                "--localization",
                "1e6",
            ],
        ] {
            let (found, _) = run(&[command, &data].concat());
            assert_eq!(found["dataset"]["samples_per_part"], 543, "{command:?}");
        }
        let report = common::landscape(&[&["hvp", "--runs", "1"], &data[..]].concat()).stdout;
        let report = String::from_utf8(report).unwrap();
        assert!(
            report.contains("samples are read in parts of 543"),
            "{report}"
        );
        assert!(report.contains("all 1500 training samples"), "{report}");
        let more = error_of(&[&["hvp", "--samples", "1501"], &data[..]].concat());
        assert!(more.contains("ask for 1 to 1500"), "{more}");
    }

    #[test]
    fn an_idx_set_that_memory_does_not_hold_is_read_in_parts() {
        let dir = tempdir().unwrap();
        let dir = dir.path();
        write_idx(&dir.join("train"), 1200, 0);
        write_idx(&dir.join("t10k"), 90, 1);
        let data = format!("idx:{}", dir.display());
        let data = ["--dataset", &data, "--layers", "240,6,3", "--normalize"];
        let spectrum = [&["spectrum", "--top", "3", "--dtype", "f64"], &data[..]].concat();
        let memory = ["--memory", "1"];
        let (whole, said) = run(&spectrum);
        assert!(!said.contains("in parts"), "{said}");
        let (parts, said) = run(&[&spectrum[..], &memory].concat());
        assert!(
            said.contains(
                "1200 samples have 2.3 MB, and memory allows 1.0 MB: they are read in parts of 272"
            ),
            "{said}"
        );
        common::assert_close(
            &floats(&parts["eigenvalues"]),
            &floats(&whole["eigenvalues"]),
            1e-9,
        );
        for key in ["classes", "shape", "normalization", "test_samples"] {
            assert_eq!(parts["dataset"][key], whole["dataset"][key], "{key}");
        }
        assert_eq!(whole["dataset"]["test_samples"], 90);
    }

    /// A file of 2 TB that takes no space.
    fn sparse(path: &Path) {
        let (n, width) = (1_000_000, 500_000);
        let inputs = 4 * n * width;
        let end = inputs + 8 * n;
        let header = format!(
            r#"{{"inputs":{{"dtype":"F32","shape":[{n},{width}],"data_offsets":[0,{inputs}]}},"targets":{{"dtype":"I64","shape":[{n}],"data_offsets":[{inputs},{end}]}}}}"#
        );
        let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(path, &start).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len((start.len() + end) as u64).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn commands_that_need_all_samples_in_memory_name_both_sizes() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("large.safetensors");
        sparse(&path);
        let data = ["--dataset", path.to_str().unwrap(), "--classes", "3"];
        let [a, out] = ["a.safetensors", "out"].map(|name| dir.path().join(name));
        let [a, out] = [&a, &out].map(|path| path.to_str().unwrap());
        for command in [
            &["train", "--epochs", "1"][..],
            &["connect", a, a, "--samples", "900000"],
            &["sweep", "--l2", "0.1", "--out", out],
            &["analyze", "--save-dir", out],
        ] {
            let error = error_of(&[command, &data].concat());
            let advice = match command[0] {
                "analyze" => "needs all of them in memory: use a smaller file",
                _ => "needs all of them in memory: use fewer with --samples, or a smaller file",
            };
            for words in ["training samples have ", " TB, memory allows ", advice] {
                assert!(error.contains(words), "{command:?}: {error}");
            }
        }
        let share = error_of(&[&["train", "--test-share", "0.1"], &data[..]].concat());
        assert!(share.contains("needs all samples in memory"), "{share}");
    }
}
