//! Downloads of public datasets from a server on loopback, and refusals without one.
#![cfg(all(feature = "cli", feature = "datasets"))]

#[path = "common/parquet.rs"]
mod parquet;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use image::{ExtendedColorType, ImageFormat};
use parquet::parquet;

/// Files of a server by path.
type Files = Arc<HashMap<String, Vec<u8>>>;

/// How a server answers a GET. It always answers a HEAD.
#[derive(Clone, Copy, PartialEq)]
enum Get {
    Whole,
    /// Half of the file, then the connection is closed.
    Half,
    /// Half of the file, then nothing.
    Stalls,
    /// Status 503.
    Unavailable,
}

/// A server that speaks as much of the hub's protocol as a download needs.
struct Server {
    endpoint: String,
    /// Requests, such as `GET /datasets/…`.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(files: &Files, get: Get) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (files, log) = (files.clone(), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (files.clone(), log.clone());
                thread::spawn(move || serve(stream, &files, get, &log));
            }
        });
        Self { endpoint, requests }
    }

    fn gets(&self) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|r| r.starts_with("GET")).count()
    }
}

fn serve(stream: TcpStream, files: &Files, get: Get, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let (method, rest) = request.split_once(' ').unwrap();
        let path = rest.split(' ').next().unwrap();
        log.lock().unwrap().push(format!("{method} {path}"));
        let (status, body) = match files.get(path) {
            Some(_) if method == "GET" && get == Get::Unavailable => (503, &b"try later"[..]),
            Some(body) => (200, &body[..]),
            None => (404, &b""[..]),
        };
        let head = format!(
            "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\n\r\n",
            body.len(),
            path.replace('/', "-"),
            "0123456789".repeat(4)
        );
        let sent = match (method, get) {
            ("HEAD", _) => 0,
            (_, Get::Half | Get::Stalls) => body.len() / 2,
            _ => body.len(),
        };
        let written = stream.write_all(&[head.as_bytes(), &body[..sent]].concat());
        match (method, get) {
            ("GET", Get::Half) => return drop(stream.shutdown(Shutdown::Both)),
            ("GET", Get::Stalls) => thread::sleep(Duration::from_secs(600)),
            _ if written.is_err() => return,
            _ => {}
        }
    }
}

/// Directories of a run: the data, and the cache of hf-hub.
struct Dirs(tempfile::TempDir);

impl Dirs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self, set: &str) -> PathBuf {
        self.0.path().join("data").join(set)
    }

    /// `landscape` with these arguments, whose downloads come from this server.
    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "HF_HUB_OFFLINE",
            "HF_TOKEN",
        ] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .args(arguments)
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HOME", self.0.path())
            .env("HF_HUB_CACHE", self.0.path().join("hub"))
            .env("LOSS_LANDSCAPE_DATA", self.0.path().join("data"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, endpoint: &str, arguments: &[&str]) -> Output {
        self.command(endpoint, arguments).output().unwrap()
    }

    #[track_caller]
    fn fetch(&self, endpoint: &str, set: &str) {
        let output = self.run(endpoint, &["data", "fetch", set]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// The message of a fetch that fails.
    #[track_caller]
    fn error(&self, endpoint: &str, set: &str) -> String {
        let output = self.run(endpoint, &["data", "fetch", set]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        // No file is there, not even a part of one.
        let files = fs::read_dir(self.data(set)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(files.is_empty(), "{files:?}");
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An endpoint where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn gray(pixels: &[u8]) -> Vec<u8> {
    png(pixels, 28, ExtendedColorType::L8)
}

fn png(pixels: &[u8], side: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut png, pixels, side, side, color, ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Files of a repository: the test and the training images.
fn repository(name: &str, folder: &str, parts: [Vec<u8>; 2]) -> Files {
    let path = |part| {
        format!("/datasets/{name}/resolve/refs%2Fconvert%2Fparquet/{folder}/{part}/0000.parquet")
    };
    let [test, train] = parts;
    Arc::new(HashMap::from([
        (path("test"), test),
        (path("train"), train),
    ]))
}

/// A gray image that differs from its transpose. Its label is its first pixel.
fn garment(label: u8) -> Vec<u8> {
    let mut pixels = vec![0; 28 * 28];
    pixels[0] = label;
    pixels[2 * 28 + 5] = 100 + label;
    pixels
}

/// Fashion-MNIST with these numbers of test and training images, whose labels are 0, 1, …, 9, 0, ….
fn fashion(counts: [usize; 2]) -> Files {
    let images: Vec<_> = (0..10).map(|label| gray(&garment(label))).collect();
    let part = |count| parquet((0..count).map(|i| (&images[i % 10][..], (i % 10) as u8)));
    repository(
        "zalando-datasets/fashion_mnist",
        "fashion_mnist",
        counts.map(part),
    )
}

fn whole_fashion() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| fashion([10_000, 60_000]))
}

/// Asserts that the directory holds [`whole_fashion`] and nothing else.
#[track_caller]
fn assert_is_fashion(dir: &Path) {
    let count = |n: u32| n.to_be_bytes();
    for (part, n) in [("train", 60_000), ("t10k", 10_000)] {
        let labels: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
        let mut images = [&[0, 0, 8, 3][..], &count(n), &count(28), &count(28)].concat();
        let garments: Vec<_> = (0..10).map(garment).collect();
        labels
            .iter()
            .for_each(|label| images.extend(&garments[usize::from(*label)]));
        let labels = [&[0, 0, 8, 1][..], &count(n), &labels].concat();
        let read = |name| fs::read(dir.join(format!("{part}-{name}-ubyte"))).unwrap();
        assert!(read("images-idx3") == images, "{part} images");
        assert!(read("labels-idx1") == labels, "{part} labels");
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 4);
}

/// The files of the copy in `data/mnist`, unpacked.
fn original_mnist() -> HashMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
    let names = [
        "train-images-idx3",
        "train-labels-idx1",
        "t10k-images-idx3",
        "t10k-labels-idx1",
    ];
    let read = |name: &str| {
        let name = format!("{name}-ubyte");
        let file = fs::File::open(dir.join(format!("{name}.gz"))).unwrap();
        let mut content = Vec::new();
        GzDecoder::new(file).read_to_end(&mut content).unwrap();
        (name, content)
    };
    names.map(read).into()
}

#[test]
fn a_download_of_mnist_equals_the_original_files() {
    let original = original_mnist();
    let part = |part: &str| {
        let images = &original[&format!("{part}-images-idx3-ubyte")][16..];
        let labels = &original[&format!("{part}-labels-idx1-ubyte")][8..];
        let images: Vec<_> = images.chunks_exact(28 * 28).map(gray).collect();
        parquet(images.iter().map(Vec::as_slice).zip(labels.iter().copied()))
    };
    let files = repository("ylecun/mnist", "mnist", [part("t10k"), part("train")]);
    let (dirs, server) = (Dirs::new(), Server::new(&files, Get::Whole));
    dirs.fetch(&server.endpoint, "mnist");
    for (name, content) in &original {
        assert!(
            fs::read(dirs.data("mnist").join(name)).unwrap() == *content,
            "{name}"
        );
    }
    // A second call needs no server.
    dirs.fetch(&nowhere(), "mnist");
    // `--dataset mnist` reads these files, and not the copy of the source directory.
    let hvp = ["hvp", "--samples", "10", "--dataset", "mnist"];
    let output = dirs.run(&nowhere(), &hvp);
    assert!(output.status.success(), "{}", stderr(&output));
    let labels = dirs.data("mnist").join("t10k-labels-idx1-ubyte");
    fs::write(&labels, "damaged").unwrap();
    let error = stderr(&dirs.run(&nowhere(), &hvp));
    let expected = format!("{}: is truncated or corrupted", labels.display());
    assert!(error.contains(&expected), "{error}");
    assert!(
        error.contains("Delete it: the next load downloads it again"),
        "{error}"
    );

    // Two images are exchanged.
    let mut order: Vec<usize> = (0..10_000).collect();
    order.swap(3, 4);
    let images = &original["t10k-images-idx3-ubyte"][16..];
    let labels = &original["t10k-labels-idx1-ubyte"][8..];
    let images: Vec<_> = images.chunks_exact(28 * 28).map(gray).collect();
    let test = parquet(order.iter().map(|i| (&images[*i][..], labels[*i])));
    let files = repository("ylecun/mnist", "mnist", [test, part("train")]);
    let (dirs, server) = (Dirs::new(), Server::new(&files, Get::Whole));
    let error = dirs.error(&server.endpoint, "mnist");
    assert!(
        error.contains("is not MNIST (its SHA-256 hashes differ)"),
        "{error}"
    );
}

#[test]
fn images_of_cifar10_keep_rows_and_columns() {
    // Red, green and blue at (row, column) = (2, 5), (0, 31) and (31, 7).
    let places = [(2, 5), (0, 31), (31, 7)];
    let images: Vec<_> = (0..10u8)
        .map(|label| {
            let mut pixels = vec![0; 32 * 32 * 3];
            for (channel, (row, column)) in places.into_iter().enumerate() {
                pixels[(row * 32 + column) * 3 + channel] = 200 + label;
            }
            png(&pixels, 32, ExtendedColorType::Rgb8)
        })
        .collect();
    let part = |count| parquet((0..count).map(|i| (&images[i % 10][..], (i % 10) as u8)));
    let files = repository("cifar10", "plain_text", [part(10_000), part(50_000)]);
    let (dirs, server) = (Dirs::new(), Server::new(&files, Get::Whole));
    dirs.fetch(&server.endpoint, "cifar10");
    for name in ["data_batch_1", "data_batch_5", "test_batch"] {
        let content = fs::read(dirs.data("cifar10").join(name).with_extension("bin")).unwrap();
        assert_eq!(content.len(), 10_000 * 3073, "{name}");
        for (i, record) in content.chunks_exact(3073).enumerate() {
            let label = (i % 10) as u8;
            let mut expected = vec![0; 3073];
            expected[0] = label;
            for (channel, (row, column)) in places.into_iter().enumerate() {
                expected[1 + channel * 1024 + row * 32 + column] = 200 + label;
            }
            assert!(record == expected, "{name}: image {i}");
        }
    }
}

#[test]
fn a_download_shows_up_in_the_list() {
    let dirs = Dirs::new();
    let list = || {
        let output = dirs.run(&nowhere(), &["data", "list"]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        list().contains("`landscape data fetch fashion-mnist` downloads about"),
        "{}",
        list()
    );
    let server = Server::new(whole_fashion(), Get::Whole);
    dirs.fetch(&server.endpoint, "fashion-mnist");
    assert_is_fashion(&dirs.data("fashion-mnist"));
    assert_eq!(server.gets(), 2);
    let expected = format!("55 MB in {}", dirs.data("fashion-mnist").display());
    assert!(list().contains(&expected), "{}", list());
}

#[test]
fn without_a_network_the_message_names_the_files_to_copy() {
    let dirs = Dirs::new();
    let started = Instant::now();
    let error = dirs.error(&nowhere(), "fashion-mnist");
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    for expected in [
        &*format!(
            "{}: Fashion-MNIST is not here, and the download failed (",
            dirs.data("fashion-mnist").display()
        ),
        "Copy train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte into this \
         directory, or name another one with LOSS_LANDSCAPE_DATA, or with --data on the command line",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    // Nothing is asked if the variable forbids it.
    let server = Server::new(whole_fashion(), Get::Whole);
    let mut command = dirs.command(&server.endpoint, &["data", "fetch", "fashion-mnist"]);
    let error = stderr(&command.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(
        error.contains("HF_HUB_OFFLINE forbids the download"),
        "{error}"
    );
    assert!(server.requests.lock().unwrap().is_empty());
}

#[test]
fn a_server_that_does_not_answer_ends_the_download() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let (dirs, started) = (Dirs::new(), Instant::now());
    let error = dirs.error(&endpoint, "cifar10");
    assert!(
        error.contains("no server has answered within 30 seconds"),
        "{error}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_broken_download_leaves_no_file_and_can_be_repeated() {
    let dirs = Dirs::new();
    let set = "fashion-mnist";
    let error = dirs.error(&Server::new(whole_fashion(), Get::Half).endpoint, set);
    assert!(error.contains("the download failed ("), "{error}");
    dirs.fetch(&Server::new(whole_fashion(), Get::Whole).endpoint, set);
    assert_is_fashion(&dirs.data(set));

    // hf-hub keeps the text of the error as if it were the file.
    let dirs = Dirs::new();
    let error = dirs.error(
        &Server::new(whole_fashion(), Get::Unavailable).endpoint,
        set,
    );
    let cached = dirs
        .0
        .path()
        .join("hub/datasets--zalando-datasets--fashion_mnist");
    let expected = format!("{}: the download is not Fashion-MNIST (", cached.display());
    assert!(error.contains(&expected), "{error}");
    assert!(
        error.contains("Delete this directory, and try again"),
        "{error}"
    );
    fs::remove_dir_all(cached).unwrap();
    dirs.fetch(&Server::new(whole_fashion(), Get::Whole).endpoint, set);
    assert_is_fashion(&dirs.data(set));
}

#[test]
fn another_dataset_or_a_damaged_image_is_refused() {
    let error = |files: &Files| {
        let server = Server::new(files, Get::Whole);
        Dirs::new().error(&server.endpoint, "fashion-mnist")
    };
    let message = error(&fashion([10_000, 20]));
    let expected = "expected training images of shape [60000, 784], found [20, 784]";
    assert!(message.contains(expected), "{message}");
    let damaged = || parquet([(&b"no image"[..], 0)].into_iter());
    let files = [damaged(), damaged()];
    let message = error(&repository(
        "zalando-datasets/fashion_mnist",
        "fashion_mnist",
        files,
    ));
    assert!(
        message.contains("one of its images is damaged"),
        "{message}"
    );
}

/// Starts a fetch, and waits until the server has been asked for a file.
fn start(dirs: &Dirs, server: &Server) -> Child {
    let mut command = dirs.command(&server.endpoint, &["data", "fetch", "fashion-mnist"]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while server.gets() == 0 {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
#[cfg(unix)]
fn an_interrupted_download_leaves_no_file_and_can_be_repeated() {
    let (dirs, server) = (Dirs::new(), Server::new(whole_fashion(), Get::Stalls));
    let child = start(&dirs, &server);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let started = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("complete files are kept"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_dir(dirs.data("fashion-mnist")).unwrap().count(), 0);
    dirs.fetch(
        &Server::new(whole_fashion(), Get::Whole).endpoint,
        "fashion-mnist",
    );
    assert_is_fashion(&dirs.data("fashion-mnist"));
}

#[test]
fn a_second_process_waits_for_the_first() {
    let (dirs, server) = (Dirs::new(), Server::new(whole_fashion(), Get::Whole));
    let child = start(&dirs, &server);
    dirs.fetch(&server.endpoint, "fashion-mnist");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(server.gets(), 2);
    assert_is_fashion(&dirs.data("fashion-mnist"));
}

#[test]
fn a_named_dataset_is_downloaded_when_a_command_needs_it() {
    let (dirs, server) = (Dirs::new(), Server::new(whole_fashion(), Get::Whole));
    let hvp = |set: &str| {
        let arguments = ["hvp", "--samples", "10", "--dataset", set];
        dirs.run(&server.endpoint, &arguments)
    };
    let output = hvp("fashion-mnist");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_is_fashion(&dirs.data("fashion-mnist"));
    // The server has no other set.
    let error = stderr(&hvp("cifar10"));
    assert!(
        error.contains("CIFAR-10 is not here, and the download failed"),
        "{error}"
    );
    // The files of MNIST are not taken for Fashion-MNIST.
    let mnist = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist");
    let arguments = ["hvp", "--dataset", "fashion-mnist", "--data", mnist];
    let error = stderr(&dirs.run(&nowhere(), &arguments));
    assert!(
        error.contains("contains MNIST, not Fashion-MNIST"),
        "{error}"
    );
}

/// A text of so many stories on a server.
fn stories(count: usize) -> Files {
    let path = "/datasets/roneneldan/TinyStories/resolve/main/TinyStories-valid.txt";
    let text = "Once upon a time there was a cat.\n<|endoftext|>\n".repeat(count);
    Arc::new(HashMap::from([(path.to_owned(), text.into_bytes())]))
}

#[test]
fn a_text_is_downloaded_as_it_is() {
    let (dirs, files) = (Dirs::new(), stories(1_500));
    let file = dirs.data("tinystories").join("TinyStories-valid.txt");
    let error = dirs.error(&nowhere(), "tinystories");
    for words in [
        "TinyStories is not here, and the download failed (",
        "Copy TinyStories-valid.txt into this directory",
    ] {
        assert!(error.contains(words), "{error}");
    }
    let server = Server::new(&files, Get::Whole);
    dirs.fetch(&server.endpoint, "tinystories");
    assert_eq!(server.gets(), 1);
    assert!(files.values().any(|text| *text == fs::read(&file).unwrap()));
    let list = dirs.run(&nowhere(), &["data", "list"]).stdout;
    let list = String::from_utf8(list).unwrap();
    assert!(list.contains("tinystories    0 MB in"), "{list}");
    let gpt = [
        "hvp",
        "--model",
        "gpt",
        "--dataset",
        "tinystories",
        "--samples",
        "1",
        "--runs",
        "1",
    ];
    let output = dirs.run(&nowhere(), &gpt);
    assert!(output.status.success(), "{}", stderr(&output));
    // The cache of hf-hub is enough.
    fs::remove_file(&file).unwrap();
    let mut command = dirs.command(&nowhere(), &gpt);
    let output = command.env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(
        output.status.success() && file.exists(),
        "{}",
        stderr(&output)
    );
}

#[test]
fn another_text_is_refused() {
    for (files, get) in [
        (stories(999), Get::Whole),
        (stories(1_500), Get::Unavailable),
    ] {
        let server = Server::new(&files, get);
        let error = Dirs::new().error(&server.endpoint, "tinystories");
        let expected = "the download is not TinyStories (expected at least 1000 stories";
        assert!(error.contains(expected), "{error}");
    }
    let server = Server::new(&stories(1_500), Get::Half);
    let error = Dirs::new().error(&server.endpoint, "tinystories");
    assert!(error.contains("the download failed ("), "{error}");
}
