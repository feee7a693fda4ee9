//! Reading arrays from files of other programs (tests/weights/make.py), and from damaged and hostile files.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::numbers;
use loss_landscape::files::{WRITABLE, read_arrays, write_tensors};
use loss_landscape::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const CPU: Device = Device::Cpu;

/// Records the largest allocation.
struct Largest;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// Upper bound on all allocations of this file's tests, whose files are smaller than 100 kB.
const MAX_ALLOCATION: usize = 32 << 20;

fn assert_small_allocations() {
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < MAX_ALLOCATION, "{largest} bytes");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/weights")
        .join(name)
}

/// Type, shape and numbers.
type Found = (DType, Vec<usize>, Vec<f64>);

fn found(tensor: &Tensor) -> Found {
    let numbers = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    (
        tensor.dtype(),
        tensor.dims().to_vec(),
        numbers.to_vec1().unwrap(),
    )
}

fn read(name: &str) -> BTreeMap<String, Found> {
    let arrays = read_arrays(fixture(name), &CPU).unwrap();
    arrays
        .iter()
        .map(|(name, t)| (name.clone(), found(t)))
        .collect()
}

fn refusal(path: &Path) -> String {
    let error = read_arrays(path, &CPU).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&*path.to_string_lossy()), "{error}");
    assert!(error.ends_with("shards"), "{error}");
    error
}

/// The perceptron of make.py, in its order.
const NAMES: [(&str, &[usize]); 4] = [
    ("0.weight", &[4, 3]),
    ("0.bias", &[4]),
    ("2.weight", &[2, 4]),
    ("2.bias", &[2]),
];

fn weights(dtype: DType, prefix: &str) -> Vec<(String, Found)> {
    let entries = NAMES.iter().enumerate();
    entries
        .map(|(i, (name, shape))| {
            let len: usize = shape.iter().product();
            let numbers = (0..len).map(|k| (k as f64 - 3.0) / 8.0 + i as f64);
            (
                format!("{prefix}{name}"),
                (dtype, shape.to_vec(), numbers.collect()),
            )
        })
        .collect()
}

#[test]
fn files_of_pytorch_and_numpy_are_read_in_their_order() {
    for (name, dtype, prefix) in [
        ("sequential.pth", DType::F32, ""),
        ("parameters.pt", DType::F32, ""),
        ("legacy.pth", DType::F32, ""),
        ("protocol4.pth", DType::F32, ""),
        ("half.pth", DType::F16, ""),
        ("bfloat.pth", DType::BF16, ""),
        ("wrapped.pth", DType::F32, "module._orig_mod."),
        ("checkpoint.ckpt", DType::F32, "model."),
        ("plain.npz", DType::F32, ""),
        ("compressed.npz", DType::F32, ""),
    ] {
        let arrays = read_arrays(fixture(name), &CPU).unwrap();
        let arrays = arrays.iter().map(|(name, t)| (name.clone(), found(t)));
        assert_eq!(arrays.collect::<Vec<_>>(), weights(dtype, prefix), "{name}");
    }
    for (name, dtype) in [
        ("half.safetensors", DType::F16),
        ("model.safetensors.index.json", DType::F32),
    ] {
        let expected = weights(dtype, "").into_iter().collect();
        assert_eq!(read(name), expected, "{name}");
    }
    let [weight, .., bias] = &weights(DType::F32, "")[..] else {
        panic!()
    };
    let nested = [
        ("encoder.0.weight".to_owned(), weight.1.clone()),
        ("head.bias".to_owned(), bias.1.clone()),
    ];
    assert_eq!(read("nested.pt"), nested.into());
    assert_small_allocations();
}

#[test]
fn types_strides_and_byte_orders_are_read() {
    let numbers = |dtype| (dtype, vec![3], vec![0.0, 1.0, 5.0]);
    let types = [
        ("float16", DType::F16),
        ("bfloat16", DType::BF16),
        ("float32", DType::F32),
        ("float64", DType::F64),
        ("uint8", DType::U8),
        ("uint16", DType::U32),
        ("uint32", DType::U32),
        ("uint64", DType::I64),
        ("int8", DType::I64),
        ("int16", DType::I64),
        ("int32", DType::I64),
        ("int64", DType::I64),
    ];
    let mut expected: BTreeMap<_, _> = types
        .iter()
        .map(|(name, dtype)| ((*name).to_owned(), numbers(*dtype)))
        .collect();
    let mut add = |name: &str, found: Found| drop(expected.insert(name.to_owned(), found));
    add("bool", (DType::U8, vec![3], vec![0.0, 1.0, 1.0]));
    add("negative", (DType::I64, vec![3], vec![0.0, -1.0, -5.0]));
    add("scalar", (DType::F32, vec![], vec![2.5]));
    let mut numpy = expected.clone();

    let f32s = |shape: &[usize], numbers: &[f64]| (DType::F32, shape.to_vec(), numbers.to_vec());
    let mut add = |name: &str, found: Found| drop(expected.insert(name.to_owned(), found));
    add("part", f32s(&[2, 3], &[5.0, 6.0, 7.0, 8.0, 9.0, 10.0]));
    add(
        "transposed",
        f32s(&[3, 2], &[0.0, 12.0, 1.0, 13.0, 2.0, 14.0]),
    );
    let strided = [1.0, 2.0, 9.0, 10.0, 13.0, 14.0, 21.0, 22.0];
    add("strided", f32s(&[2, 2, 2], &strided));
    add("repeated", f32s(&[3, 2], &[7.0; 6]));
    add("empty", f32s(&[0, 3], &[]));
    assert_eq!(read("types.pth"), expected);

    let mut contiguous = expected.clone();
    contiguous.retain(|name, _| !["transposed", "strided", "repeated"].contains(&name.as_str()));
    assert_eq!(read("types.safetensors"), contiguous);
    expected.retain(|name, _| !["uint16", "uint32", "uint64"].contains(&name.as_str()));
    assert_eq!(read("types_legacy.pth"), expected);

    numpy.remove("bfloat16");
    let mut add = |name: &str, found: Found| drop(numpy.insert(name.to_owned(), found));
    add("float32_big", numbers(DType::F32));
    add("float64_big", numbers(DType::F64));
    add("int32_big", numbers(DType::I64));
    let counted = |len: usize| (0..len).map(|i| i as f64).collect();
    add("fortran", (DType::F32, vec![2, 3, 4], counted(24)));
    add("fortran_big", (DType::F64, vec![4, 6], counted(24)));
    add("empty", (DType::F64, vec![0, 3], vec![]));
    assert_eq!(read("types.npz"), numpy);
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    for (name, reason) in [
        (
            "refused_module.pt",
            "it holds an object of `__main__.Net`; save `model.state_dict()`",
        ),
        (
            "refused_script.pt",
            "it is a TorchScript archive; save `model.state_dict()`",
        ),
        (
            "refused_sparse.pth",
            "array `weight`: it is a `sparse_tensor`: only dense tensors",
        ),
        (
            "refused_complex.pth",
            "array `weight`: elements of `torch.ComplexFloatStorage` are not",
        ),
        ("refused_quantized.pth", "array `weight`: it is a `qtensor`"),
        ("refused_list.pth", "it holds no dictionary with tensors"),
        (
            "refused_text.npz",
            "array `names`: it has text (`<U3`), which are not read",
        ),
        (
            "refused_objects.npz",
            "array `objects`: it has Python objects",
        ),
        (
            "refused_fields.npz",
            "array `fields`: it has elements of several fields",
        ),
        ("make.py", "it is not a safetensors, .npz or PyTorch file"),
        ("resnet18.json", "it is not an index of shards"),
    ] {
        let error = refusal(&fixture(name));
        assert!(error.contains(reason), "{error}");
    }
}

/// Calls in a pickle are not executed: `os.system` makes no file.
#[test]
fn nothing_in_a_pickle_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let command = format!("touch {}", made.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.bytes());
    pickle.extend(b"\x85R.");
    let path = dir.path().join("w.pth");
    fs::write(
        &path,
        zip(&[("w/data.pkl", &pickle)], CompressionMethod::Stored),
    )
    .unwrap();
    assert!(refusal(&path).contains("it holds an object of `posix.system`"));
    assert!(!made.exists());
}

fn zip(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
}

fn npz(header: &str, data: &[u8]) -> Vec<u8> {
    zip(
        &[("a.npy", &npy(header, data))],
        CompressionMethod::Deflated,
    )
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len[..], header.as_bytes(), data].concat()
}

/// A `.pth` file with one storage of four numbers and this pickle after the description of the storage.
fn pth(pickle: &[u8]) -> Vec<u8> {
    zip(
        &[("w/data.pkl", pickle), ("w/data/0", &[0; 16])],
        CompressionMethod::Stored,
    )
}

/// A state dict with one tensor, whose offset, shape and strides are these operations of the pickle.
fn tensor(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
    let before = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(";
    let after = b"\x89}tRs.";
    pth(&[&before[..], storage, offset, shape, strides, after].concat())
}

#[test]
fn claims_beyond_the_file_are_refused_without_memory_for_them() {
    let header =
        |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let entry = |shape: &str, offsets: &str| {
        let header =
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        safetensors(&header, &[0; 16])
    };
    // Bytes that compress by the largest factor, a thousand million of them claimed.
    let zeros = zip(&[("a.npy", &vec![0; 1 << 20])], CompressionMethod::Deflated);
    let size = (1u32 << 20).to_le_bytes();
    let mut bomb = zeros.clone();
    for at in (0..bomb.len() - 4).filter(|at| zeros[*at..at + 4] == size) {
        bomb[at..at + 4].copy_from_slice(&(1u32 << 30).to_le_bytes());
    }
    let four = b"K\x04\x85";
    let mut nested = b"\x80\x02".to_vec();
    // A dictionary that contains the last one twice, and so on: 2¹⁰⁰ paths.
    nested.extend(b"}q\0");
    for _ in 0..100 {
        nested.extend(b"}q\x01(K\x01h\0K\x02h\0uq\0");
    }
    nested.push(b'.');
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "npz",
            npz(&header("(1000000000000,)"), &[0; 16]),
            "needs more data than the file",
        ),
        (
            "npz",
            npz(&header("(5,)"), &[0; 16]),
            "needs 20 bytes, but the file has 16",
        ),
        (
            "npz",
            npz(&header("(0, 9223372036854775807, 4)"), &[]),
            "too large for this machine",
        ),
        (
            "npz",
            npz(&header("(4294967296, 4294967296)"), &[0; 16]),
            "too large",
        ),
        ("npz", npz(&header("(-1,)"), &[0; 16]), "the shape (-1,)"),
        (
            "npz",
            npz("{'descr': '<f4', 'shape': (4,)", &[0; 16]),
            "no `fortran_order`",
        ),
        ("npz", bomb, "claims 1073741824 bytes, more than its"),
        (
            "npz",
            zip(&[("a.txt", b"")], CompressionMethod::Stored),
            "neither .npy files nor",
        ),
        (
            "safetensors",
            u64::MAX.to_le_bytes().to_vec(),
            "it is not a safetensors",
        ),
        (
            "safetensors",
            [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
            "its header has",
        ),
        (
            "safetensors",
            entry("[1000000000000]", "[0,16]"),
            "does not fit its 16 bytes",
        ),
        (
            "safetensors",
            entry("[4]", "[0,16000000000]"),
            "the bytes 0 to 16000000000",
        ),
        ("safetensors", entry("[4]", "[16,0]"), "the bytes 16 to 0"),
        ("safetensors", entry("[-4]", "[0,16]"), "is damaged"),
        (
            "safetensors",
            entry("[18446744073709551615,4]", "[0,16]"),
            "too large",
        ),
        (
            "pth",
            tensor(b"K\x05", four, b"K\x01\x85"),
            "starts at element 5 of a storage",
        ),
        (
            "pth",
            tensor(b"K\0", b"J\xff\xff\xff\x7f\x85", b"K\0\x85"),
            "more data than the file",
        ),
        (
            "pth",
            tensor(b"K\0", four, b"J\xff\xff\xff\x7f\x85"),
            "the file has 16",
        ),
        (
            "pth",
            tensor(b"K\0", four, b"J\xff\xff\xff\xff\x85"),
            "its description is damaged",
        ),
        (
            "pth",
            tensor(b"K\0", four, b")"),
            "its description is damaged",
        ),
        ("pth", pth(&nested), "nested more than"),
        ("pth", pth(b"\x80\x02}q\0(K\x01h\0u."), "nested more than"),
        ("pth", pth(b"\x80\x02(((((((("), "the pickle is truncated"),
        ("pth", pth(b"\x80\x02u."), "the pickle is damaged"),
        ("pth", pth(b"I1\n."), "the operation 0x49"),
        (
            "pth",
            pth(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f."),
            "truncated",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (i, (extension, bytes, reason)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{i}.{extension}"));
        fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(
        read_tensor(&dir, &tensor(b"K\0", four, b"K\x01\x85")).dims(),
        [4],
        "the file that the cases damage is whole"
    );
    assert_small_allocations();
}

fn read_tensor(dir: &tempfile::TempDir, bytes: &[u8]) -> Tensor {
    let path = dir.path().join("whole");
    fs::write(&path, bytes).unwrap();
    read_arrays(&path, &CPU).unwrap().remove(0).1
}

#[test]
fn an_index_names_files_beside_it_and_arrays_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors.index.json");
    let v = Tensor::new(&[1f32], &CPU).unwrap();
    let shard = dir.path().join("a.safetensors");
    write_tensors(&shard, WRITABLE, [("v".to_owned(), v)]).unwrap();
    for (map, reason) in [
        (
            r#"{"v": "a.safetensors", "w": "a.safetensors"}"#,
            "shard `a.safetensors` has no array `w`",
        ),
        (
            r#"{"v": "../a.safetensors"}"#,
            "is not the name of a file in the same directory",
        ),
        (
            r#"{"v": "/etc/passwd"}"#,
            "is not the name of a file in the same directory",
        ),
    ] {
        fs::write(&path, format!(r#"{{"weight_map": {map}}}"#)).unwrap();
        assert!(refusal(&path).contains(reason), "{}", refusal(&path));
    }
    fs::write(&path, r#"{"weight_map": {"v": "b.safetensors"}}"#).unwrap();
    let error = read_arrays(&path, &CPU).unwrap_err().to_string();
    assert!(error.contains("b.safetensors: cannot be read"), "{error}");
    fs::write(&path, r#"{"weight_map": {"v": "a.safetensors"}}"#).unwrap();
    assert_eq!(read_arrays(&path, &CPU).unwrap().len(), 1);
}

/// Every mutated file is read or refused. Nothing panics, and no allocation is large.
#[test]
fn mutated_files_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, name) in [
        "sequential.pth",
        "legacy.pth",
        "protocol4.pth",
        "types.pth",
        "types_legacy.pth",
        "wrapped.pth",
        "plain.npz",
        "types.npz",
        "types.safetensors",
        "model.safetensors.index.json",
    ]
    .iter()
    .enumerate()
    {
        let whole = fs::read(fixture(name)).unwrap();
        let path = dir.path().join(name);
        let mut refused = 0;
        for pair in numbers(600, seed as u64).chunks(2) {
            let at = ((pair[0] + 1.0) / 2.0 * whole.len() as f64) as usize;
            let at = at.min(whole.len() - 1);
            let mut mutated = whole.clone();
            match (pair[1] * 30.0) as i32 {
                0 => mutated.truncate(at),
                1..5 => mutated.extend(&whole[at..]),
                5..10 => drop(mutated.remove(at)),
                10..15 => mutated[at] = 0xff,
                change => mutated[at] ^= 1 << (change.unsigned_abs() % 8),
            }
            fs::write(&path, mutated).unwrap();
            refused += usize::from(read_arrays(&path, &CPU).is_err());
        }
        assert!(refused > 100, "{name}: {refused}");
    }
    assert_small_allocations();
}

#[test]
fn a_pth_file_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let tensors = vec![
        (
            "a.weight".to_owned(),
            Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &CPU).unwrap(),
        ),
        ("b".to_owned(), Tensor::new(&[0.1f64, -0.2], &CPU).unwrap()),
        ("scalar".to_owned(), Tensor::new(5f32, &CPU).unwrap()),
        (
            "empty".to_owned(),
            Tensor::zeros((0, 3), DType::F64, &CPU).unwrap(),
        ),
    ];
    write_tensors(&path, WRITABLE, tensors.clone()).unwrap();
    let arrays = read_arrays(&path, &CPU).unwrap();
    let all = |named: &[(String, Tensor)]| {
        let named = named.iter().map(|(name, t)| (name.clone(), found(t)));
        named.collect::<Vec<_>>()
    };
    assert_eq!(all(&arrays), all(&tensors));

    // The same bytes each time, and data on multiples of 64 bytes.
    let bytes = fs::read(&path).unwrap();
    write_tensors(&path, WRITABLE, tensors).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let numbers: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let at = bytes.windows(16).position(|window| window == numbers);
    assert_eq!(at.unwrap() % 64, 0);
    let integers = [("i".to_owned(), Tensor::new(&[1u8], &CPU).unwrap())];
    let error = write_tensors(&path, WRITABLE, integers)
        .unwrap_err()
        .to_string();
    assert!(error.contains("tensor `i` is U8"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
