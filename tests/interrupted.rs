//! Interrupted commands, and commands with closed output.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::tempdir;

const NET: [&str; 4] = ["--dataset", "synthetic", "--layers", "20,400,2"];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command
        .args(arguments)
        .args(NET)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .unwrap()
            .success()
    );
}

/// Whether this process and its children ignore a signal, as background jobs of scripts do.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    mask >> (signal - 1) & 1 == 1
}

/// Waits until a file's content changes.
fn wait_for_change(path: &Path, before: Option<&[u8]>, child: &mut Child) {
    let started = Instant::now();
    while fs::read(path).ok().as_deref() == before {
        assert!(child.try_wait().unwrap().is_none() && started.elapsed().as_secs() < 60);
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_interrupted_training_resumes() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let train = |save: &str| {
        command(&[
            "train",
            "--epochs",
            "2000",
            "--patience",
            "1999",
            "--save",
            save,
        ])
    };
    assert!(train(&at("whole")).status().unwrap().success());
    let unfinished = dir.path().join("cut.unfinished");
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        if is_ignored(code - 128) {
            continue;
        }
        let before = fs::read(&unfinished).ok();
        let mut child = train(&at("cut")).spawn().unwrap();
        wait_for_change(&unfinished, before.as_deref(), &mut child);
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        let expected = format!(
            "interrupted by SIG{signal}: finished epochs are saved in {}",
            unfinished.display()
        );
        assert!(error.contains(&expected), "{error}");
        assert!(!Path::new(&at("cut")).exists());
    }
    // Another training neither resumes from the file nor overwrites it.
    let other = command(&["train", "--epochs", "2001", "--save", &at("cut")])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && error.contains("other work"),
        "{error}"
    );

    assert!(train(&at("cut")).status().unwrap().success());
    assert_eq!(fs::read(at("cut")).unwrap(), fs::read(at("whole")).unwrap());
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["cut", "whole"]);
}

/// A checkpoint would be useless, because the training would diverge again. It would also block other trainings with this path.
#[test]
fn a_diverging_training_leaves_no_checkpoint() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("w");
    let train = |more: &[&str]| {
        let arguments = [
            &["train", "--epochs", "400", "--optimizer", "sgd", "--save"],
            &[path.to_str().unwrap()][..],
            more,
        ];
        command(&arguments.concat()).output().unwrap()
    };
    // With the penalty λ‖θ‖², each step is larger than the last, and θ overflows after some epochs.
    let failed = train(&["--lr", "1.05", "--l2", "1", "--activation", "relu"]);
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(
        error.contains("diverged") && !error.contains("at step 0 "),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(train(&["--lr", "0.1"]).status.success());
}

#[test]
fn ignored_signals_stay_ignored() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_landscape"),
    ]);
    shell
        .args(["train", "--epochs", "1000"])
        .args(NET)
        .stdout(Stdio::null());
    let mut child = shell.spawn().unwrap();
    sleep(Duration::from_millis(300));
    send("HUP", &child);
    assert!(child.wait().unwrap().success());
}

/// Progress and warnings go to stderr, here a closed pipe.
#[test]
fn closed_stderr_or_stdout_does_not_end_a_run() {
    let dir = tempdir().unwrap();
    let shell = |redirected: &str, arguments: &[&str]| {
        let mut shell = Command::new("bash");
        let script = format!("set -o pipefail; \"$@\" {redirected}");
        shell.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_landscape")]);
        shell
            .current_dir(dir.path())
            .args(arguments)
            .args(NET)
            .output()
            .unwrap()
    };
    // This run warns about points without a finite loss.
    let surface = [
        "surface",
        "--grid",
        "3",
        "--range",
        "1e300",
        "--activation",
        "relu",
        "--out",
        "s",
    ];
    for closed in ["2> >(exec <&-; sleep 1)", "2>&-", "2>/dev/full"] {
        let output = shell(&format!("{closed}; code=$?; exit $code"), &surface);
        assert!(output.status.success(), "{closed}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("s/surface.html"),
            "{closed}"
        );
    }
    // An error that cannot be printed is still an error.
    let missing = ["spectrum", "--weights", "none"];
    assert_eq!(shell("2>/dev/full", &missing).status.code(), Some(1));
    let report = ["spectrum", "--top", "3"];
    for closed in [">&-", "> >(exec <&-; sleep 1)", "| true"] {
        let output = shell(closed, &report);
        assert!(output.status.success(), "{closed}: {output:?}");
        assert!(output.stderr.is_empty(), "{closed}: {output:?}");
    }
}

/// Timing runs emit no progress.
#[test]
fn a_long_run_without_progress_prints_a_line() {
    let mut child = command(&["hvp", "--runs", "1000000", "--samples", "100"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    let started = Instant::now();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(
        line.starts_with("running for 1") && line.ends_with(" s\n"),
        "{line}"
    );
    assert!(started.elapsed().as_secs() < 40);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// `script` runs its command in a terminal.
#[test]
fn a_dumb_terminal_gets_progress_lines() {
    if Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_landscape");
    let train = format!("{program} train --epochs 1000000 {}", NET.join(" "));
    let screen = |term: &str, seconds: &str| {
        let mut shell = Command::new("timeout");
        shell.args([seconds, "script", "-qefc", &train, "/dev/null"]);
        let output = shell.env("TERM", term).stdin(Stdio::null()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    let is_line = |line: &&str| line.starts_with("training: ") && line.ends_with(" s left");
    assert!(screen("xterm", "1").contains("training ░"));
    let dumb = screen("dumb", "13");
    assert!(
        dumb.lines().any(|line| is_line(&line)) && !dumb.contains('░'),
        "{dumb}"
    );
}
