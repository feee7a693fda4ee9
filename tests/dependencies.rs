//! Dependencies of each set of features, the Rust version that they need, and the checks in test builds.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::process::Command;

use loss_landscape::serde_json::{self, Value};

/// Output of a command in the project's directory.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Packages that the library depends on, as `name version`.
fn packages(features: &[&str]) -> BTreeSet<String> {
    let tree = [
        "tree",
        "--locked",
        "--prefix=none",
        "--format={p}",
        "--edges=normal,build",
    ];
    let tree = output(env!("CARGO"), &[&tree, features].concat());
    let name_and_version = |line: &str| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
    tree.lines().map(name_and_version).collect()
}

fn names(packages: &BTreeSet<String>) -> BTreeSet<&str> {
    packages
        .iter()
        .filter_map(|p| p.split(' ').next())
        .collect()
}

/// The highest Rust version that one of these packages requires, as (major, minor).
fn newest_rust_version(packages: &BTreeSet<String>) -> (u32, u32) {
    let host = output("rustc", &["--print", "host-tuple"]);
    let platform = format!("--filter-platform={}", host.trim());
    let metadata = ["metadata", "--locked", "--format-version=1", &platform];
    let metadata: Value = serde_json::from_str(&output(env!("CARGO"), &metadata)).unwrap();
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let parse = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse().unwrap());
        Some((parts.next()?, parts.next()?))
    };
    let dependencies = metadata["packages"].as_array().unwrap().iter();
    dependencies
        .filter(|p| packages.contains(&format!("{} v{}", text(p, "name"), text(p, "version"))))
        .filter(|p| p["name"] != env!("CARGO_PKG_NAME") && p["rust_version"].is_string())
        .filter_map(|p| parse(&text(p, "rust_version")))
        .max()
        .unwrap()
}

#[test]
fn the_default_build_does_not_depend_on_cuda_or_mpi() {
    let packages = packages(&[]);
    let names = names(&packages);
    assert!(names.contains("candle-core") && names.contains("polars"));
    for name in ["cudarc", "candle-kernels", "mpi", "mpi-sys"] {
        assert!(!names.contains(name), "{name}");
    }
}

#[test]
fn each_feature_adds_only_its_packages() {
    let gated = [
        ("figures", "plotly"),
        ("tables", "polars"),
        ("cli", "clap"),
        ("cli", "toml"),
        ("datasets", "candle-datasets"),
        ("datasets", "image"),
    ];
    for features in ["", "datasets", "figures", "tables"] {
        let packages = packages(&["--no-default-features", "--features", features]);
        let names = names(&packages);
        assert!(names.contains("candle-core") && names.contains("gemm"));
        for (feature, package) in gated {
            let expected = feature == features;
            assert_eq!(
                names.contains(package),
                expected,
                "{package} with {features:?}"
            );
        }
    }
}

/// Clippy's lint `incompatible_msrv` checks the library's own calls of the standard library.
#[test]
fn the_declared_rust_version_is_enough() {
    let declared = env!("CARGO_PKG_RUST_VERSION").split('.');
    let declared: Vec<u32> = declared.map(|part| part.parse().unwrap()).collect();
    let numerical_code = newest_rust_version(&packages(&["--no-default-features"]));
    assert!(
        numerical_code <= (declared[0], declared[1]),
        "{numerical_code:?}"
    );
    // The versions in the documentation and in environment/setup.sh.
    assert_eq!(newest_rust_version(&packages(&[])), (1, 95));
}

/// Cargo.toml enables overflow checks for the crate and its tests.
#[test]
#[should_panic(expected = "attempt to subtract with overflow")]
fn an_overflow_fails_a_test() {
    black_box(black_box(0_usize) - 1);
}
