//! Matrices of other processes: right products, and an error for everything that such a process can do wrong.
//!
//! tests/external/peer.py is the other process. tests/numpy/test_external.py tests the files in `python`.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Laplacian, error_of, landscape, numbers};
use loss_landscape::operator::External;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};
use tempfile::tempdir;

/// Number of rows of the matrix of `peer.py`.
const N: usize = 60;

/// Limit of silence for processes that hang, and for others.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// The command line of a process in this mode.
fn command(mode: &str) -> String {
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external/peer.py");
    format!("python3 '{}' '{mode}'", peer.display())
}

fn start(mode: &str) -> Result<External, Error> {
    let limit = match mode {
        "silent" | "hang" | "slow" | "stops" | "murmur" | "closes" => SHORT,
        _ => LONG,
    };
    External::start_with_timeout(&command(mode), limit)
}

/// The error of the first product after a successful start.
#[track_caller]
fn failure(mode: &str) -> String {
    let external = start(mode).unwrap();
    let vectors = [numbers(N, 1), numbers(N, 2)];
    let error = external.apply_block(&vectors).unwrap_err();
    assert!(matches!(error, Error::External { .. }), "{error:?}");
    error.to_string()
}

#[track_caller]
fn assert_contains(text: &str, expected: &str) {
    assert!(text.contains(expected), "`{expected}` is not in: {text}");
}

#[test]
fn products_are_those_of_the_matrix() {
    let vectors: Vec<Vec<f64>> = (0..5).map(|i| numbers(N, i)).collect();
    let expected = Laplacian(N).apply_block(&vectors).unwrap();
    for mode in ["plain", "bytewise"] {
        let external = start(mode).unwrap();
        assert_eq!((external.dim(), external.dtype()), (N, Some(DType::F64)));
        assert_eq!(external.name(), "chain");
        assert_eq!(external.apply_block(&vectors).unwrap(), expected);
        assert_eq!(external.apply(&vectors[3]).unwrap(), expected[3]);
        assert!(external.apply_block(&[]).unwrap().is_empty());
    }
    let external = start("plain").unwrap();
    let found = external.top(5).unwrap();
    assert_eq!(found, Laplacian(N).top(5).unwrap());
    assert!(external.apply(&[0.0; N + 1]).is_err());
    assert!(external.apply(&[f64::NAN; N]).is_err());
    assert_eq!(external.apply(&vectors[0]).unwrap(), expected[0]);

    let single = start("f32").unwrap();
    assert_eq!(single.dtype(), Some(DType::F32));
    assert_eq!(single.epsilon(), f64::from(f32::EPSILON));
    for (a, b) in single.apply(&vectors[0]).unwrap().iter().zip(&expected[0]) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }
}

#[test]
fn a_process_that_fails_before_its_greeting_is_an_error() {
    let error = |mode: &str| start(mode).unwrap_err().to_string();
    let left = error("leaves");
    assert_contains(&left, "ended (exit status: 3) before its greeting");
    assert_contains(&left, "no module named torch");
    assert_contains(&error("silent"), "was silent for ");
    assert_contains(&error("talkative"), "printed 1024 KiB and no greeting");
    assert_contains(&error("newer"), "uses version 2 of the protocol");
    assert_contains(&error("no rows"), "dim is 0");
    assert_contains(&error("half"), "unknown variant `f16`");
    assert_contains(&error("huge"), "of memory");
    let skew = error("asymmetric");
    assert_contains(&skew, "is not symmetric");

    for (command, expected) in [
        ("", "is not a command line"),
        ("python3 'peer.py", "is not a command line"),
        ("/no/such/program", "cannot start `/no/such/program`"),
        ("true", "ended (exit status: 0) before its greeting"),
        ("sh -c 'kill -s KILL $$'", "signal: 9"),
    ] {
        let error = External::start(command).unwrap_err().to_string();
        assert_contains(&error, expected);
    }
}

#[test]
fn wrong_answers_are_errors_that_quote_the_last_lines() {
    let crash = failure("crash");
    assert_contains(&crash, "ended (exit status: 1) before its products");
    assert_contains(&crash, "RuntimeError: out of memory on device 7");
    assert_contains(&crash, "line 99");
    assert!(!crash.contains("line 50"), "{crash}");
    assert_contains(&failure("print"), "wrote \"epoch 1: loss 0.3");
    assert_contains(&failure("murmur"), "was silent");
    let longer = failure("longer");
    assert_contains(
        &longer,
        "answered 2 products of length 61 to 2 vectors of length 60",
    );
    assert_contains(
        &failure("fewer"),
        "answered 1 products of length 60 to 2 vectors",
    );
    assert_contains(&failure("stops"), "before the rest of its products");
    let cut = failure("cut");
    assert_contains(
        &cut,
        "ended (exit status: 0) before the rest of its products",
    );
    assert_contains(&failure("more"), "after its products");
    assert_contains(&failure("nan"), "not finite: entry 7 of 60 is NaN");
    assert_contains(&failure("infinite"), "not finite: entry 0 of 60 is -inf");
    assert_contains(&failure("closes"), "closed its standard output");
}

#[test]
fn silence_is_an_error_but_progress_on_standard_error_is_not() {
    let error = failure("hang");
    assert_contains(&error, "was silent for 2 s before its products");
    assert_contains(&error, "almost");
    let slow = start("slow").unwrap();
    let started = Instant::now();
    slow.apply(&[1.0; N]).unwrap();
    assert!(started.elapsed() > SHORT);
}

/// A process that died is started again by the next product, and must then be the same matrix.
#[test]
fn a_process_that_ended_is_started_again() {
    let external = start("crash").unwrap();
    for _ in 0..2 {
        let error = external.apply(&[1.0; N]).unwrap_err().to_string();
        assert_contains(&error, "out of memory on device 7");
        // The new process answers its first two requests.
        external.apply(&[1.0; N]).unwrap();
        external.apply(&[1.0; N]).unwrap();
    }
    let renamed = start("renamed").unwrap();
    renamed.apply(&[1.0; N]).unwrap_err();
    let error = renamed.apply(&[1.0; N]).unwrap_err().to_string();
    assert_contains(&error, "is another matrix now");
}

#[test]
fn a_decomposition_resumes_with_the_same_bits() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("products");
    let few = Lanczos::default().with_max_products(7);
    let recorded = start("plain").unwrap().with_checkpoint(&file).unwrap();
    few.run(&recorded, 3).unwrap();
    drop(recorded);
    let recorded = start("plain").unwrap().with_checkpoint(&file).unwrap();
    assert_eq!(recorded.top(3).unwrap(), Laplacian(N).top(3).unwrap());
    assert!(recorded.num_read() >= 7);
    drop(recorded);
    let other = start("other").unwrap().with_checkpoint(&file).unwrap();
    let error = other.top(3).unwrap_err().to_string();
    assert_contains(&error, "products of another operator");
}

/// The factors 1.001 and 0.999 of consecutive products are no asymmetry and no other matrix if `epsilon` says so.
#[test]
fn the_stated_accuracy_is_the_tolerance_and_part_of_errors() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("products");
    let coarse = || start("coarse").unwrap();
    assert_eq!(
        (coarse().epsilon(), coarse().dtype()),
        (1e-3, Some(DType::F64))
    );
    let boxed: Box<dyn LinearOperator> = Box::new(coarse());
    assert_eq!(boxed.epsilon(), 1e-3);
    let trace = |operator: &dyn LinearOperator| {
        let settings = Trace::default().with_relative_error(1e-9);
        settings.trace(operator).unwrap()
    };
    let (fine, found) = (trace(&Laplacian(N)), trace(&coarse()));
    assert!(fine.standard_error < 1e-9 * fine.value, "{fine}");
    assert!(found.standard_error > 1e-3 * found.value, "{found}");
    for v in [[1.0; N], [2.0; N]] {
        // Each start computes the fixed product as its third, and again as its fifth, with another factor.
        let recorded = coarse().with_checkpoint(&file).unwrap();
        recorded.apply(&v).unwrap();
        drop(recorded);
        let external = coarse();
        external.apply(&v).unwrap();
        external.with_checkpoint(&file).unwrap().apply(&v).unwrap();
    }
}

/// Asserts that the processes in this file have ended.
fn assert_gone(ids: &Path) {
    let lines = fs::read_to_string(ids).unwrap();
    for (id, child) in lines.lines().map(|line| line.split_once(' ').unwrap()) {
        assert_eq!(stat(id), "", "the process runs or is a zombie");
        assert_ended(child);
    }
}

/// The line of a process in `/proc`; empty if there is no such process.
fn stat(id: &str) -> String {
    fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default()
}

/// Waits until a killed process has ended. It remains as a zombie until its parent, or that of orphans, looks at it.
fn assert_ended(id: &str) {
    let started = Instant::now();
    while !(stat(id).is_empty() || stat(id).contains(") Z ")) {
        assert!(started.elapsed().as_secs() < 5, "process {id} runs");
        sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_process_remains() {
    let dir = tempdir().unwrap();
    for mode in ["plain", "stays", "crash", "nan", "closes", "asymmetric"] {
        let ids = dir.path().join(mode);
        let command = format!("{} '{}'", command(mode), ids.display());
        if let Ok(external) = External::start_with_timeout(&command, SHORT) {
            let _ = external.apply(&[1.0; N]);
        }
        assert_gone(&ids);
    }
}

fn json(arguments: &[&str]) -> Value {
    let output = landscape(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn commands_analyse_the_matrix_of_another_process() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (products, out) = (at("products"), at("out"));
    let plain = command("plain");
    let external = ["--external", &plain];
    let spectrum = || {
        let flags = ["spectrum", "--top", "3", "--which", "la"];
        let files = ["--resume", &products, "--out", &out];
        json(&[&flags[..], &external, &files].concat())
    };
    let found = spectrum();
    let expected = Laplacian(N).eigenvalues();
    for (value, expected) in found["eigenvalues"]
        .as_array()
        .unwrap()
        .iter()
        .zip(expected)
    {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-3);
    }
    assert_eq!(found["parameters"], N);
    assert_eq!(found["external"]["name"], "chain");
    assert_eq!(spectrum()["eigenvalues"], found["eigenvalues"]);
    let other = command("other");
    let error = error_of(&["trace", "--external", &other, "--resume", &products]);
    assert_contains(&error, "products of another operator");

    let near = |value: &Value, expected: f64| {
        let (value, error) = (&value["value"], &value["standard_error"]);
        let [value, error] = [value, error].map(|number| number.as_f64().unwrap());
        assert!(
            (value - expected).abs() <= 4.0 * error + 1e-9 * expected,
            "{value} ± {error}"
        );
    };
    let density = json(
        &[
            &["density", "--probes", "4", "--steps", "20"],
            &external[..],
        ]
        .concat(),
    );
    near(&density["trace"], 2.0 * N as f64);
    near(
        &json(&[&["trace"], &external[..]].concat())["trace"],
        2.0 * N as f64,
    );
    let text = landscape(&[&["spectrum", "--top", "2"], &external[..]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert_contains(&text, "matrix \"chain\"");

    for flag in [
        ["--model", "cnn"],
        ["--samples", "3"],
        ["--operator", "ggn"],
        ["--dtype", "f64"],
    ] {
        let error = error_of(&[&["trace"], &external[..], &flag].concat());
        assert_contains(&error, &format!("{} has no effect", flag[0]));
    }
    let error = error_of(&["trace", "--external-timeout", "3"]);
    assert_contains(&error, "--external-timeout has no effect");
    let error = error_of(&[
        "trace",
        "--external",
        &command("hang"),
        "--external-timeout",
        "1",
    ]);
    assert_contains(&error, "was silent for 1 s");
}

/// Signals that end `landscape` end the other process and its children at once.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_other_process() {
    let dir = tempdir().unwrap();
    let ids: PathBuf = dir.path().join("ids");
    let external = format!("{} '{}'", command("hang"), ids.display());
    let mut program = Command::new(env!("CARGO_BIN_EXE_landscape"))
        .args(["trace", "--external", &external])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !ids.exists() || fs::read(&ids).unwrap().is_empty() {
        assert!(program.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(10));
    }
    sleep(SHORT);
    // Background jobs of a shell ignore SIGINT, and those of nohup SIGHUP.
    let id = program.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(sent.unwrap().success());
    let output = program.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_contains(&error, "interrupted by SIGTERM");
    let lines = fs::read_to_string(&ids).unwrap();
    lines.split_whitespace().for_each(assert_ended);
}
