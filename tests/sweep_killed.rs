//! A sweep that is killed repeatedly gives the same bytes as an uninterrupted one.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::bytes;
use tempfile::tempdir;

fn sweep(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command.args([
        "sweep",
        "--layers",
        "784,16,10",
        "--samples",
        "600",
        "--epochs",
        "2",
    ]);
    command.args(["--top", "8", "--l2", "0:0.09:31", "--out"]);
    command.arg(out).args(more).stdout(Stdio::null());
    command
}

/// Number of complete points.
fn points(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("Model-"))
        .count()
}

#[test]
fn ten_kills_do_not_change_the_files() {
    let dir = tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let started = Instant::now();
    assert!(sweep(&whole, &[]).status().unwrap().success());
    let duration = started.elapsed().as_secs_f64();

    // Pseudo-random delays, a tenth of the total time on average.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut delay = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        0.2 * duration * (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut interrupted = 0;
    for kill in 0..10 {
        let jobs = if kill % 2 == 0 { "1" } else { "3" };
        let mut command = sweep(&killed, &["--jobs", jobs]);
        if kill > 0 {
            command.arg("--resume");
        }
        let mut child = command.spawn().unwrap();
        // Wait for the first manifest.
        while !killed.join("manifest.json").exists() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the sweep ended before it wrote its manifest"
            );
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_secs_f64(delay()));
        interrupted += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(
        interrupted >= 8 && points(&killed) > 0,
        "{interrupted}, {}",
        points(&killed)
    );
    assert!(sweep(&killed, &["--resume"]).status().unwrap().success());

    let (whole, killed) = (bytes(&whole), bytes(&killed));
    assert_eq!(whole.len(), 2 + 31 * 5); // with the manifest and a figure
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        killed.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &whole {
        assert!(*bytes == killed[name], "{name} differs");
    }
}
