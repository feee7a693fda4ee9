//! Writing files: atomicity, modes, links, concurrent writes, devices and pipes.
#![cfg(unix)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{error_of, landscape};
use loss_landscape::files::{WRITABLE, check_writable, write_atomically};
use loss_landscape::prelude::*;
use tempfile::tempdir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    write_atomically(path, WRITABLE, |part| fs::write(part, text))
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// As root, a copy of a device, because a bug could replace the system's device. Otherwise the system's device.
fn device(dir: &Path, name: &str, minor: &str) -> PathBuf {
    let copy = dir.join(name);
    let mut make = Command::new("mknod");
    let made = make.arg(&copy).args(["c", "1", minor]).output();
    match made.is_ok_and(|made| made.status.success()) && File::open(&copy).is_ok() {
        true => copy,
        false => Path::new("/dev").join(name),
    }
}

/// A short training.
const TRAIN: [&str; 7] = [
    "train",
    "--dataset",
    "synthetic",
    "--layers",
    "20,4,2",
    "--epochs",
    "1",
];

#[test]
fn new_files_use_the_umask_and_existing_files_keep_their_mode() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let save = |umask: &str| {
        let mut shell = Command::new("sh");
        let script = format!("umask {umask}; exec \"$@\"");
        shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_landscape")]);
        let status = shell.args(TRAIN).arg("--save").arg(&path).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    };
    for (umask, expected) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let _ = fs::remove_file(&path);
        save(umask);
        assert_eq!(mode(&path), expected, "{umask}");
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    save("022");
    assert_eq!(mode(&path), 0o640);
    assert_eq!(names(dir.path()), ["w.safetensors"]);
}

#[test]
fn links_are_followed() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("elsewhere")).unwrap();
    symlink("elsewhere/new", at("dangling")).unwrap();
    symlink(at("dangling"), at("second")).unwrap();
    for text in ["made", "replaced"] {
        write(&at("second"), text).unwrap();
        assert_eq!(fs::read_to_string(at("elsewhere/new")).unwrap(), text);
    }
    for link in ["dangling", "second"] {
        assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink());
    }
    assert_eq!(names(&at("elsewhere")), ["new"]);

    symlink("round", at("round")).unwrap();
    assert!(write(&at("round"), "").is_err() && check_writable(&at("round"), WRITABLE).is_err());
    symlink("nowhere/new", at("lost")).unwrap();
    let error = write(&at("lost"), "").unwrap_err().to_string();
    assert!(error.contains("lost: cannot be written"), "{error}");
    assert!(fs::symlink_metadata(at("lost")).unwrap().is_symlink());
}

#[test]
fn devices_and_pipes_are_written_to_and_not_replaced() {
    let dir = tempdir().unwrap();
    let (pipe, file) = (dir.path().join("pipe"), dir.path().join("file"));
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let train = |path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
        command
            .args(TRAIN)
            .arg("--save")
            .arg(path)
            .output()
            .unwrap()
    };
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    assert!(train(&pipe).status.success());
    let through = reader.join().unwrap();
    assert!(train(&file).status.success());
    assert_eq!(through, fs::read(&file).unwrap());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(names(dir.path()), ["file", "pipe"]);
    let null = device(dir.path(), "null", "3");
    assert!(train(&null).status.success());
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    assert!(!null.with_extension("unfinished").exists());
}

#[test]
fn files_with_the_same_stem_can_be_written_concurrently() {
    let dir = tempdir().unwrap();
    std::thread::scope(|scope| {
        for name in ["run.0", "run.1", "run", "run.0.csv"] {
            let path = dir.path().join(name);
            scope.spawn(move || {
                for i in 0..40 {
                    let text = format!("{name} {i}").repeat(1000);
                    write(&path, &text).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), text);
                }
            });
        }
    });
    assert_eq!(names(dir.path()), ["run", "run.0", "run.0.csv", "run.1"]);
    let long = dir.path().join("n".repeat(255));
    write(&long, "long").unwrap();
    assert_eq!(fs::read_to_string(&long).unwrap(), "long");
}

#[test]
fn temporary_files_of_dead_processes_are_removed() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let dead = at("w.part-0123456789abcdef");
    let (alive, other) = (
        at("w.part-1123456789abcdef"),
        at("w2.part-2123456789abcdef"),
    );
    let (notes, directory) = (at("w.part-notes"), at("w.part-3123456789abcdef"));
    for path in [&dead, &alive, &other, &notes] {
        fs::write(path, "half").unwrap();
    }
    fs::create_dir(&directory).unwrap();
    let lock = File::open(&alive).unwrap();
    lock.lock().unwrap();
    write(&at("w"), "whole").unwrap();
    assert!(!dead.exists());
    assert!(alive.exists() && other.exists() && notes.exists() && directory.exists());
    drop(lock);
    write(&at("w"), "whole").unwrap();
    assert!(!alive.exists() && other.exists());
}

#[test]
fn weights_that_cannot_be_saved_are_saved_elsewhere() {
    let (dir, devices) = (tempdir().unwrap(), tempdir().unwrap());
    let full = device(devices.path(), "full", "7");
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command
        .args(TRAIN)
        .args(["--seed", "5", "--save"])
        .arg(&full);
    let output = command.env("TMPDIR", dir.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("/full: cannot be written") && error.contains("No space left"),
        "{error}"
    );
    let saved: Vec<_> = names(dir.path());
    assert!(
        saved.len() == 1
            && error.contains(&format!(
                "The weights are in {}/{}",
                dir.path().display(),
                saved[0]
            )),
        "{error}"
    );
    let whole = dir.path().join("whole");
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command
        .args(TRAIN)
        .args(["--seed", "5", "--save"])
        .arg(&whole)
        .output()
        .unwrap();
    let read = |path: &Path| fs::read(path).unwrap();
    assert_eq!(read(&dir.path().join(&saved[0])), read(&whole));
}

#[test]
fn paths_need_not_be_utf_8() {
    let dir = tempdir().unwrap();
    let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name)).into_os_string();
    let (weights, out) = (at(b"w\xe9.safetensors"), at(b"out\xe9"));
    let net = ["--dataset", "synthetic", "--layers", "20,4,2"].map(OsStr::new);
    let run = |words: &[&OsStr]| {
        let output = landscape(&[words, &net].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), error)
    };
    let os = OsStr::new;
    let (report, _) = run(&[os("train"), os("--json"), os("--save"), &weights]);
    assert!(report.contains("safetensors"), "{report}");
    let few = |flag: &'static str| {
        [
            os("--weights"),
            &weights,
            os(flag),
            os("3"),
            os("--out"),
            &out,
        ]
    };
    run(&[
        &[os("spectrum"), os("--resume"), &at(b"p\xe9")],
        &few("--top")[..],
    ]
    .concat());
    run(&[&[os("surface")], &few("--grid")[..]].concat());
    run(&[
        os("connect"),
        &weights,
        &weights,
        os("--epochs"),
        os("0"),
        os("--out"),
        &out,
    ]);
    let study = at(b"study\xe9");
    let sweep = [
        os("sweep"),
        os("--l2"),
        os("0,0.1"),
        os("--epochs"),
        os("1"),
        os("--out"),
        &study,
    ];
    run(&sweep);
    let (again, _) = run(&[&sweep[..], &[os("--resume"), os("--json")]].concat());
    assert!(again.contains("\"computed\":0"), "{again}");
    let results = at(b"results\xe9");
    let analyze = [
        os("analyze"),
        os("--epochs"),
        os("1"),
        os("--save-dir"),
        &results,
    ];
    let (_, warned) = run(&analyze);
    assert!(warned.contains("config.toml does not contain"), "{warned}");
    for name in ["spectrum.json", "surface.csv", "connect.csv"] {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }
    for name in ["report.json", "config.toml"] {
        assert!(Path::new(&results).join(name).exists(), "{name}");
    }
}

#[test]
fn a_tilde_not_expanded_by_the_shell_is_the_home_directory() {
    let dir = tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
        let command = command
            .current_dir(dir.path())
            .env("HOME", dir.path().join("home"));
        command.args(arguments).output().unwrap()
    };
    fs::create_dir(dir.path().join("home")).unwrap();
    assert!(
        run(&[&TRAIN[..], &["--save=~/w.safetensors"]].concat())
            .status
            .success()
    );
    assert!(dir.path().join("home/w.safetensors").exists());
    let config = "dataset = 'synthetic'\nlayers = [20, 4, 2]\nepochs = 1\nsave-dir = '~/results'\n";
    fs::write(dir.path().join("config.toml"), config).unwrap();
    assert!(
        run(&["analyze", "--config", "config.toml"])
            .status
            .success()
    );
    assert!(dir.path().join("home/results/report.json").exists());
    let other = run(&[&TRAIN[..], &["--save=~nobody/w.safetensors"]].concat());
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && error.contains("`~nobody` is not expanded"),
        "{error}"
    );
    assert_eq!(names(dir.path()), ["config.toml", "home"]);
}

/// A directory at the path of the file simulates an unwritable file, since root can write to every directory.
#[test]
fn unwritable_files_are_rejected_before_the_work() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let net = ["--dataset", "synthetic", "--layers", "20,4,2"];
    for (command, blocked) in [
        ("spectrum", "eigenvectors.safetensors"),
        ("surface", "surface.html"),
        ("connect", "connect.json"),
        ("analyze", "surface.parquet"),
    ] {
        let out = path(command);
        fs::create_dir_all(Path::new(&out).join(blocked)).unwrap();
        // The weights do not exist, but the output is checked first.
        let missing = path("missing.safetensors");
        let more = match command {
            "connect" => vec![missing.as_str(), &missing, "--out", &out],
            "analyze" => vec!["--weights", &missing, "--save-dir", &out],
            _ => vec!["--weights", &missing, "--out", &out],
        };
        let error = error_of(&[&[command], &net[..], &more].concat());
        assert!(
            error.contains(blocked) && error.contains("is a directory"),
            "{command}: {error}"
        );
        assert_eq!(names(Path::new(&out)), [blocked]);
    }
}

#[test]
fn weights_from_an_endless_device_are_refused() {
    let error = error_of(&[
        "hvp",
        "--dataset",
        "synthetic",
        "--layers",
        "20,4,2",
        "--weights",
        "/dev/zero",
    ]);
    assert!(
        error.contains("/dev/zero: cannot be read: not a regular file"),
        "{error}"
    );
}

/// Invalid checkpoints are rejected and not changed.
#[test]
fn truncated_foreign_or_damaged_checkpoints_are_rejected() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("training");
    let data = two_moons(40, 0.1, 0, &Device::Cpu).unwrap();
    let data = data.to_dtype(DType::F32).unwrap();
    let fit = |dtype: DType| {
        let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
        let model = model.to_dtype(dtype).unwrap();
        let trainer = Trainer::adam(0.01).with_epochs(2).with_patience(2);
        let data = data.to_dtype(dtype).unwrap();
        trainer.with_checkpoint(&file).fit(&model, &data, &data)
    };
    let history = fit(DType::F32).unwrap();
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&file, bytes).unwrap();
        let error = fit(DType::F32).unwrap_err().to_string();
        assert!(
            error.contains("training: ") && error.contains(words),
            "{error}"
        );
        assert_eq!(fs::read(&file).unwrap(), bytes);
    };
    for i in 0..60 {
        refused(&whole[..i * whole.len() / 60], "");
        let mut flipped = whole.clone();
        flipped[i * whole.len() / 60] ^= 1 << (i % 8);
        refused(&flipped, "");
    }
    refused(&whole[..whole.len() - 8], "is damaged");
    refused(&[&whole[..], &[0; 8]].concat(), "is damaged");
    refused(b"some unrelated text", "is not a checkpoint");
    let mut newer = whole.clone();
    newer["loss-landscape checkpoint ".len()] = b'2';
    refused(&newer, "another version");
    fs::write(&file, &whole).unwrap();
    let error = fit(DType::F64).unwrap_err().to_string();
    assert!(error.contains("other work"), "{error}");
    assert_eq!(fit(DType::F32).unwrap(), history);
}
