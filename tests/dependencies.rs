//! What the crate depends on when no feature is asked for, and how it is compiled for tests.

use std::hint::black_box;
use std::process::Command;

#[test]
fn the_default_build_has_no_trace_of_cuda_or_mpi() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix=none", "--format={p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"candle-core"), "{tree}");
    for name in ["cudarc", "candle-kernels", "mpi", "mpi-sys"] {
        assert!(!names.contains(&name), "{name}");
    }
}

/// Cargo.toml switches this on for the crate and its tests.
#[test]
#[should_panic(expected = "attempt to subtract with overflow")]
fn an_overflow_fails_a_test() {
    black_box(black_box(0_usize) - 1);
}
