//! Objectives whose samples are read in parts.

mod common;

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{assert_close, numbers};
use loss_landscape::data::{SampleSource, StoredSamples};
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
