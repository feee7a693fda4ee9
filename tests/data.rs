//! MNIST's files, subsets and batches.

use std::fs;
use std::path::{Path, PathBuf};

use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist")
}

fn copy_of_the_shipped_files(name: &str) -> TemporaryDir {
    let dir = TemporaryDir::new(name);
    for entry in fs::read_dir(shipped()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gz") {
            fs::copy(&path, dir.0.join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

#[test]
fn mnist_is_the_whole_set() {
    let mnist = Mnist::load(&CPU).unwrap();
    assert_eq!(mnist.train.inputs().dims(), [60_000, 784]);
    assert_eq!(mnist.test.inputs().dims(), [10_000, 784]);
    let labels = mnist.train.labels().unwrap();
    assert_eq!(labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    let sixes = labels.iter().filter(|&&label| label == 6).count();
    assert_eq!(sixes, 5_918);
    let pixels = mnist
        .train
        .first(1)
        .unwrap()
        .inputs()
        .flatten_all()
        .unwrap();
    let pixels = pixels.to_vec1::<f32>().unwrap();
    assert!(pixels.iter().all(|p| (0.0..=1.0).contains(p)));
    assert!((pixels.iter().sum::<f32>() - 27_525.0 / 255.0).abs() < 1e-3);
}

#[test]
fn damaged_files_are_named_with_the_cure() {
    let dir = copy_of_the_shipped_files("mnist-damaged");
    let path = dir.0.join("t10k-images-idx3-ubyte.gz");
    let message = || Mnist::load_from(&dir.0, &CPU).unwrap_err().to_string();

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let truncated = message();
    assert!(
        truncated.contains("t10k-images-idx3-ubyte.gz"),
        "{truncated}"
    );
    assert!(truncated.contains("truncated or corrupted"), "{truncated}");
    assert!(truncated.contains("git checkout"), "{truncated}");
    assert!(!dir.0.join("t10k-images-idx3-ubyte").exists());

    let mut flipped = whole.clone();
    flipped[5_000] ^= 1;
    fs::write(&path, flipped).unwrap();
    assert!(message().contains("corrupted"));

    fs::remove_file(&path).unwrap();
    assert!(message().contains("t10k-images-idx3-ubyte.gz: is missing"));

    fs::write(&path, whole).unwrap();
    assert_eq!(Mnist::load_from(&dir.0, &CPU).unwrap().test.len(), 10_000);

    let unpacked = dir.0.join("train-labels-idx1-ubyte");
    fs::write(&unpacked, b"half").unwrap();
    let damaged = message();
    assert!(
        damaged.contains("train-labels-idx1-ubyte: is truncated"),
        "{damaged}"
    );
    assert!(damaged.contains("Delete it"), "{damaged}");
    fs::remove_file(&unpacked).unwrap();
    assert_eq!(Mnist::load_from(&dir.0, &CPU).unwrap().train.len(), 60_000);

    let leftovers = fs::read_dir(&dir.0).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("part-")
    });
    assert_eq!(leftovers.count(), 0);
}

/// 0, 1, …, n − 1 as inputs, classes in turn.
fn counting(n: usize, classes: u32) -> Dataset {
    let inputs = Tensor::arange(0f64, n as f64, &CPU)
        .unwrap()
        .unsqueeze(1)
        .unwrap();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes).collect();
    Dataset::classification(&inputs, &Tensor::from_vec(labels, n, &CPU).unwrap()).unwrap()
}

fn values(data: &Dataset) -> Vec<f64> {
    data.inputs().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn subsets_are_seeded_balanced_and_without_repeats() {
    let data = counting(103, 4);
    let subset = data.balanced(42, 7).unwrap();
    let counts = |data: &Dataset| {
        let labels = data.labels().unwrap();
        (0..4)
            .map(|c| labels.iter().filter(|&&l| l == c).count())
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(&subset), [11, 11, 10, 10]);
    assert_eq!(values(&subset), values(&data.balanced(42, 7).unwrap()));
    assert_ne!(values(&subset), values(&data.balanced(42, 8).unwrap()));
    let mut once = values(&subset);
    once.sort_by(f64::total_cmp);
    once.dedup();
    assert_eq!(once.len(), 42);
    for (value, label) in values(&subset).iter().zip(subset.labels().unwrap()) {
        assert_eq!(*value as u32 % 4, label);
    }
    assert_eq!(data.random(50, 1).unwrap().len(), 50);
    assert_eq!(values(&data.first(3).unwrap()), [0.0, 1.0, 2.0]);

    let scarce = data.select(&[0, 1, 4, 5, 8, 9]).unwrap();
    let message = scarce.balanced(5, 0).map(|_| ());
    assert!(message.is_ok());
    let scarce = data.select(&[0, 4, 8, 12, 1]).unwrap();
    let message = scarce.balanced(4, 0).unwrap_err().to_string();
    assert!(
        message.contains("2 of class 1, which has only 1"),
        "{message}"
    );
    assert!(data.balanced(0, 0).is_err() && data.first(104).is_err());
}

#[test]
fn batches_hold_every_sample_once() {
    let data = counting(23, 3);
    let sizes = |batches: loss_landscape::data::Batches| {
        batches
            .map(|batch| batch.unwrap().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(data.batches(10).unwrap()), [10, 10, 3]);
    assert_eq!(sizes(data.batches(100).unwrap()), [23]);
    let all = |seed: u64| {
        let batches = data.shuffled_batches(5, seed).unwrap();
        batches
            .flat_map(|batch| values(&batch.unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
    let mut sorted = all(1);
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted, values(&data));
    assert!(data.batches(0).is_err());
}

#[test]
fn bad_data_is_refused() {
    let inputs = Tensor::new(&[[1f64], [2.0]], &CPU).unwrap();
    let labels = |l: &[u32]| Tensor::new(l, &CPU).unwrap();
    let message = |result: Result<Dataset, Error>| result.unwrap_err().to_string();
    assert!(message(Dataset::classification(&inputs, &labels(&[1]))).contains("2 inputs but 1"));
    assert!(message(Dataset::classification(&inputs, &inputs)).contains("integers"));
    let none = Tensor::zeros((0, 3), DType::F32, &CPU).unwrap();
    assert!(message(Dataset::classification(&none, &labels(&[]))).contains("at least one sample"));
    let nan = Tensor::new(&[[1f64], [f64::NAN]], &CPU).unwrap();
    let found = message(Dataset::classification(&nan, &labels(&[0, 1])));
    assert!(found.contains("sample 1 holds NaN"), "{found}");
    assert!(message(Dataset::regression(&inputs, &nan)).contains("sample 1 holds NaN"));
    let whole = Dataset::classification(&inputs, &labels(&[0, 3])).unwrap();
    assert!(whole.one_hot(3).is_err() && whole.select(&[2]).is_err());
    assert!(two_moons(1, 0.1, 0, &CPU).is_err() && two_moons(9, -0.1, 0, &CPU).is_err());
    assert!(two_moons(9, f64::NAN, 0, &CPU).is_err());
}
