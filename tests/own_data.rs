//! Datasets from files of arrays, tables, IDX files, folders of images, and arrays and tables in memory.

use std::fs;
use std::path::{Path, PathBuf};

use loss_landscape::candle::{npy, safetensors};
use loss_landscape::data::{Cifar100, DataReader, InputNormalization, TestSource, TrainTest, idx};
use loss_landscape::ndarray::{Array2, array};
use loss_landscape::prelude::*;
use tempfile::TempDir;

const CPU: Device = Device::Cpu;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn tensor<T: loss_landscape::candle::WithDType>(values: &[T], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &CPU).unwrap()
}

/// Writes the arrays to `data.npz` and to `data.safetensors`.
fn write_arrays(dir: &Path, arrays: &[(&str, Tensor)]) -> [PathBuf; 2] {
    let paths = ["data.npz", "data.safetensors"].map(|name| dir.join(name));
    let refs: Vec<(&str, &Tensor)> = arrays.iter().map(|(name, t)| (*name, t)).collect();
    Tensor::write_npz(&refs, &paths[0]).unwrap();
    assert_eq!(
        npy::NpzTensors::new(&paths[0]).unwrap().names().len(),
        arrays.len()
    );
    let map = arrays
        .iter()
        .map(|(name, t)| ((*name).to_owned(), t.clone()));
    safetensors::save(&map.collect(), &paths[1]).unwrap();
    paths
}

fn inputs(data: &Dataset) -> Vec<Vec<f64>> {
    let inputs = data.inputs().flatten_from(1).unwrap();
    inputs.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn values(data: &Dataset) -> Vec<Vec<f64>> {
    match data.targets() {
        Targets::Values(values) => values.to_dtype(DType::F64).unwrap().to_vec2().unwrap(),
        Targets::Labels(_) => panic!("labels"),
    }
}

#[test]
fn integers_are_labels_and_floats_are_values() {
    let dir = folder();
    let x = tensor(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0], &[3, 2]);
    let labels = tensor(&[2i64, 0, 1], &[3]);
    for path in write_arrays(
        dir.path(),
        &[("inputs", x.clone()), ("targets", labels.clone())],
    ) {
        let samples = DataReader::default().read(&path, &CPU).unwrap();
        assert_eq!(inputs(&samples.train), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]);
        assert_eq!(samples.train.inputs().dtype(), DType::F32);
        assert_eq!(samples.train.labels().unwrap(), [2, 0, 1]);
        assert_eq!(samples.test_source, TestSource::Training);
        assert_eq!(samples.test.len(), 3);
    }
    // A column of labels, as NumPy users often have.
    let column = labels.unsqueeze(1).unwrap();
    for path in write_arrays(dir.path(), &[("inputs", x.clone()), ("targets", column)]) {
        let samples = DataReader::default().read(&path, &CPU).unwrap();
        assert!(matches!(samples.train.targets(), Targets::Labels(l) if l.dims() == [3]));
    }
    let y = tensor(&[0.5f64, 1.5, 2.5], &[3]);
    let x = x.to_dtype(DType::F64).unwrap();
    let arrays = [("features", x), ("unused", tensor(&[1f32], &[1])), ("y", y)];
    for path in write_arrays(dir.path(), &arrays) {
        let reader = DataReader::default()
            .with_inputs(["features"])
            .with_targets("y");
        let samples = reader.read(&path, &CPU).unwrap();
        assert_eq!(values(&samples.train), [[0.5], [1.5], [2.5]]);
        // Double precision is kept.
        assert_eq!(samples.train.inputs().dtype(), DType::F64);
    }
}

#[test]
fn integer_inputs_are_tokens_or_values() {
    let dir = folder();
    let x = tensor(&[0i64, 1, 2, 3, 4, 5], &[2, 3]);
    let y = tensor(&[1i64, 2, 3, 4, 5, 6], &[2, 3]);
    for path in write_arrays(dir.path(), &[("inputs", x.clone()), ("targets", y)]) {
        let samples = DataReader::default().read(&path, &CPU).unwrap();
        assert_eq!(samples.train.inputs().dtype(), DType::U32);
        assert_eq!(samples.train.labels().unwrap(), [1, 2, 3, 4, 5, 6]);
        let reader = DataReader::default().with_tokens(false);
        let samples = reader.read(&path, &CPU).unwrap();
        assert_eq!(samples.train.inputs().dtype(), DType::F32);
        assert_eq!(inputs(&samples.train)[1], [3.0, 4.0, 5.0]);
    }
    let half = tensor(&[0.5f32, 0.25], &[2, 1])
        .to_dtype(DType::F16)
        .unwrap();
    let [_, path] = write_arrays(
        dir.path(),
        &[("inputs", half), ("targets", tensor(&[0u32, 1], &[2]))],
    );
    let samples = DataReader::default().read(path, &CPU).unwrap();
    assert_eq!(samples.train.inputs().dtype(), DType::F32);
    assert_eq!(inputs(&samples.train), [[0.5], [0.25]]);
}

#[test]
fn several_arrays_are_joined() {
    let dir = folder();
    let arrays = [
        ("a", tensor(&[1f32, 2.0], &[2])),
        ("b", tensor(&[3f32, 4.0, 5.0, 6.0], &[2, 2])),
        ("targets", tensor(&[0u32, 1], &[2])),
    ];
    for path in write_arrays(dir.path(), &arrays) {
        let reader = DataReader::default().with_inputs(["b", "a"]);
        let samples = reader.read(path, &CPU).unwrap();
        assert_eq!(inputs(&samples.train), [[3.0, 4.0, 1.0], [5.0, 6.0, 2.0]]);
    }
}

#[test]
fn test_samples_come_from_the_file_or_a_share() {
    let dir = folder();
    let (x, y) = (
        tensor(&[1f32, 2.0, 3.0, 4.0], &[4, 1]),
        tensor(&[0u32, 1, 1, 0], &[4]),
    );
    let (x2, y2) = (tensor(&[9f32], &[1, 1]), tensor(&[1u32], &[1]));
    for names in [
        ["inputs", "targets", "test_inputs", "test_targets"],
        ["x_train", "y_train", "x_test", "y_test"],
    ] {
        let tensors = [&x, &y, &x2, &y2].map(Tensor::clone);
        let arrays: Vec<_> = names.into_iter().zip(tensors).collect();
        for path in write_arrays(dir.path(), &arrays) {
            let reader = DataReader::default()
                .with_inputs([names[0]])
                .with_targets(names[1]);
            let samples = reader.read(&path, &CPU).unwrap();
            assert_eq!(samples.test_source, TestSource::Files);
            assert_eq!(
                (inputs(&samples.test), samples.test.labels().unwrap()),
                (vec![vec![9.0]], vec![1])
            );
            assert_eq!(samples.train.len(), 4);
            let error = reader.with_test_share(0.5).read(&path, &CPU).unwrap_err();
            assert!(
                error.to_string().contains("contain test samples"),
                "{error}"
            );
        }
    }
    for path in write_arrays(dir.path(), &[("inputs", x), ("targets", y)]) {
        let reader = DataReader::default().with_test_share(0.25);
        let samples = reader.read(&path, &CPU).unwrap();
        assert_eq!((samples.train.len(), samples.test.len()), (3, 1));
        assert_eq!(samples.test_source, TestSource::Share(0.25));
        let all = |samples: &TrainTest| [inputs(&samples.train), inputs(&samples.test)].concat();
        let mut found = all(&samples);
        assert_eq!(found, all(&reader.read(&path, &CPU).unwrap()));
        found.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(found, [[1.0], [2.0], [3.0], [4.0]]);
        // Both parts keep the order of the samples.
        assert!(inputs(&samples.train).is_sorted_by(|a, b| a[0] < b[0]));
    }
}

#[test]
fn errors_of_arrays_name_what_was_found() {
    let dir = folder();
    let x = tensor(&[0f32, 1.0, 2.0, 3.0], &[2, 2]);
    let labels = tensor(&[0i64, 1], &[2]);
    let nan = tensor(&[0f32, 1.0, 2.0, f32::NAN], &[2, 2]);
    let test = |x: &Tensor| {
        vec![
            ("inputs", x.clone()),
            ("targets", labels.clone()),
            ("test_inputs", x.clone()),
        ]
    };
    for (arrays, words) in [
        (
            vec![("x", x.clone()), ("targets", labels.clone())],
            &["has no array `inputs`", "`x` [2, 2] f32", "--inputs"][..],
        ),
        (
            vec![
                ("inputs", x.clone()),
                ("targets", tensor(&[0i64, 1, 1], &[3])),
            ],
            &["2 inputs but 3 targets", "one target per sample"],
        ),
        (
            vec![("inputs", nan.clone()), ("targets", labels.clone())],
            &["inputs are not finite: sample 1 holds NaN"],
        ),
        (
            vec![("inputs", x.clone()), ("targets", nan)],
            &["values are not finite: sample 1 holds NaN"],
        ),
        (
            vec![
                ("inputs", x.clone()),
                ("targets", tensor(&[0i64, -1], &[2])),
            ],
            &["target -1 of sample 1 is not a label"],
        ),
        (
            vec![
                ("inputs", tensor(&[0i64, -7], &[2, 1])),
                ("targets", labels.clone()),
            ],
            &["array `inputs` has the integer -7 in sample 1: tokens are 0, 1, 2"],
        ),
        (test(&x), &["has no array `test_targets`"]),
        (
            vec![
                ("inputs", x.clone()),
                ("targets", labels.clone()),
                ("test_inputs", tensor(&[0f32], &[1, 1])),
                ("test_targets", tensor(&[0i64], &[1])),
            ],
            &[
                "expected inputs of shape [2] with labels",
                "found inputs of shape [1]",
            ],
        ),
        (
            vec![
                ("inputs", tensor::<f32>(&[], &[0, 2])),
                ("targets", tensor::<i64>(&[], &[0])),
            ],
            &["at least one sample"],
        ),
    ] {
        let [_, path] = write_arrays(dir.path(), &arrays);
        let error = DataReader::default()
            .read(&path, &CPU)
            .unwrap_err()
            .to_string();
        for word in words.iter().chain(&["data.safetensors: "]) {
            assert!(error.contains(word), "{error}");
        }
    }
    let path = dir.path().join("data.txt");
    let error = DataReader::default()
        .read(path, &CPU)
        .unwrap_err()
        .to_string();
    assert!(error.contains("has no known ending"), "{error}");
}

#[test]
fn a_split_is_seeded_and_complete() {
    let data = two_moons(60, 0.1, 0, &CPU).unwrap();
    let (train, test) = data.split(0.1, 3).unwrap();
    assert_eq!((train.len(), test.len()), (54, 6));
    let mut rows = [inputs(&train), inputs(&test)].concat();
    let mut all = inputs(&data);
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    all.sort_by(|a, b| a[0].total_cmp(&b[0]));
    assert_eq!(rows, all);
    assert_ne!(inputs(&test), inputs(&data.split(0.1, 4).unwrap().1));
    for share in [0.0, 0.001, 1.0, -1.0, f64::NAN] {
        assert!(data.split(share, 0).is_err(), "{share}");
    }
}

#[test]
fn normalised_inputs_have_mean_0_and_deviation_1() {
    // Two channels of 1 × 2 pixels, the second constant.
    let x = tensor(&[0f64, 2.0, 7.0, 7.0, 4.0, 6.0, 7.0, 7.0], &[2, 2, 1, 2]);
    let data = Dataset::classification(&x, &tensor(&[0u32, 1], &[2])).unwrap();
    let normalization = InputNormalization::per_channel(&data).unwrap();
    assert_eq!(normalization.mean, [3.0, 7.0]);
    assert_eq!(normalization.deviation, [5f64.sqrt(), 1.0]);
    let normalized = data.normalized(&normalization).unwrap();
    let unit = 1.0 / 5f64.sqrt();
    let expected = [[-3.0 * unit, -unit, 0.0, 0.0], [unit, 3.0 * unit, 0.0, 0.0]];
    for (found, expected) in inputs(&normalized)
        .iter()
        .flatten()
        .zip(expected.iter().flatten())
    {
        assert!((found - expected).abs() < 1e-15, "{found} {expected}");
    }
    assert_eq!(normalized.labels().unwrap(), [0, 1]);
    // More samples than one conversion takes, and single precision.
    let moons = two_moons(1000, 0.1, 0, &CPU)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let once = moons
        .normalized(&InputNormalization::per_channel(&moons).unwrap())
        .unwrap();
    let again = InputNormalization::per_channel(&once).unwrap();
    assert!(again.mean.iter().all(|mean| mean.abs() < 1e-6), "{again:?}");
    assert!(
        again.deviation.iter().all(|d| (d - 1.0).abs() < 1e-6),
        "{again:?}"
    );
    let overall = InputNormalization::overall(&data).unwrap();
    assert_eq!(overall.mean, [5.0]);
    assert!(
        moons
            .normalized(&InputNormalization::new([0.0; 3], [1.0; 3]).unwrap())
            .is_err()
    );
    assert!(InputNormalization::new([0.0], [1.0, 2.0]).is_err());
    assert!(InputNormalization::new([f64::NAN], [1.0]).is_err());
    assert!(InputNormalization::new([0.0], [-1.0]).is_err());
}

#[test]
fn arrays_of_any_memory_order_become_datasets() {
    let inputs_array: Array2<f32> = array![[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]].reversed_axes();
    assert!(!inputs_array.is_standard_layout());
    let labels = array![0usize, 2, 1];
    let data = Dataset::from_labelled_arrays(&inputs_array, &labels, &CPU).unwrap();
    assert_eq!(inputs(&data), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    assert_eq!(data.labels().unwrap(), [0, 2, 1]);
    let fit =
        Dataset::from_value_arrays(&inputs_array, &inputs_array.clone().into_dyn(), &CPU).unwrap();
    assert_eq!(values(&fit), inputs(&data));
    let error =
        Dataset::from_labelled_arrays(&inputs_array, &array![0i64, -3, 1], &CPU).unwrap_err();
    assert!(
        error.to_string().contains("target -3 of sample 1"),
        "{error}"
    );
    assert!(Dataset::from_labelled_arrays(&inputs_array, &array![0u8, 1], &CPU).is_err());
    assert!(Dataset::from_value_arrays(&inputs_array, &array![1u8, 2, 3], &CPU).is_err());
}

/// The bytes of an IDX file.
fn idx_file(code: u8, dims: &[u32], elements: &[u8]) -> Vec<u8> {
    let header = [0, 0, code, dims.len() as u8];
    let dims = dims.iter().flat_map(|dim| dim.to_be_bytes());
    header
        .into_iter()
        .chain(dims)
        .chain(elements.iter().copied())
        .collect()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn idx_files_of_any_name_are_found() {
    let (images, labels) = (
        idx_file(8, &[2, 1, 3], &[0, 51, 255, 102, 0, 0]),
        idx_file(8, &[2], &[3, 0]),
    );
    let test = (
        idx_file(8, &[1, 1, 3], &[255, 0, 0]),
        idx_file(8, &[1], &[3]),
    );
    for names in [
        [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ],
        [
            "train-images.idx3-ubyte",
            "train-labels.idx1-ubyte",
            "t10k-images.idx3-ubyte",
            "t10k-labels.idx1-ubyte",
        ],
        [
            "emnist-letters-train-images-idx3-ubyte",
            "emnist-letters-train-labels-idx1-ubyte",
            "emnist-letters-test-images-idx3-ubyte",
            "emnist-letters-test-labels-idx1-ubyte",
        ],
    ] {
        for (is_packed, is_nested) in [(false, false), (true, false), (false, true)] {
            let dir = folder();
            let contents = [&images, &labels, &test.0, &test.1];
            for (name, content) in names.iter().zip(contents) {
                let path = dir.path().join(name);
                match (is_packed, is_nested) {
                    (true, _) => {
                        fs::write(path.with_file_name(format!("{name}.gz")), gzipped(content))
                            .unwrap()
                    }
                    (_, true) => {
                        fs::create_dir(&path).unwrap();
                        fs::write(path.join(name), content).unwrap();
                    }
                    _ => fs::write(path, content).unwrap(),
                }
            }
            fs::write(dir.path().join("notes.txt"), "x").unwrap();
            let samples = idx::load_from(dir.path(), &CPU).unwrap();
            assert_eq!(samples.train.inputs().dims(), [2, 1, 1, 3]);
            let expected = [[0.0, 51.0 / 255.0, 1.0], [102.0 / 255.0, 0.0, 0.0]];
            for (found, expected) in inputs(&samples.train).iter().zip(expected) {
                assert!(
                    found
                        .iter()
                        .zip(expected)
                        .all(|(a, b)| (a - b).abs() < 1e-7)
                );
            }
            assert_eq!(samples.train.labels().unwrap(), [3, 0]);
            assert_eq!(
                (samples.test.labels().unwrap(), samples.name),
                (vec![3], None)
            );
            assert_eq!(samples.test_source, TestSource::Files);
            // Nothing is written.
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        }
    }
}

#[test]
fn idx_files_of_any_type_are_read() {
    let dir = folder();
    let path = dir.path().join("array");
    let read = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        let array = idx::read(&path, &CPU).unwrap();
        (
            array.dims().to_vec(),
            array
                .flatten_all()
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap()
                .to_vec1::<f64>()
                .unwrap(),
        )
    };
    assert_eq!(
        read(idx_file(8, &[1, 2], &[0, 255])),
        (vec![1, 2], vec![0.0, 255.0])
    );
    assert_eq!(
        read(idx_file(9, &[2], &[1, 255])),
        (vec![2], vec![1.0, -1.0])
    );
    assert_eq!(read(idx_file(0x0B, &[1], &[1, 0])), (vec![1], vec![256.0]));
    assert_eq!(
        read(idx_file(0x0C, &[1, 1, 1], &[255, 255, 255, 254])),
        (vec![1, 1, 1], vec![-2.0])
    );
    assert_eq!(
        read(idx_file(0x0D, &[1], &1.5f32.to_be_bytes())),
        (vec![1], vec![1.5])
    );
    assert_eq!(
        read(idx_file(0x0E, &[1], &(-0.1f64).to_be_bytes())),
        (vec![1], vec![-0.1])
    );

    // Features of 32-bit floats, and values to fit.
    let features: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    fs::write(
        dir.path().join("train-images.idx2-float"),
        idx_file(0x0D, &[2, 2], &features),
    )
    .unwrap();
    let targets: Vec<u8> = [0.5f32, 1.5].iter().flat_map(|x| x.to_be_bytes()).collect();
    fs::write(
        dir.path().join("train-labels.idx1-float"),
        idx_file(0x0D, &[2], &targets),
    )
    .unwrap();
    let samples = idx::load_from(dir.path(), &CPU).unwrap();
    assert_eq!(inputs(&samples.train), [[1.0, 2.0], [3.0, 4.0]]);
    assert_eq!(values(&samples.train), [[0.5], [1.5]]);
}

#[test]
fn errors_of_idx_files_name_the_file() {
    let (images, labels) = (
        idx_file(8, &[2, 1, 3], &[0, 51, 255, 102, 0, 0]),
        idx_file(8, &[2], &[3, 0]),
    );
    let huge = idx_file(8, &[u32::MAX, u32::MAX, u32::MAX], &[1, 2, 3]);
    let large = idx_file(8, &[4_000_000_000], &[1, 2, 3]);
    let load = |files: &[(&str, &[u8])]| {
        let dir = folder();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        idx::load_from(dir.path(), &CPU).unwrap_err().to_string()
    };
    const IMAGES: &str = "train-images-idx3-ubyte";
    const LABELS: &str = "train-labels-idx1-ubyte";
    let packed = gzipped(&images);
    for (files, words) in [
        (&[][..], &["no IDX file of training images"][..]),
        (
            &[(IMAGES, &images[..])],
            &["train-images", "no file of labels beside it"],
        ),
        (
            &[(IMAGES, &images[..images.len() - 1]), (LABELS, &labels)],
            &[
                "truncated or corrupted",
                "[2, 1, 3]",
                "22 bytes in all, and it has 21",
            ],
        ),
        (
            &[(IMAGES, &[&images[..], &[0]].concat()), (LABELS, &labels)],
            &["22 bytes in all, and it has 23"],
        ),
        (
            &[(IMAGES, &huge), (LABELS, &labels)],
            &["corrupted", "4294967295"],
        ),
        (
            &[(IMAGES, &large), (LABELS, &labels)],
            &["truncated or corrupted", "4000000000"],
        ),
        (
            &[
                ("train-images-idx3-ubyte.gz", &gzipped(&large)),
                (LABELS, &labels),
            ],
            &[".gz", "cannot contain it"],
        ),
        (
            &[
                ("train-images-idx3-ubyte.gz", &packed[..packed.len() / 2]),
                (LABELS, &labels),
            ],
            &[".gz", "truncated or corrupted"],
        ),
        (
            &[
                ("train-images-idx3-ubyte.gz", &packed[..packed.len() - 5]),
                (LABELS, &labels),
            ],
            &[".gz", "truncated or corrupted"],
        ),
        (
            &[(IMAGES, b"GIF89a"), (LABELS, &labels)],
            &["no IDX header"],
        ),
        (
            &[(IMAGES, &idx_file(7, &[1], &[1])), (LABELS, &labels)],
            &["0x07 is not a type"],
        ),
        (
            &[(IMAGES, &idx_file(8, &[0, 2, 2], &[])), (LABELS, &labels)],
            &["has no samples"],
        ),
        (
            &[(IMAGES, &images), (LABELS, &idx_file(8, &[3], &[0, 1, 2]))],
            &["one label for each of the 2 images", "[3]"],
        ),
        (
            &[(IMAGES, &images), (LABELS, &idx_file(9, &[2], &[0, 255]))],
            &["target -1 of sample 1 is not a label"],
        ),
        (
            &[
                (IMAGES, &images),
                ("other-train-images-idx3-ubyte", &images),
                (LABELS, &labels),
            ],
            &["several datasets", "other-train-images-idx3-ubyte"],
        ),
    ] {
        let error = load(files);
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    }
    // A prefix selects one of several datasets.
    let dir = folder();
    for prefix in ["", "a-", "b-"] {
        fs::write(dir.path().join(format!("{prefix}{IMAGES}")), &images).unwrap();
        fs::write(dir.path().join(format!("{prefix}{LABELS}")), &labels).unwrap();
    }
    assert!(idx::load_from(dir.path(), &CPU).is_err());
    assert_eq!(
        idx::load_from(dir.path().join("b-"), &CPU)
            .unwrap()
            .train
            .len(),
        2
    );
    assert!(idx::load_from(dir.path().join("c-"), &CPU).is_err());
    assert!(idx::load_from(dir.path().join("no/such"), &CPU).is_err());
}

#[test]
fn mnist_is_recognised_among_idx_sets() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
    let samples = idx::load_from(&dir, &CPU).unwrap();
    assert_eq!(samples.name, Some("MNIST"));
    assert_eq!(samples.train.inputs().dims(), [60_000, 1, 28, 28]);
    let mnist = Mnist::load_from(&dir, &CPU).unwrap();
    assert_eq!(mnist.name, Some("MNIST"));
    let rows = samples.test.inputs().flatten_from(1).unwrap();
    let difference = (rows - mnist.test.inputs()).unwrap().abs().unwrap();
    assert_eq!(
        difference.max_all().unwrap().to_scalar::<f32>().unwrap(),
        0.0
    );
}

#[test]
fn cifar100_has_fine_and_coarse_labels() {
    let dir = folder();
    let unpacked = dir.path().join("cifar-100-binary");
    fs::create_dir(&unpacked).unwrap();
    let record = |coarse: u8, fine: u8, pixel: u8| {
        let mut record = vec![coarse, fine];
        record.extend((0..3072u32).map(|i| if i < 1024 { pixel } else { 0 }));
        record
    };
    let train = [record(3, 42, 255), record(19, 99, 0)].concat();
    fs::write(unpacked.join("train.bin"), &train).unwrap();
    fs::write(unpacked.join("test.bin"), record(0, 1, 51)).unwrap();
    let cifar = Cifar100::load_from(dir.path(), &CPU).unwrap();
    assert_eq!(cifar.train.labels().unwrap(), [42, 99]);
    assert_eq!(cifar.coarse_train.labels().unwrap(), [3, 19]);
    assert_eq!(cifar.coarse_test.labels().unwrap(), [0]);
    // Only the red channel of the first image is bright.
    let means = cifar
        .train
        .inputs()
        .mean((2, 3))
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(means, [[1.0, 0.0, 0.0], [0.0; 3]]);

    for (bytes, words) in [
        (&train[..3073], "not a multiple of 3074"),
        (&[], "is empty"),
        (&record(20, 0, 0), "image 0 has coarse label 20"),
        (&record(0, 100, 0), "fine label 100"),
    ] {
        fs::write(unpacked.join("test.bin"), bytes).unwrap();
        let error = Cifar100::load_from(dir.path(), &CPU)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("test.bin") && error.contains(words),
            "{error}"
        );
    }
    fs::remove_file(unpacked.join("train.bin")).unwrap();
    let error = Cifar100::load_from(dir.path(), &CPU)
        .unwrap_err()
        .to_string();
    assert!(error.contains("train.bin: is missing"), "{error}");
}

#[cfg(feature = "tables")]
mod tables {
    use loss_landscape::polars::df;
    use loss_landscape::polars::prelude::{IntoColumn, NamedFrom, Series};

    use super::*;

    fn read(reader: &DataReader, text: &str) -> Result<TrainTest, String> {
        let dir = folder();
        let path = dir.path().join("table.csv");
        fs::write(&path, text).unwrap();
        reader.read(&path, &CPU).map_err(|e| e.to_string())
    }

    #[test]
    fn columns_are_inputs_and_targets() {
        let reader = DataReader::default().with_targets("kind");
        let text = "a,kind,b\n1,setosa,0.5\n2,virginica,1.5\n3,setosa,2.5\n";
        let samples = read(&reader, text).unwrap();
        // All columns but the targets, in their order; texts are classes in sorted order.
        assert_eq!(inputs(&samples.train), [[1.0, 0.5], [2.0, 1.5], [3.0, 2.5]]);
        assert_eq!(samples.train.labels().unwrap(), [0, 1, 0]);
        assert_eq!(samples.class_names.unwrap(), ["setosa", "virginica"]);

        let samples = read(&reader.clone().with_inputs(["b", "a"]), text).unwrap();
        assert_eq!(inputs(&samples.train)[1], [1.5, 2.0]);
        let samples = read(&reader.with_inputs(["b"]).with_targets("a"), text).unwrap();
        assert_eq!(samples.train.labels().unwrap(), [1, 2, 3]);
        assert!(samples.class_names.is_none());

        let samples = read(
            &DataReader::default(),
            "inputs,other,targets\n1,9,0.25\n2,9,0.5\n",
        )
        .unwrap();
        assert_eq!(
            (inputs(&samples.train), values(&samples.train)),
            (vec![vec![1.0], vec![2.0]], vec![vec![0.25], vec![0.5]])
        );
        // Quotes, empty lines and Windows line ends.
        let samples = read(
            &DataReader::default(),
            "x,targets\r\n\"1\",\"a,b\"\r\n2,\"c\nd\"\r\n\r\n",
        )
        .unwrap();
        assert_eq!(samples.class_names.unwrap(), ["a,b", "c\nd"]);
        assert_eq!(inputs(&samples.train), [[1.0], [2.0]]);
        let samples = read(
            &DataReader::default().with_tokens(true),
            "a,b,targets\n3,4,0\n5,6,1\n",
        )
        .unwrap();
        assert_eq!(
            samples.train.inputs().to_vec2::<u32>().unwrap(),
            [[3, 4], [5, 6]]
        );
        let quoted = read(&DataReader::default(), "x,targets\n1,\"10\"\n2,\"9\"\n").unwrap();
        assert_eq!(quoted.train.labels().unwrap(), [10, 9]);
        let one = read(&DataReader::default(), "x,targets\n1.5,true\n").unwrap();
        assert_eq!((one.train.len(), one.train.labels().unwrap()), (1, vec![1]));
    }

    #[test]
    fn errors_of_tables_name_row_and_column() {
        for (text, words) in [
            (
                "a,b,targets\n1,2,0\n3,x,1\n",
                &["row 2, column `b`: `x` is not a number"][..],
            ),
            (
                "a,b,targets\n1,2,0\n3,,1\n",
                &["row 2, column `b`: the cell is empty"],
            ),
            (
                "a,b,targets\n1,2,0\n3,1\n",
                &["row 2 has 2 fields, and the header has 3"],
            ),
            (
                "a,b,targets\n1,2,0,7\n3,1,1\n",
                &["row 1 has 4 fields, and the header has 3"],
            ),
            (
                "a,b,targets\n1,2,0\n3,nan,1\n",
                &["row 2, column `b`: `nan` is not a number"],
            ),
            (
                "a,b,targets\n1,2,0.5\n3,4,inf\n",
                &["row 2, column `targets`: inf is not finite"],
            ),
            (
                "a,targets\n1,0\n3,-1\n",
                &["row 2, column `targets`: -1 is not a label"],
            ),
            (
                "a,targets\n1,0\n3,\n",
                &["row 2, column `targets`: the cell is empty"],
            ),
            (
                "a,targets\n1,0\n3,NA\n",
                &["row 2, column `targets`: `NA` is not a class"],
            ),
            (
                "a,targets\n1,0.5\n3,x\n",
                &["row 2, column `targets`: `x` is not a number"],
            ),
            ("a,targets\n", &["has no rows"]),
            ("", &["has no rows"]),
            (
                "a,b\n1,2\n",
                &[
                    "has no column `targets`; its columns are `a`, `b`",
                    "--targets",
                ],
            ),
            ("targets\n1\n", &["no column of inputs"]),
            (
                "a;b;targets\n1;2;0\n",
                &["header `a;b;targets`, with ';' in place of commas"],
            ),
            ("a\ttargets\n1,5\t0\n", &["in place of commas"]),
            (
                "a,targets,targets\n1,2,0\n",
                &["has two columns `targets`", "Rename"],
            ),
            (
                ",a,targets\n0,1,0\n1,2,1\n",
                &["column without a name", "index=False", "--inputs"],
            ),
            ("__index_level_0__,targets\n0,1\n", &["the index of pandas"]),
        ] {
            let error = read(&DataReader::default(), text).unwrap_err();
            for word in words.iter().chain(&["table.csv"]) {
                assert!(error.contains(word), "{text:?}: {error}");
            }
        }
        let reader = DataReader::default().with_inputs(["a", "c"]);
        let error = read(&reader, "a,b,targets\n1,2,0\n").unwrap_err();
        assert!(error.contains("has no column `c`"), "{error}");
        // polars advises on its own options in further lines.
        let error = read(&DataReader::default(), "a,targets\n1,\"2\n3,4\n").unwrap_err();
        assert!(!error.contains("infer_schema_length"), "{error}");
        let named = DataReader::default().with_inputs(["a"]);
        assert!(read(&named, ",a,targets\n0,1,0\n1,2,1\n").is_ok());
    }

    #[test]
    fn columns_of_types_that_are_not_read_are_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/types.parquet");
        let read = |inputs: &str, targets: &str| {
            let reader = DataReader::default().with_inputs(inputs.split(','));
            let samples = reader.with_targets(targets).read(&path, &CPU);
            samples.map_err(|e| e.to_string())
        };
        // The other columns are not read.
        let samples = read("number,count,pair", "kind").unwrap();
        assert_eq!(inputs(&samples.train)[1], [1.5, 2.0, 3.0, 4.0]);
        assert_eq!(samples.class_names.unwrap(), ["a", "b"]);
        for (column, name) in [
            ("small", "Int8"),
            ("half", "Float16"),
            ("fixed", "FixedSizeList"),
            ("price", "Decimal"),
            ("time", "Timestamp"),
            ("record", "Struct"),
            ("category", "Dictionary"),
            ("bytes", "Binary"),
        ] {
            for error in [read(column, "kind"), read("number", column)] {
                let error = error.unwrap_err();
                let words = format!("column `{column}` of the type {name}");
                assert!(
                    error.contains(&words) && error.contains("types.parquet"),
                    "{error}"
                );
            }
        }
        let error = read("number", "large").unwrap_err();
        assert!(
            error.contains("types.parquet: row 2, column `large`: the integer is larger"),
            "{error}"
        );
    }

    #[test]
    fn parquet_columns_can_contain_lists() {
        let dir = folder();
        let path = dir.path().join("table.parquet");
        let lists = |rows: &[&[f32]]| {
            let rows: Vec<Series> = rows
                .iter()
                .map(|row| Series::new("".into(), *row))
                .collect();
            Series::new("inputs".into(), rows).into_column()
        };
        let write = |rows: &[&[f32]]| {
            let mut table = df!("targets" => [0i64, 1], "unused" => ["x", "y"]).unwrap();
            table.with_column(lists(rows)).unwrap();
            loss_landscape::tables::write(&path, &mut table).unwrap();
        };
        write(&[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]]);
        let samples = DataReader::default().read(&path, &CPU).unwrap();
        assert_eq!(samples.train.inputs().dtype(), DType::F32);
        assert_eq!(inputs(&samples.train), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!(samples.train.labels().unwrap(), [0, 1]);
        write(&[&[1.0, 2.0], &[4.0]]);
        let error = DataReader::default()
            .read(&path, &CPU)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("row 2, column `inputs`: the list has 1 values"),
            "{error}"
        );
        write(&[&[1.0, 2.0], &[4.0, f32::INFINITY]]);
        let error = DataReader::default()
            .read(&path, &CPU)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("row 2, column `inputs`: inf is not finite"),
            "{error}"
        );
        let whole = fs::read(&path).unwrap();
        for len in [0, 4, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let error = DataReader::default()
                .read(&path, &CPU)
                .unwrap_err()
                .to_string();
            assert!(error.contains("table.parquet: cannot be read"), "{error}");
        }
    }

    #[test]
    fn a_frame_becomes_a_dataset() {
        let table = df!("x" => [1.0f32, 2.0], "on" => [true, false], "y" => [0.5, 1.5]).unwrap();
        let data = Dataset::from_frame(&table, &["on", "x"], "y", &CPU).unwrap();
        assert_eq!(data.inputs().dtype(), DType::F32);
        assert_eq!(
            (inputs(&data), values(&data)),
            (
                vec![vec![1.0, 1.0], vec![0.0, 2.0]],
                vec![vec![0.5], vec![1.5]]
            )
        );
        let error = Dataset::from_frame(&table, &["z"], "y", &CPU)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has no column `z`; its columns are `x`, `on`, `y`"),
            "{error}"
        );
        assert!(Dataset::from_frame(&table, &[], "y", &CPU).is_err());
        assert!(Dataset::from_frame(&table.head(Some(0)), &["x"], "y", &CPU).is_err());
    }
}

#[cfg(feature = "datasets")]
mod image_folders {
    use image::{GrayImage, Rgb, RgbImage, Rgba, RgbaImage};
    use loss_landscape::data::ImageFolder;

    use super::*;

    fn save_grey(dir: &Path, name: &str, value: u8, width: u32, height: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(width, height, [value].into())
            .save(path)
            .unwrap();
    }

    fn read(folder: &ImageFolder, dir: &Path) -> Result<TrainTest, String> {
        folder.read(dir, &CPU).map_err(|e| e.to_string())
    }

    #[test]
    fn classes_alternate_in_sorted_order() {
        let dir = folder();
        let dir = dir.path();
        for (name, value) in [
            ("b/1.png", 10),
            ("b/2.png", 20),
            ("b/deep/3.png", 30),
            ("a/z.png", 40),
            ("a/y.png", 50),
            ("c/x.PNG", 60),
        ] {
            save_grey(dir, name, value, 2, 2);
        }
        fs::write(dir.join("a/.hidden.png"), "x").unwrap();
        fs::write(dir.join("a/readme.md"), "x").unwrap();
        fs::write(dir.join("labels.csv"), "x").unwrap();
        let samples = read(&ImageFolder::default(), dir).unwrap();
        assert_eq!(samples.class_names.unwrap(), ["a", "b", "c"]);
        assert_eq!(samples.train.labels().unwrap(), [0, 1, 2, 0, 1, 1]);
        let first = |row: &Vec<f64>| (row[0] * 255.0).round() as u8;
        let found: Vec<u8> = inputs(&samples.train).iter().map(first).collect();
        assert_eq!(found, [50, 10, 60, 40, 20, 30]);
        assert_eq!(samples.train.inputs().dims(), [6, 1, 2, 2]);
        assert_eq!(samples.test_source, TestSource::Training);
        let share = read(&ImageFolder::default().with_test_share(0.5), dir).unwrap();
        assert_eq!((share.train.len(), share.test.len()), (3, 3));
    }

    #[test]
    fn test_images_are_recognised() {
        for name in ["test", "val"] {
            let dir = folder();
            let dir = dir.path();
            save_grey(dir, "train/a/1.png", 0, 2, 2);
            save_grey(dir, "train/b/1.png", 1, 2, 2);
            save_grey(dir, &format!("{name}/b/2.png"), 2, 2, 2);
            let samples = read(&ImageFolder::default(), dir).unwrap();
            assert_eq!(
                (samples.train.len(), samples.test.labels().unwrap()),
                (2, vec![1])
            );
            assert_eq!(samples.test_source, TestSource::Files);
            save_grey(dir, &format!("{name}/c/2.png"), 2, 2, 2);
            let error = read(&ImageFolder::default(), dir).unwrap_err();
            assert!(
                error.contains("/c: is a class without training images"),
                "{error}"
            );
        }
    }

    #[test]
    fn colours_and_sizes() {
        let dir = folder();
        let dir = dir.path();
        save_grey(dir, "a/1.png", 255, 3, 2);
        fs::create_dir(dir.join("b")).unwrap();
        RgbImage::from_pixel(3, 2, Rgb([255, 0, 51]))
            .save(dir.join("b/1.png"))
            .unwrap();
        let samples = read(&ImageFolder::default(), dir).unwrap();
        assert_eq!(samples.train.inputs().dims(), [2, 3, 2, 3]);
        let means = samples
            .train
            .inputs()
            .mean((2, 3))
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!(means[0], [1.0; 3]);
        assert!(
            (means[1][0] - 1.0).abs() < 1e-6
                && means[1][1] == 0.0
                && (means[1][2] - 0.2).abs() < 1e-6
        );
        let grey = read(&ImageFolder::default().with_grey(true), dir).unwrap();
        assert_eq!(grey.train.inputs().dims(), [2, 1, 2, 3]);

        RgbaImage::from_pixel(6, 4, Rgba([0, 255, 0, 9]))
            .save(dir.join("b/2.png"))
            .unwrap();
        let error = read(&ImageFolder::default(), dir).unwrap_err();
        assert!(
            error.contains("b/2.png: has 4 × 6 pixels")
                && error.contains("has 2 × 3")
                && error.contains("--size"),
            "{error}"
        );
        let resized = read(&ImageFolder::default().with_size(4, 6), dir).unwrap();
        assert_eq!(resized.train.inputs().dims(), [3, 3, 4, 6]);
        let means = resized
            .train
            .inputs()
            .mean((2, 3))
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!((means[0][0], &means[2][..]), (1.0, &[0.0, 1.0, 0.0][..]));
        for size in [0, 1 << 40] {
            assert!(read(&ImageFolder::default().with_size(size, 4), dir).is_err());
        }
        // JPEG with the wrong ending.
        RgbImage::new(3, 2)
            .save_with_format(dir.join("a/1.png"), image::ImageFormat::Jpeg)
            .unwrap();
        fs::remove_file(dir.join("b/2.png")).unwrap();
        assert_eq!(read(&ImageFolder::default(), dir).unwrap().train.len(), 2);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = folder();
        let dir = dir.path();
        let message = || read(&ImageFolder::default(), dir).unwrap_err();
        assert!(message().contains("contains no folders of images"));
        save_grey(dir, "a/1.png", 0, 2, 2);
        fs::create_dir(dir.join("b")).unwrap();
        let error = message();
        assert!(
            error.contains("/b: contains no PNG or JPEG image"),
            "{error}"
        );
        fs::write(dir.join("b/2.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
        let error = message();
        assert!(error.contains("b/2.png: cannot be decoded"), "{error}");
        fs::write(dir.join("b/2.png"), b"").unwrap();
        let error = message();
        assert!(error.contains("b/2.png: cannot be decoded"), "{error}");
        fs::rename(dir.join("b/2.png"), dir.join("b/2.bmp")).unwrap();
        let error = message();
        assert!(
            error.contains("b/2.bmp: is an image of the format bmp") && error.contains("Convert"),
            "{error}"
        );
        let error = read(&ImageFolder::default(), &dir.join("no")).unwrap_err();
        assert!(error.contains("no: is missing"), "{error}");
        for side in [0, 1 << 33, 1 << 31] {
            fs::remove_file(dir.join("b/2.bmp")).ok();
            save_grey(dir, "b/2.png", 0, 2, 2);
            let error = read(&ImageFolder::default().with_size(side, side), dir).unwrap_err();
            assert!(
                error.contains("images cannot have the size") || error.contains(" TB of memory"),
                "{error}"
            );
        }
        // The size of the first image, in its header, is that of all.
        let path = dir.join("a/1.png");
        let mut png = fs::read(&path).unwrap();
        png[16..24].copy_from_slice(&[0x7F, 255, 255, 255, 0x7F, 255, 255, 255]);
        let mut sum = flate2::Crc::new();
        sum.update(&png[12..29]);
        png[29..33].copy_from_slice(&sum.sum().to_be_bytes());
        fs::write(&path, png).unwrap();
        let error = message();
        assert!(
            error.contains("2 images of 2147483647 × 2147483647 pixels need ")
                && error.contains("--size"),
            "{error}"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn links_that_contain_themselves_and_names_that_are_not_text_are_errors() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;

        let dir = folder();
        let dir = dir.path();
        save_grey(dir, "a/1.png", 0, 2, 2);
        save_grey(dir, "elsewhere/b/2.png", 0, 2, 2);
        let classes = dir.join("classes");
        fs::create_dir(&classes).unwrap();
        symlink(dir.join("a"), classes.join("a")).unwrap();
        symlink(dir.join("elsewhere/b"), classes.join("b")).unwrap();
        let found = read(&ImageFolder::default(), &classes).unwrap();
        assert_eq!(found.train.len(), 2);
        symlink("..", dir.join("a/loop")).unwrap();
        let error = read(&ImageFolder::default(), &classes).unwrap_err();
        assert!(
            error.contains("loop") && error.contains("contains itself through a link"),
            "{error}"
        );
        fs::remove_file(dir.join("a/loop")).unwrap();
        fs::create_dir(classes.join(OsStr::from_bytes(b"c\xe9"))).unwrap();
        let error = read(&ImageFolder::default(), &classes).unwrap_err();
        assert!(error.contains("whose name is not UTF-8"), "{error}");
    }
}

#[cfg(feature = "cli")]
mod command_line {
    use std::process::{Command, Output};

    use loss_landscape::serde_json::{self, Value};

    use super::*;

    fn landscape(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
        command.args(arguments).output().unwrap()
    }

    fn text(arguments: &[&str]) -> String {
        let output = landscape(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(arguments: &[&str]) -> Value {
        serde_json::from_str(&text(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// A table of two features and 12 samples of three classes.
    fn write_table(dir: &Path) -> String {
        let mut table = "width,height,species,length\n".to_owned();
        for i in 0..12u32 {
            let species = ["setosa", "virginica", "versicolor"][i as usize % 3];
            let width = f64::from(i % 5) + 0.5 * f64::from(i % 3);
            table += &format!("{width},{},{species},{}.5\n", i % 4, i % 7);
        }
        let path = dir.join("iris.csv");
        fs::write(&path, table).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_table_is_analysed() {
        let dir = folder();
        let table = write_table(dir.path());
        let columns = ["--inputs", "width,height", "--targets", "species"];
        let data = [&["--dataset", &table][..], &columns, &["--normalize"]].concat();
        let found = json(&[&["spectrum", "--top", "3"], &data[..]].concat());
        assert_eq!(found["samples"], 12);
        let dataset = &found["dataset"];
        assert_eq!(dataset["name"], table.as_str());
        assert_eq!(
            (&dataset["classes"], &dataset["shape"][0]),
            (&3.into(), &2.into())
        );
        assert_eq!(dataset["class_names"][1], "versicolor");
        assert_eq!(dataset["test_source"], "training");
        assert_eq!(dataset["normalization"]["mean"][1], 1.5);
        // The default widths fit the data: 2 inputs, 3 classes.
        assert_eq!(
            found["parameters"],
            2 * 128 + 128 + 128 * 128 + 128 + 128 * 3 + 3
        );
        let printed = text(&[&["spectrum", "--top", "3"], &data[..]].concat());
        for words in [
            "samples of shape 2, 3 classes",
            "test samples: the training samples",
            "inputs normalised: mean ",
        ] {
            assert!(printed.contains(words), "{printed}");
        }
        // Analysis and configuration file.
        let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (first, second) = (out("first"), out("second"));
        let settings = [
            "--test-share",
            "0.25",
            "--layers",
            "2,4,3",
            "--epochs",
            "2",
            "--grid",
            "3",
            "--save-dir",
        ];
        text(&[&["analyze", "--visualize"], &data[..], &settings, &[&first]].concat());
        let config = format!("{first}/config.toml");
        text(&["analyze", "--config", &config, "--save-dir", &second]);
        let read = |dir: &str, name: &str| fs::read(format!("{dir}/{name}")).unwrap();
        assert_eq!(
            read(&first, "weights.safetensors"),
            read(&second, "weights.safetensors")
        );
        let report =
            |dir: &str| serde_json::from_slice::<Value>(&read(dir, "report.json")).unwrap();
        assert_eq!(report(&first)["dataset"], report(&second)["dataset"]);
        assert_eq!(report(&first)["dataset"]["training_samples"], 9);
        assert_eq!(report(&first)["dataset"]["test_source"]["share"], 0.25);
    }

    #[test]
    fn classes_that_are_stored_as_values_are_noted() {
        let dir = folder();
        for (targets, is_noted) in [
            (["0.0", "1.0", "2.0"], true),
            (["0.0", "1.5", "2.0"], false),
            (["-1.0", "1.0", "1.0"], false),
            (["0", "1", "2"], false),
        ] {
            let table = dir.path().join("table.csv");
            let rows = targets.map(|target| format!("0.5,{target}\n"));
            fs::write(&table, format!("x,targets\n{}", rows.concat())).unwrap();
            let table = table.to_str().unwrap();
            let output = landscape(&["hvp", "--runs", "1", "--json", "--dataset", table]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            let found = said.contains("store classes as integers");
            assert_eq!(found, is_noted, "{targets:?}: {said}");
        }
    }

    #[test]
    fn values_are_fitted() {
        let dir = folder();
        let table = write_table(dir.path());
        let data = [
            "--dataset",
            &table,
            "--inputs",
            "width,height",
            "--targets",
            "length",
        ];
        let printed = text(&[&["train", "--epochs", "2"], &data[..]].concat());
        assert!(printed.contains("samples of shape 2, 1 value"), "{printed}");
        assert!(
            !printed.contains("accuracy") && !printed.contains("NaN"),
            "{printed}"
        );
        let found = json(
            &[
                &[
                    "trace",
                    "--layers",
                    "2,1",
                    "--dtype",
                    "f64",
                    "--samples",
                    "12",
                ],
                &data[..],
            ]
            .concat(),
        );
        // H = 2/n Σ (x, 1)(x, 1)ᵀ for a linear model with one output.
        let (mut sum, n) = (0.0, 12.0);
        for i in 0..12u32 {
            let width = f64::from(i % 5) + 0.5 * f64::from(i % 3);
            let height = f64::from(i % 4);
            sum += width * width + height * height + 1.0;
        }
        let trace = found["trace"]["value"]
            .as_f64()
            .unwrap_or_else(|| panic!("{found}"));
        assert!(
            (trace - 2.0 * sum / n).abs() < 1e-9 * trace,
            "{trace} {}",
            2.0 * sum / n
        );
        assert_eq!(found["dataset"]["values"], 1);
    }

    #[test]
    fn arrays_are_images_or_tokens() {
        let dir = folder();
        let images = tensor(
            &(0..2 * 3 * 64).map(|i| (i % 7) as f32).collect::<Vec<_>>(),
            &[2, 3, 8, 8],
        );
        let arrays = [("inputs", images), ("targets", tensor(&[4i64, 1], &[2]))];
        for path in write_arrays(dir.path(), &arrays) {
            let path = path.to_str().unwrap();
            let found = json(&["hvp", "--model", "cnn", "--runs", "1", "--dataset", path]);
            assert_eq!(
                (&found["dataset"]["classes"], &found["samples"]),
                (&5.into(), &2.into())
            );
            assert_eq!(
                found["dataset"]["empty_classes"],
                serde_json::json!([0, 2, 3])
            );
            let found = json(&["hvp", "--classes", "10", "--runs", "1", "--dataset", path]);
            assert_eq!(found["dataset"]["classes"], 10);
        }
        let tokens = folder();
        let x = tensor(&[0i64, 1, 2, 3, 2, 1], &[2, 3]);
        let arrays = [
            ("inputs", x),
            ("targets", tensor(&[1i64, 2, 3, 2, 1, 4], &[2, 3])),
        ];
        for path in write_arrays(tokens.path(), &arrays) {
            let found = json(&[
                "hvp",
                "--model",
                "gpt",
                "--runs",
                "1",
                "--dataset",
                path.to_str().unwrap(),
            ]);
            assert_eq!(
                (&found["dataset"]["classes"], &found["dataset"]["shape"][0]),
                (&5.into(), &3.into())
            );
        }
    }

    #[test]
    fn idx_sets_have_any_shape() {
        let dir = folder();
        let path = |name: &str| dir.path().join(name);
        let pixels: Vec<u8> = (0..2 * 12).collect();
        fs::write(
            path("train-images.idx3-ubyte"),
            idx_file(8, &[2, 3, 4], &pixels),
        )
        .unwrap();
        fs::write(path("train-labels.idx1-ubyte"), idx_file(8, &[2], &[0, 2])).unwrap();
        let source = format!("idx:{}", dir.path().display());
        let found = json(&["hvp", "--runs", "1", "--dataset", &source, "--normalize"]);
        let dataset = &found["dataset"];
        assert_eq!(dataset["shape"], serde_json::json!([1, 3, 4]));
        assert!(
            dataset["name"]
                .as_str()
                .unwrap()
                .starts_with("unknown IDX set in ")
        );
        let mean = dataset["normalization"]["mean"][0].as_f64().unwrap();
        assert!((mean - 11.5 / 255.0).abs() < 1e-8, "{mean}");
    }

    #[cfg(feature = "datasets")]
    #[test]
    fn image_folders_are_resized() {
        let dir = folder();
        for (class, value) in [("a", 0), ("b", 255)] {
            let path = dir.path().join("train").join(class);
            fs::create_dir_all(&path).unwrap();
            image::GrayImage::from_pixel(5, 6, [value].into())
                .save(path.join("1.png"))
                .unwrap();
        }
        let source = format!("imagefolder:{}", dir.path().display());
        let arguments = [
            "hvp",
            "--runs",
            "1",
            "--model",
            "cnn",
            "--size",
            "8",
            "--normalize=0.5:0.25",
        ];
        let found = json(&[&arguments[..], &["--dataset", &source]].concat());
        assert_eq!(found["dataset"]["shape"], serde_json::json!([1, 8, 8]));
        assert_eq!(
            found["dataset"]["class_names"],
            serde_json::json!(["a", "b"])
        );
        assert_eq!(found["dataset"]["normalization"]["deviation"][0], 0.25);
    }

    #[test]
    fn errors_state_found_and_expected() {
        let dir = folder();
        let table = write_table(dir.path());
        let one = dir.path().join("one.csv");
        fs::write(&one, "x,targets\n1,0\n2,0\n").unwrap();
        let one = one.to_str().unwrap();
        let identifiers = dir.path().join("identifiers.csv");
        fs::write(&identifiers, "x,targets\n1,0\n2,4000000000\n").unwrap();
        let identifiers = identifiers.to_str().unwrap();
        let columns = [
            "--inputs",
            "width,height",
            "--targets",
            "species",
            "--dataset",
            &table,
        ];
        let here = dir.path().to_str().unwrap();
        for (arguments, code, words) in [
            (&["--dataset", "svhn"][..], 2, "expected one of mnist, "),
            (&["--dataset", here], 2, "use idx:"),
            (
                &["--dataset", "plays.txt"],
                2,
                "--dataset text --data plays.txt",
            ),
            (&["--dataset", "/no/such.npz"], 1, "/no/such.npz"),
            (&["--dataset", "idx:/no/such"], 1, "/no/such: is missing"),
            (
                &["--dataset", &table],
                1,
                "has no column `targets`; its columns are `width`, `height`, `species`, `length`",
            ),
            (
                &["--dataset", &table, "--targets", "length"],
                1,
                "row 1, column `species`: `setosa` is not a number",
            ),
            (&["--dataset", one], 1, "all samples are of class 0"),
            (
                &["--dataset", one, "--classes", "0"],
                1,
                "--classes must be at least 1",
            ),
            (
                &[&columns[..], &["--classes", "2"]].concat(),
                1,
                "--classes is 2, and the largest label is 2: give at least 3",
            ),
            (
                &[&columns[..], &["--classes", "4000000000"]].concat(),
                1,
                "--classes is 4000000000, and at most 16777216 classes",
            ),
            (
                &["--dataset", identifiers],
                1,
                "the largest label or token is 4000000000, and at most 16777216 classes",
            ),
            (
                &[&columns[..], &["--layers", "2,5"]].concat(),
                1,
                "ends with 5 outputs, but the dataset has 3 classes: end it with 3, or add --classes 5",
            ),
            (
                &[&columns[..], &["--layers", "4,3"]].concat(),
                1,
                "cannot take samples of shape (2,)",
            ),
            (
                &[&columns[..], &["--model", "cnn"]].concat(),
                1,
                "channels × height × width, not samples of shape [2]",
            ),
            (
                &[&columns[..], &["--model", "gpt"]].concat(),
                1,
                "cannot be tokens",
            ),
            (
                &[&columns[..], &["--size", "4"]].concat(),
                1,
                "--size has no effect: only imagefolder:DIR",
            ),
            (
                &[&columns[..], &["--data", "x"]].concat(),
                1,
                "--data has no effect: --dataset states the path",
            ),
            (
                &[&columns[..], &["--test-share", "1"]].concat(),
                1,
                "--test-share must be above 0 and below 1",
            ),
            (
                &[&columns[..], &["--normalize=1:0"]].concat(),
                2,
                "must be finite and above 0",
            ),
            (
                &[&columns[..], &["--normalize=1,2,3:1,1,1"]].concat(),
                1,
                "3 means for inputs of shape [2]: give 1 or 2",
            ),
            (&["--inputs", "x"], 1, "--inputs has no effect: only files"),
            (
                &["--dataset", "synthetic", "--classes", "3"],
                1,
                "--classes has no effect",
            ),
            (&["--dataset", "cifar100"], 1, "CIFAR-100 is not included"),
        ] {
            let output = landscape(&[&["hvp", "--runs", "1"], arguments].concat());
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains(words), "{arguments:?}: {error}");
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
            assert!(!error.contains("panicked"), "{error}");
        }
    }
}
