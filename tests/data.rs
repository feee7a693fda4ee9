//! MNIST and CIFAR-10 files, subsets, batches, label noise and synthetic datasets.

mod common;

use std::f64::consts::PI;
use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_close, dot};
use loss_landscape::data::Cifar10;
use loss_landscape::data::synthetic::{linearly_separable, sum_of_two};
use loss_landscape::prelude::*;
use tempfile::TempDir;

const CPU: Device = Device::Cpu;

fn mnist_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist")
}

fn copy_of_mnist() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(mnist_directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gz") {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

#[test]
fn mnist_is_complete() {
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
fn errors_of_damaged_files_name_the_file_and_the_fix() {
    let dir = copy_of_mnist();
    let path = dir.path().join("t10k-images-idx3-ubyte.gz");
    let message = || Mnist::load_from(dir.path(), &CPU).unwrap_err().to_string();

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let truncated = message();
    assert!(
        truncated.contains("t10k-images-idx3-ubyte.gz"),
        "{truncated}"
    );
    assert!(truncated.contains("truncated or corrupted"), "{truncated}");
    // git cannot restore a file outside the checkout.
    assert!(!truncated.contains("git checkout"), "{truncated}");
    assert!(truncated.contains("Give a directory with the four files of MNIST"));
    assert!(!dir.path().join("t10k-images-idx3-ubyte").exists());

    let mut flipped = whole.clone();
    flipped[5_000] ^= 1;
    fs::write(&path, flipped).unwrap();
    assert!(message().contains("corrupted"));

    fs::remove_file(&path).unwrap();
    assert!(message().contains("t10k-images-idx3-ubyte.gz: is missing"));

    fs::write(&path, whole).unwrap();
    assert_eq!(
        Mnist::load_from(dir.path(), &CPU).unwrap().test.len(),
        10_000
    );

    let unpacked = dir.path().join("train-labels-idx1-ubyte");
    fs::write(&unpacked, b"half").unwrap();
    let damaged = message();
    assert!(
        damaged.contains("train-labels-idx1-ubyte: is truncated"),
        "{damaged}"
    );
    assert!(damaged.contains("Delete it"), "{damaged}");
    fs::remove_file(&unpacked).unwrap();
    assert_eq!(
        Mnist::load_from(dir.path(), &CPU).unwrap().train.len(),
        60_000
    );

    let leftovers = fs::read_dir(dir.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("part-")
    });
    assert_eq!(leftovers.count(), 0);
}

/// File names as on Kaggle, and an unwritable directory. Dangling links simulate it, because root can write to every directory.
#[cfg(unix)]
#[test]
fn mnist_with_kaggle_names_or_in_an_unwritable_directory() {
    let (dir, kaggle) = (copy_of_mnist(), tempfile::tempdir().unwrap());
    for name in [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ] {
        std::os::unix::fs::symlink("/no/such/directory/x", dir.path().join(name)).unwrap();
        let gz = dir.path().join(format!("{name}.gz"));
        fs::copy(
            gz,
            kaggle
                .path()
                .join(format!("{}.gz", name.replace("-idx", ".idx"))),
        )
        .unwrap();
    }
    for dir in [dir.path(), kaggle.path()] {
        assert_eq!(Mnist::load_from(dir, &CPU).unwrap().test.len(), 10_000);
    }
    // The files were unpacked under the same names.
    let names = fs::read_dir(kaggle.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (packed, unpacked): (Vec<_>, Vec<_>) =
        names.partition(|path| path.extension().is_some_and(|e| e == "gz"));
    assert_eq!((packed.len(), unpacked.len()), (4, 4));
    packed
        .iter()
        .for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(
        Mnist::load_from(kaggle.path(), &CPU).unwrap().test.len(),
        10_000
    );
}

/// Fashion-MNIST and other datasets use the same file names. They are read, and not called MNIST.
#[test]
fn another_dataset_with_the_same_file_names_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, words: &[u32], bytes: &[u8]| {
        let header = words.iter().flat_map(|word| word.to_be_bytes());
        let content: Vec<u8> = header.chain(bytes.iter().copied()).collect();
        fs::write(dir.path().join(name), &content).unwrap();
        content
    };
    let load = || Mnist::load_from(dir.path(), &CPU);
    write(
        "train-images-idx3-ubyte",
        &[2051, 3, 28, 28],
        &[51; 3 * 784],
    );
    write("train-labels-idx1-ubyte", &[2049, 3], &[9, 0, 46]);
    let images = write("t10k-images-idx3-ubyte", &[2051, 1, 28, 28], &[255; 784]);
    write("t10k-labels-idx1-ubyte", &[2049, 1], &[4]);
    let set = load().unwrap();
    assert_eq!(
        (set.name, set.train.labels().unwrap()),
        (None, vec![9, 0, 46])
    );
    assert_eq!(set.test.inputs().to_vec2::<f32>().unwrap(), [[1.0; 784]]);

    for (bytes, words) in [
        (&images[1..], "truncated or corrupted"),
        (&images[..400], "its header states the shape [1, 28, 28]"),
    ] {
        fs::write(dir.path().join("t10k-images-idx3-ubyte"), bytes).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(
            error.contains(words) && !error.contains("Delete"),
            "{error}"
        );
    }
    write("t10k-images-idx3-ubyte", &[2051, 1, 14, 56], &[255; 784]);
    let error = load().unwrap_err().to_string();
    assert!(
        error.contains("28 × 28 bytes: its shape is [1, 14, 56]") && error.contains("idx:DIR"),
        "{error}"
    );
    write(
        "t10k-images-idx3-ubyte",
        &[2051, 2, 28, 28],
        &[255; 2 * 784],
    );
    let error = load().unwrap_err().to_string();
    assert!(error.contains("a byte for each of the 2 images"), "{error}");
}

/// Writes a file in CIFAR-10's format with an image for each label. Its pixels are given by [`pixel`].
fn write_batch(dir: &Path, name: &str, labels: &[u8]) {
    let mut bytes = Vec::new();
    for &label in labels {
        bytes.push(label);
        for channel in 0..3 {
            for row in 0..32 {
                bytes.extend((0..32).map(|column| pixel(label, channel, row, column)));
            }
        }
    }
    fs::write(dir.join(name), bytes).unwrap();
}

/// A value that differs between rows, columns, channels and images.
fn pixel(label: u8, channel: usize, row: usize, column: usize) -> u8 {
    ((7 * row + column + 90 * channel) % 251) as u8 ^ label
}

fn tiny_cifar10(dir: &Path) {
    for i in 1..=5 {
        write_batch(
            dir,
            &format!("data_batch_{i}.bin"),
            &[i, 9 - i][..1 + i as usize % 2],
        );
    }
    write_batch(dir, "test_batch.bin", &[0, 9]);
}

#[test]
fn cifar10_keeps_batches_channels_rows_and_columns_in_order() {
    let dir = tempfile::tempdir().unwrap();
    tiny_cifar10(dir.path());
    let set = Cifar10::load_from(dir.path(), &CPU).unwrap();
    assert_eq!(set.train.labels().unwrap(), [1, 8, 2, 3, 6, 4, 5, 4]);
    assert_eq!(set.test.labels().unwrap(), [0, 9]);
    for data in [&set.train, &set.test] {
        let labels = data.labels().unwrap();
        assert_eq!(data.inputs().dims(), [labels.len(), 3, 32, 32]);
        assert_eq!(data.inputs().dtype(), DType::F32);
        for (i, &label) in labels.iter().enumerate() {
            let image = data.inputs().get(i).unwrap();
            for (channel, plane) in image.to_vec3::<f32>().unwrap().iter().enumerate() {
                for (row, line) in plane.iter().enumerate() {
                    for (column, &found) in line.iter().enumerate() {
                        let byte = pixel(label as u8, channel, row, column);
                        assert_eq!(
                            found,
                            f32::from(byte) / 255.0,
                            "{i} {channel} {row} {column}"
                        );
                    }
                }
            }
        }
    }

    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    tiny_cifar10(&inner);
    let found = Cifar10::load_from(outer.path(), &CPU).unwrap();
    assert_eq!(found.train.len(), 8);
}

#[test]
fn errors_of_cifar10_name_the_missing_or_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    tiny_cifar10(dir.path());
    let message = || {
        let found = Cifar10::load_from(dir.path(), &CPU)
            .unwrap_err()
            .to_string();
        assert!(found.contains("the binary version of CIFAR-10"), "{found}");
        found
    };
    let path = dir.path().join("data_batch_3.bin");
    let whole = fs::read(&path).unwrap();

    for cut in [1, 3_000, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let found = message();
        assert!(found.contains("data_batch_3.bin: is truncated"), "{found}");
        assert!(found.contains(&format!("{cut} bytes")), "{found}");
    }
    fs::write(&path, []).unwrap();
    assert!(message().contains("data_batch_3.bin: is empty"));
    let mut mislabelled = whole.clone();
    mislabelled[3_073] = 10;
    fs::write(&path, mislabelled).unwrap();
    let found = message();
    assert!(found.contains("data_batch_3.bin: is damaged"), "{found}");
    assert!(found.contains("image 1 has label 10"), "{found}");
    fs::remove_file(&path).unwrap();
    assert!(message().contains("data_batch_3.bin: is missing"));
    fs::create_dir(&path).unwrap();
    assert!(message().contains("data_batch_3.bin: cannot be read"));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, whole).unwrap();
    fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
    assert!(message().contains("test_batch.bin: is missing"));
}

/// The inputs 0, 1, …, n − 1, with the classes in turn.
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
fn batches_contain_every_sample_once() {
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
fn exactly_the_requested_fraction_of_labels_is_wrong() {
    let data = counting(103, 4);
    let right = data.labels().unwrap();
    let wrong = |share: f64, seed: u64| {
        let noisy = data.with_label_noise(share, seed).unwrap();
        assert_eq!(values(&noisy), values(&data));
        let labels = noisy.labels().unwrap();
        assert!(labels.iter().all(|&label| label < 4));
        labels
    };
    let changed =
        |labels: &[u32]| -> Vec<usize> { (0..103).filter(|&i| labels[i] != right[i]).collect() };
    for (share, count) in [
        (0.0, 0),
        (0.004, 0),
        (0.005, 1),
        (0.1, 10),
        (0.5, 52),
        (1.0, 103),
    ] {
        assert_eq!(changed(&wrong(share, 5)).len(), count, "share {share}");
    }
    assert_eq!(wrong(0.3, 5), wrong(0.3, 5));
    assert_ne!(changed(&wrong(0.3, 5)), changed(&wrong(0.3, 6)));
    let (fewer, more) = (wrong(0.3, 5), wrong(0.6, 5));
    for i in changed(&fewer) {
        assert_eq!(fewer[i], more[i], "sample {i}");
    }
    assert_eq!(data.labels().unwrap(), right);
}

/// The wrong labels are spread over the batches of a training with the same seed.
#[test]
fn wrong_labels_are_not_correlated_with_the_shuffling() {
    let n = 2_000;
    let data = counting(n, 4);
    let right = data.labels().unwrap();
    for seed in [0, 1, 7] {
        let labels = data.with_label_noise(0.25, seed).unwrap().labels().unwrap();
        let order = data.shuffled_batches(n / 4, seed).unwrap();
        for batch in order {
            let rows: Vec<usize> = values(&batch.unwrap())
                .iter()
                .map(|v| *v as usize)
                .collect();
            let wrong = rows.iter().filter(|i| labels[**i] != right[**i]).count();
            // The count is hypergeometric with mean 125 and standard deviation 8.4.
            assert!((91..=159).contains(&wrong), "seed {seed}: {wrong} of 500");
        }
    }
}

#[test]
fn wrong_labels_are_uniform_over_the_other_classes() {
    let n = 12_000;
    let data = counting(n, 4);
    let noisy = data.with_label_noise(1.0, 3).unwrap().labels().unwrap();
    let mut counts = [[0f64; 4]; 4];
    for (&from, &to) in data.labels().unwrap().iter().zip(&noisy) {
        counts[from as usize][to as usize] += 1.0;
    }
    // A third of the 3,000 samples of each class gets each other label.
    let deviation = (3_000.0 * 2.0 / 9.0_f64).sqrt();
    for (from, row) in counts.iter().enumerate() {
        for (to, &count) in row.iter().enumerate() {
            let expected = if from == to { 0.0 } else { 1_000.0 };
            assert!(
                (count - expected).abs() < 4.0 * deviation,
                "{from} to {to}: {count}"
            );
        }
        assert_eq!(row[from], 0.0);
    }

    let two = data.select(&[3, 0, 0, 3, 3]).unwrap();
    let swapped = two.with_label_noise(1.0, 0).unwrap();
    assert_eq!(swapped.labels().unwrap(), [0, 3, 3, 0, 0]);
}

/// The initial weights of a network with the same seed are independent of the direction that separates the classes.
#[test]
fn the_separating_direction_is_independent_of_initial_weights() {
    let dim = 30;
    let cosine = |seed: u64| {
        let data = linearly_separable(400, dim, 50.0, seed, &CPU).unwrap();
        // With this margin, the difference of the class means is the direction up to 1 %.
        let mut w = vec![0.0; dim];
        for (x, label) in rows(&data).iter().zip(data.labels().unwrap()) {
            let side = 2.0 * f64::from(label) - 1.0;
            w.iter_mut().zip(x).for_each(|(w, x)| *w += side * x);
        }
        let network = Mlp::new(&[dim, 2, 1], Activation::Tanh, seed, &CPU).unwrap();
        let unit = network.parameters().to_flat().unwrap();
        let weight = network.parameters().range("layers.0.weight").unwrap();
        let unit = &unit[weight.start..weight.start + dim];
        dot(&w, unit) / (dot(&w, &w) * dot(unit, unit)).sqrt()
    };
    let mean = (0..20).map(cosine).sum::<f64>() / 20.0;
    // For independent directions, the mean has the standard deviation 1/√(20 · 30).
    assert!(mean.abs() < 0.16, "{mean}");
}

/// The rows of the inputs.
fn rows(data: &Dataset) -> Vec<Vec<f64>> {
    data.inputs().to_vec2().unwrap()
}

/// The flattened targets of a regression.
fn targets(data: &Dataset) -> Vec<f64> {
    let Targets::Values(values) = data.targets() else {
        panic!("labels")
    };
    values.flatten_all().unwrap().to_vec1().unwrap()
}

fn mean_square(values: impl IntoIterator<Item = f64>) -> f64 {
    let squares: Vec<f64> = values.into_iter().map(|v| v * v).collect();
    squares.iter().sum::<f64>() / squares.len() as f64
}

/// Asserts that the mean square is within four standard errors of that of normal numbers with standard deviation `sigma`.
#[track_caller]
fn assert_deviation(values: Vec<f64>, sigma: f64) {
    let n = values.len() as f64;
    let ratio = mean_square(values) / (sigma * sigma);
    assert!((ratio - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{ratio}");
}

#[test]
fn the_angle_on_spirals_without_noise_follows_the_radius() {
    for (classes, turns) in [(2, 3.0), (3, 1.5), (5, -0.7)] {
        let data = spirals(1_000, classes, turns, 0.0, 4, &CPU).unwrap();
        assert_eq!(data.inputs().dims(), [1_000, 2]);
        assert_eq!(data.inputs().dtype(), DType::F64);
        let labels = data.labels().unwrap();
        let mut radii = Vec::new();
        for (i, point) in rows(&data).iter().enumerate() {
            assert_eq!(labels[i] as usize, i % classes);
            let radius = point[0].hypot(point[1]);
            let angle = 2.0 * PI * (f64::from(labels[i]) / classes as f64 + turns * radius);
            assert_close(point, &[radius * angle.cos(), radius * angle.sin()], 1e-13);
            assert!((0.1 - 1e-15..1.0).contains(&radius));
            radii.push(radius);
        }
        // Radii are uniform in [0.1, 1), with mean 0.55 and standard deviation 0.9 / √12.
        let mean = radii.iter().sum::<f64>() / 1_000.0;
        assert!((mean - 0.55).abs() < 4.0 * 0.9 / 12_000f64.sqrt(), "{mean}");
    }
}

#[test]
fn planar_noise_has_the_requested_standard_deviation() {
    let difference = |noisy: Result<Dataset, Error>, clean: Result<Dataset, Error>| {
        let (noisy, clean) = (values(&noisy.unwrap()), values(&clean.unwrap()));
        noisy.iter().zip(clean).map(|(a, b)| a - b).collect()
    };
    let drawn = |noise| spirals(5_000, 3, 2.0, noise, 8, &CPU);
    assert_deviation(difference(drawn(0.2), drawn(0.0)), 0.2);
    let drawn = |noise| two_moons(5_000, noise, 8, &CPU);
    assert_deviation(difference(drawn(0.2), drawn(0.0)), 0.2);
}

#[test]
fn two_moons_without_noise_are_half_circles() {
    let data = two_moons(500, 0.0, 2, &CPU).unwrap();
    for (i, point) in rows(&data).iter().enumerate() {
        let (x, y) = match i % 2 {
            0 => (point[0], point[1]),
            _ => (1.0 - point[0], 0.5 - point[1]),
        };
        assert!((x.hypot(y) - 1.0).abs() < 1e-15 && y >= 0.0, "{point:?}");
    }
}

#[test]
fn classes_have_exactly_the_requested_margin() {
    for margin in [0.0, 0.5, 3.0] {
        let data = linearly_separable(4_000, 2, margin, 6, &CPU).unwrap();
        let labels = data.labels().unwrap();
        assert!(
            labels
                .iter()
                .enumerate()
                .all(|(i, &label)| label as usize == i % 2)
        );
        let side = |i: usize| if labels[i] == 1 { 1.0 } else { -1.0 };
        let rows = rows(&data);
        let margin_along = |w: [f64; 2]| {
            let distances = rows.iter().enumerate().map(|(i, x)| side(i) * dot(&w, x));
            distances.fold(f64::INFINITY, f64::min)
        };
        let steps = 10_000;
        let best = (0..steps)
            .map(|k| (2.0 * PI * f64::from(k) / f64::from(steps)).sin_cos())
            .map(|(y, x)| margin_along([x, y]))
            .fold(f64::NEG_INFINITY, f64::max);
        // A step of the angle moves a sample of length < 10 by < 0.004.
        assert!((best - margin).abs() < 0.004, "{best} instead of {margin}");
    }
}

#[test]
fn separable_samples_satisfy_novikoffs_bound() {
    let (n, dim, margin) = (2_000, 15, 0.8);
    let data = linearly_separable(n, dim, margin, 1, &CPU).unwrap();
    let (rows, labels) = (rows(&data), data.labels().unwrap());
    let largest_squared_norm = rows.iter().map(|x| dot(x, x)).fold(0.0, f64::max);
    // A perceptron makes at most (largest norm / margin)² mistakes before it separates the classes (Novikoff, 1962).
    let mut w = vec![0.0; dim];
    let mut mistakes = 0;
    loop {
        let before = mistakes;
        for (x, &label) in rows.iter().zip(&labels) {
            let side = if label == 1 { 1.0 } else { -1.0 };
            if side * dot(&w, x) <= 0.0 {
                w.iter_mut().zip(x).for_each(|(w, x)| *w += side * x);
                mistakes += 1;
            }
        }
        assert!(
            f64::from(mistakes) <= largest_squared_norm / (margin * margin),
            "{mistakes}"
        );
        if mistakes == before {
            break;
        }
    }
    // Inputs are standard normal orthogonal to w. Their mean square along w is 1 + 2 · margin · E|z| + margin².
    let along = 1.0 + 2.0 * margin * (2.0 / PI).sqrt() + margin * margin;
    let expected = ((dim - 1) as f64 + along) / dim as f64;
    let found = mean_square(values(&data));
    assert!(
        (found / expected - 1.0).abs() < 4.0 * (2.0 / (n * dim) as f64).sqrt(),
        "{found}"
    );

    let line = linearly_separable(500, 1, 0.5, 3, &CPU).unwrap();
    let points = values(&line);
    let first = points[0].signum();
    for (i, x) in points.iter().enumerate() {
        let side = if i % 2 == 0 { first } else { -first };
        assert!(side * x >= 0.5 - 1e-15, "{x}");
    }
}

#[test]
fn labels_are_given_by_the_sum_of_two_features() {
    let data = sum_of_two(9, &CPU).unwrap();
    assert_eq!(data.inputs().dims(), [1_000, 20]);
    let labels = data.labels().unwrap();
    for (x, &label) in rows(&data).iter().zip(&labels) {
        assert_eq!(label == 1, x[0] + x[1] > 0.0);
    }
    let ones: u32 = labels.iter().sum();
    assert!(ones.abs_diff(500) < 64, "{ones}"); // four standard deviations of 15.8
    assert_deviation(values(&data), 1.0);
}

#[test]
fn a_teachers_parameters_define_its_function() {
    // θ is sorted by name: with twelve layers, 10 and 11 come before 2.
    for widths in [vec![3, 5, 4, 2], vec![3, 1], vec![2; 13]] {
        let set = teacher_student(60, &widths, 0.0, 7, &CPU).unwrap();
        let student = Mlp::new(&widths, Activation::Tanh, 0, &CPU).unwrap();
        let student = student.to_dtype(DType::F64).unwrap();
        let parameters = student.parameters();
        parameters.set_flat(&set.teacher).unwrap();
        let part = |i: usize, name: &str| {
            let range = parameters.range(&format!("layers.{i}.{name}")).unwrap();
            &set.teacher[range]
        };
        let last = widths.len() - 2;
        let mut expected = Vec::new();
        for x in rows(&set.data) {
            let mut h = x;
            for (i, pair) in widths.windows(2).enumerate() {
                let weights = part(i, "weight").chunks(pair[0]);
                let sums = weights.zip(part(i, "bias")).map(|(w, b)| dot(w, &h) + b);
                h = match i == last {
                    true => sums.collect(),
                    false => sums.map(f64::tanh).collect(),
                };
            }
            expected.extend(h);
        }
        assert_close(&targets(&set.data), &expected, 1e-14);
        let outputs = student.forward(set.data.inputs()).unwrap();
        let outputs: Vec<f64> = outputs.flatten_all().unwrap().to_vec1().unwrap();
        assert_close(&outputs, &expected, 1e-14);
    }
}

#[test]
fn a_teacher_and_its_inputs_do_not_depend_on_count_or_noise() {
    let widths = [50, 40, 30, 3];
    let drawn = |n: usize, noise: f64| teacher_student(n, &widths, noise, 2, &CPU).unwrap();
    let (set, short, noisy) = (drawn(800, 0.0), drawn(9, 0.0), drawn(800, 0.3));
    assert_eq!(set.teacher, short.teacher);
    assert_eq!(set.teacher, noisy.teacher);
    assert_eq!(values(&set.data), values(&noisy.data));
    assert_eq!(values(&set.data)[..9 * 50], values(&short.data));
    assert_close(&targets(&set.data)[..27], &targets(&short.data), 1e-14);

    assert_deviation(values(&set.data), 1.0);
    let noise = targets(&noisy.data);
    let noise = noise.iter().zip(targets(&set.data)).map(|(a, b)| a - b);
    assert_deviation(noise.collect(), 0.3);
    // θ is in the order of the layers, because there are fewer than eleven.
    let (first, rest) = set.teacher.split_at(51 * 40);
    assert_deviation(first.to_vec(), (1.0 / 50f64).sqrt());
    assert_deviation(rest[..41 * 30].to_vec(), (1.0 / 40f64).sqrt());
}

#[test]
fn synthetic_datasets_are_seeded() {
    let sets: [fn(u64) -> Dataset; 5] = [
        |seed| two_moons(30, 0.1, seed, &CPU).unwrap(),
        |seed| spirals(30, 3, 1.0, 0.1, seed, &CPU).unwrap(),
        |seed| linearly_separable(30, 4, 0.1, seed, &CPU).unwrap(),
        |seed| sum_of_two(seed, &CPU).unwrap(),
        |seed| {
            teacher_student(30, &[4, 3, 1], 0.1, seed, &CPU)
                .unwrap()
                .data
        },
    ];
    for (i, set) in sets.iter().enumerate() {
        assert_eq!(values(&set(1)), values(&set(1)), "set {i}");
        assert_ne!(values(&set(1)), values(&set(2)), "set {i}");
    }
    let teacher = |seed| teacher_student(30, &[4, 3, 1], 0.1, seed, &CPU).unwrap();
    assert_eq!(targets(&teacher(1).data), targets(&teacher(1).data));
    assert_ne!(teacher(1).teacher, teacher(2).teacher);
}

#[test]
fn invalid_arguments_of_synthetic_datasets_are_refused() {
    let message = |result: Result<Dataset, Error>| result.unwrap_err().to_string();
    for noise in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(message(two_moons(9, noise, 0, &CPU)).contains(&format!(
            "noise must be finite and at least 0, found {noise}"
        )));
        assert!(
            message(spirals(9, 3, 1.0, noise, 0, &CPU)).contains(&format!(
                "noise must be finite and at least 0, found {noise}"
            ))
        );
        let set = teacher_student(9, &[2, 1], noise, 0, &CPU);
        assert!(message(set.map(|set| set.data)).contains(&format!(
            "noise must be finite and at least 0, found {noise}"
        )));
        assert!(
            message(linearly_separable(9, 2, noise, 0, &CPU)).contains(&format!(
                "margin must be finite and at least 0, found {noise}"
            ))
        );
        assert!(message(counting(9, 3).with_label_noise(noise, 0)).contains("from 0 to 1"));
    }
    assert!(message(two_moons(1, 0.1, 0, &CPU)).contains("at least 2"));
    assert!(message(spirals(2, 3, 1.0, 0.0, 0, &CPU)).contains("a sample of each"));
    assert!(message(spirals(9, 1, 1.0, 0.0, 0, &CPU)).contains("at least 2 classes"));
    assert!(
        message(spirals(9, 3, f64::NAN, 0.0, 0, &CPU)).contains("turns must be finite, found NaN")
    );
    assert!(message(linearly_separable(1, 2, 0.1, 0, &CPU)).contains("at least 2 samples"));
    assert!(message(linearly_separable(9, 0, 0.1, 0, &CPU)).contains("1 dimension"));
    let teacher = |n: usize, widths: &[usize]| {
        message(teacher_student(n, widths, 0.0, 0, &CPU).map(|set| set.data))
    };
    assert!(teacher(0, &[2, 1]).contains("n must be at least 1"));
    for widths in [&[][..], &[3], &[3, 0, 1], &[0, 1], &[3, 0]] {
        assert!(teacher(9, widths).contains(&format!("found {widths:?}")));
    }
    assert!(message(counting(9, 3).with_label_noise(1.1, 0)).contains("share of 1.1"));
    assert!(message(counting(9, 1).with_label_noise(0.1, 0)).contains("at least two classes"));
    let regression = teacher_student(9, &[2, 1], 0.0, 0, &CPU).unwrap().data;
    assert!(message(regression.with_label_noise(0.1, 0)).contains("no labels"));
}

#[test]
fn invalid_data_is_refused() {
    let inputs = Tensor::new(&[[1f64], [2.0]], &CPU).unwrap();
    let labels = |l: &[u32]| Tensor::new(l, &CPU).unwrap();
    let message = |result: Result<Dataset, Error>| result.unwrap_err().to_string();
    assert!(message(Dataset::classification(&inputs, &labels(&[1]))).contains("2 inputs but 1"));
    assert!(
        message(Dataset::classification(&inputs, &inputs))
            .contains("labels are F64: classes must be integers")
    );
    let none = Tensor::zeros((0, 3), DType::F32, &CPU).unwrap();
    assert!(message(Dataset::classification(&none, &labels(&[]))).contains("at least one sample"));
    let nan = Tensor::new(&[[1f64], [f64::NAN]], &CPU).unwrap();
    let found = message(Dataset::classification(&nan, &labels(&[0, 1])));
    assert!(found.contains("sample 1 holds NaN"), "{found}");
    assert!(message(Dataset::regression(&inputs, &nan)).contains("sample 1 holds NaN"));
    let whole = Dataset::classification(&inputs, &labels(&[0, 3])).unwrap();
    assert!(whole.one_hot(3).is_err() && whole.select(&[2]).is_err());
}
