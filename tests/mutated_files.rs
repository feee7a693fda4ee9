//! Damaged files: 5,000 mutations of small valid files through the public readers. A reader returns a value or an error. It does not
//! panic, does not hang, and allocates no more than a multiple of the file's length.
//!
//! `MUTATIONS` sets the number of mutations per format, `MUTATIONS_SEED` draws others. A failure names the mutation and a copy of the
//! file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use loss_landscape::Error;
use loss_landscape::data::idx;
use loss_landscape::files::{WRITABLE, read_arrays, write_tensors};
use loss_landscape::import::Onnx;
use loss_landscape::prelude::*;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// Counts the bytes in use, and their maximum since the last reset.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn add(size: usize) {
    let in_use = IN_USE.fetch_add(size, Ordering::Relaxed).wrapping_add(size);
    PEAK.fetch_max(in_use, Ordering::Relaxed);
}

/// Formats take turns, because the counter sees the allocations of all threads.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that any reader may allocate, for messages, tables of names and threads.
const BASE: usize = 1 << 20;

/// Bytes per byte of the file: an element of one byte becomes 8, in the file, in a copy and in the result, besides the names.
const PLAIN: usize = 64;

/// Deflate packs at most 1032 bytes into one. The unpacked bytes, a copy and the result.
const COMPRESSED: usize = 3 * 1032;

/// In a file of messages, an empty message of two bytes becomes a structure of some hundred.
const MESSAGES: usize = 1000;

const TIME_LIMIT: Duration = Duration::from_secs(20);

type Mutate = fn(&[u8], &mut Mutator) -> Vec<u8>;

struct Format {
    /// Name of the file that is read.
    file: &'static str,
    valid: Vec<Vec<u8>>,
    read: fn(&Path) -> Result<(), Error>,
    /// Mutates what a container holds, such as a member of an archive, and packs it again.
    mutate_inside: Option<Mutate>,
    /// Bytes that the reader may allocate per byte of the file, besides [`BASE`].
    allocated_per_byte: usize,
}

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

impl Format {
    /// Reads the valid files, then `mutations` damaged ones.
    fn fuzz(&self, mutations: usize) {
        let _turn = turn();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(self.file);
        let reader = Reader::start(self.read);
        for (i, bytes) in self.valid.iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let attempt = reader.read(&path).unwrap();
            assert!(
                attempt.error.is_none(),
                "valid file {i}: {:?}",
                attempt.error
            );
            self.check_peak(&attempt, bytes.len()).unwrap();
        }
        let mut accepted = 0;
        for i in 0..setting("MUTATIONS", mutations) {
            let mut mutator = Mutator::new(setting("MUTATIONS_SEED", 0), i, &self.valid);
            let bytes = mutator.valid_file();
            let bytes = match self.mutate_inside {
                Some(mutate_inside) if i % 2 == 0 => mutate_inside(&bytes, &mut mutator),
                _ => mutator.mutate(bytes),
            };
            fs::write(&path, &bytes).unwrap();
            let checked = reader.read(&path).and_then(|attempt| {
                accepted += usize::from(attempt.error.is_none());
                self.check_peak(&attempt, bytes.len())
            });
            if let Err(problem) = checked {
                let copy = std::env::temp_dir().join(format!("mutation-{i}-{}", self.file));
                fs::write(&copy, &bytes).unwrap();
                panic!(
                    "{}, mutation {i}: {problem} ({})",
                    self.file,
                    copy.display()
                );
            }
        }
        println!("{}: {accepted} files were accepted", self.file);
    }

    fn check_peak(&self, attempt: &Attempt, len: usize) -> Result<(), String> {
        let limit = BASE + self.allocated_per_byte * len;
        match attempt.peak <= limit {
            true => Ok(()),
            false => Err(format!(
                "{} bytes were allocated for a file of {len}, more than {limit}",
                attempt.peak
            )),
        }
    }
}

/// The result of reading one file.
struct Attempt {
    error: Option<Error>,
    /// Largest number of bytes in use while the file was read.
    peak: usize,
}

/// A thread that reads files.
struct Reader {
    paths: mpsc::Sender<PathBuf>,
    results: mpsc::Receiver<Result<Attempt, String>>,
}

impl Reader {
    fn start(read: fn(&Path) -> Result<(), Error>) -> Self {
        let (paths, requests) = mpsc::channel::<PathBuf>();
        let (answers, results) = mpsc::channel();
        thread::spawn(move || {
            for path in requests {
                let before = IN_USE.load(Ordering::Relaxed);
                PEAK.store(before, Ordering::Relaxed);
                let result = catch_unwind(|| read(&path));
                let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
                let answer = match result {
                    Ok(result) => Ok(Attempt {
                        error: result.err(),
                        peak,
                    }),
                    Err(panic) => Err(format!("the reader panicked: {}", message(&*panic))),
                };
                if answers.send(answer).is_err() {
                    return;
                }
            }
        });
        Self { paths, results }
    }

    /// Reads the file; an error if the reader panics or hangs.
    fn read(&self, path: &Path) -> Result<Attempt, String> {
        self.paths.send(path.to_owned()).unwrap();
        let result = self.results.recv_timeout(TIME_LIMIT);
        result.unwrap_or_else(|_| Err(format!("the reader took more than {TIME_LIMIT:?}")))
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("?")
}

/// Damages files. The same seed, index and files give the same damage.
struct Mutator<'a> {
    random: ChaCha8Rng,
    files: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    fn new(seed: u64, index: usize, files: &'a [Vec<u8>]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(index as u64);
        Self { random, files }
    }

    fn valid_file(&mut self) -> Vec<u8> {
        self.files.choose(&mut self.random).unwrap().clone()
    }

    /// One to three changes.
    fn mutate(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.random.random_range(1..=3) {
            if bytes.is_empty() {
                break;
            }
            match self.random.random_range(0..7) {
                0 => self.flip_bits(&mut bytes),
                1 => bytes.truncate(self.random.random_range(0..bytes.len())),
                2 => self.overwrite_number(&mut bytes),
                3 => self.overwrite_varint(&mut bytes),
                4 => self.replace_decimal(&mut bytes),
                5 => self.splice(&mut bytes),
                _ => self.repeat(&mut bytes),
            }
        }
        bytes
    }

    /// A position; in half of the cases near one end of the file, where headers are.
    fn position(&mut self, bytes: &[u8]) -> usize {
        let near = bytes.len().min(256);
        match self.random.random_range(0..4) {
            0 => self.random.random_range(0..near),
            1 => bytes.len() - 1 - self.random.random_range(0..near),
            _ => self.random.random_range(0..bytes.len()),
        }
    }

    /// A piece of at most 64 bytes.
    fn piece<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.position(bytes);
        let len = self.random.random_range(0..=64);
        &bytes[start..(start + len).min(bytes.len())]
    }

    fn flip_bits(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.random.random_range(1..=8) {
            let at = self.position(bytes);
            bytes[at] ^= 1 << self.random.random_range(0..8);
        }
    }

    /// Overwrites 1, 2, 4 or 8 bytes by a number at which sizes overflow.
    fn overwrite_number(&mut self, bytes: &mut [u8]) {
        let numbers = [
            0,
            1,
            bytes.len() as u64,
            bytes.len() as u64 + 1,
            0x7F,
            0xFFFF,
            0x7FFF_FFFF,
            0xFFFF_FFFF,
            1 << 33,
            1 << 62,
            i64::MAX as u64,
            1 << 63,
            u64::MAX - 7,
            u64::MAX,
        ];
        let number = *numbers.choose(&mut self.random).unwrap();
        let size = *[1, 2, 4, 8].choose(&mut self.random).unwrap();
        let number = match self.random.random() {
            true => number.to_le_bytes()[..size].to_vec(),
            false => number.to_be_bytes()[8 - size..].to_vec(),
        };
        let at = self.position(bytes);
        for (byte, new) in bytes[at..].iter_mut().zip(number) {
            *byte = new;
        }
    }

    /// Overwrites some bytes by a large number in protobuf's encoding.
    fn overwrite_varint(&mut self, bytes: &mut [u8]) {
        let len = self.random.random_range(1..=10);
        let at = self.position(bytes);
        for (i, byte) in bytes[at..].iter_mut().take(len).enumerate() {
            *byte = if i + 1 == len { 0x01 } else { 0xFF };
        }
    }

    /// Replaces a decimal number, as in headers of text, by a large, negative or wrong one.
    fn replace_decimal(&mut self, bytes: &mut Vec<u8>) {
        let is_digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
        let starts = (0..bytes.len()).filter(|&i| is_digit(i) && (i == 0 || !is_digit(i - 1)));
        let Some(start) = starts.choose(&mut self.random) else {
            return self.flip_bits(bytes);
        };
        let end = (start..).find(|&i| !is_digit(i)).unwrap();
        let numbers = [
            "0",
            "7",
            "-1",
            "1e9",
            "65536",
            "2147483648",
            "4294967295",
            "1099511627776",
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999",
        ];
        let number = *numbers.choose(&mut self.random).unwrap();
        bytes.splice(start..end, number.bytes());
    }

    /// Replaces a piece by a piece of some valid file.
    fn splice(&mut self, bytes: &mut Vec<u8>) {
        let other = self.valid_file();
        let new = self.piece(&other).to_vec();
        let start = self.position(bytes);
        let end = (start + self.random.random_range(0..=64)).min(bytes.len());
        bytes.splice(start..end, new);
    }

    /// Inserts a piece of the file several times.
    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let times = self.random.random_range(1..=20);
        let piece = self.piece(bytes).repeat(times);
        let at = self.position(bytes);
        bytes.splice(at..at, piece);
    }
}

/// Mutates one member of a zip archive, whose checksums stay right.
fn mutate_member(bytes: &[u8], mutator: &mut Mutator) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let chosen = mutator.random.random_range(0..archive.len());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        if index == chosen {
            content = mutator.mutate(content);
        }
        let options = SimpleFileOptions::default().compression_method(member.compression());
        let name = member.name().unwrap().into_owned();
        zip.start_file(name, options).unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Mutates the content of a gzipped file.
fn mutate_unpacked(bytes: &[u8], mutator: &mut Mutator) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content).unwrap();
    gzipped(&mutator.mutate(content))
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(content).unwrap();
    gz.finish().unwrap()
}

fn arrays(path: &Path) -> Result<(), Error> {
    read_arrays(path, &Device::Cpu).map(drop)
}

/// A file of the tests' directory.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(name),
    )
    .unwrap()
}

/// Two small tensors in the format of the name's ending.
fn written(name: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let tensor = |shape: (usize, usize), dtype| {
        let tensor = Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap();
        let tensor = tensor.reshape(shape).unwrap();
        tensor.to_dtype(dtype).unwrap()
    };
    let tensors = [
        ("layers.0.weight".to_owned(), tensor((3, 4), DType::F32)),
        ("layers.0.bias".to_owned(), tensor((12, 1), DType::F64)),
    ];
    write_tensors(&path, WRITABLE, tensors).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn safetensors() {
    let format = Format {
        file: "w.safetensors",
        valid: vec![written("w.safetensors")],
        read: arrays,
        mutate_inside: None,
        allocated_per_byte: PLAIN,
    };
    format.fuzz(1000);
}

#[test]
fn npz() {
    let format = Format {
        file: "w.npz",
        valid: vec![written("w.npz"), fixture("mutated/compressed.npz")],
        read: arrays,
        mutate_inside: Some(mutate_member),
        allocated_per_byte: COMPRESSED,
    };
    format.fuzz(1000);
}

#[test]
fn pth() {
    let format = Format {
        file: "w.pth",
        valid: vec![
            fixture("mutated/state.pth"),
            fixture("mutated/checkpoint.pth"),
        ],
        read: arrays,
        mutate_inside: Some(mutate_member),
        allocated_per_byte: COMPRESSED,
    };
    format.fuzz(800);
}

#[test]
fn pth_before_pytorch_1_6() {
    let format = Format {
        file: "w.pth",
        valid: vec![fixture("mutated/legacy.pth")],
        read: arrays,
        mutate_inside: None,
        allocated_per_byte: PLAIN,
    };
    format.fuzz(200);
}

#[test]
fn onnx() {
    let names = [
        "activations",
        "conv1d",
        "gpt_tied",
        "group_norm",
        "lenet",
        "mlp",
        "mlp_fixed_batch",
        "mlp_gelu_operator",
        "vit_mean",
    ];
    let format = Format {
        file: "net.onnx",
        valid: names
            .map(|name| fixture(&format!("onnx/{name}.onnx")))
            .to_vec(),
        read: |path| Onnx::load(path, &Device::Cpu).map(drop),
        mutate_inside: None,
        allocated_per_byte: MESSAGES,
    };
    format.fuzz(1500);
}

/// An IDX file of three 2 × 4 images of bytes, and one of two 16-bit integers.
fn idx_files() -> Vec<Vec<u8>> {
    let images = [0, 0, 0x08, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4];
    let images = images.into_iter().chain(0..24).collect();
    vec![images, vec![0, 0, 0x0B, 1, 0, 0, 0, 2, 0, 7, 255, 255]]
}

fn idx_array(path: &Path) -> Result<(), Error> {
    idx::read(path, &Device::Cpu).map(drop)
}

#[test]
fn idx_plain() {
    let format = Format {
        file: "images.idx3-ubyte",
        valid: idx_files(),
        read: idx_array,
        mutate_inside: None,
        allocated_per_byte: PLAIN,
    };
    format.fuzz(250);
}

#[test]
fn idx_gzipped() {
    let files = idx_files();
    let format = Format {
        file: "images.idx3-ubyte.gz",
        valid: files.iter().map(|file| gzipped(file)).collect(),
        read: idx_array,
        mutate_inside: Some(mutate_unpacked),
        allocated_per_byte: COMPRESSED,
    };
    format.fuzz(250);
}
