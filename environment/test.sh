#!/usr/bin/env bash
# The whole test suite: formatting, lints, tests and doc tests of the crate, the notebooks in the real kernel and a real
# browser, and several processes under mpirun. 40 to 70 minutes on two cores after the first build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="$PWD/target"
say() { printf '\033[1m[test]\033[0m %s\n' "$*"; }

if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
    if ! environment/debian.sh chromium; then
        say "Chromium is missing: the browser tests need it (Debian: sudo apt install chromium)." >&2
        exit 1
    fi
fi

environment/setup.sh --tests

say "formatting and lints (two minutes the first time) …"
cargo fmt --check
# These modules are declared by a macro, which cargo fmt does not look into.
rustfmt --check --edition 2024 src/layers/*.rs
cargo clippy --locked --all-targets -- --deny warnings

say "the library with fewer features (four minutes the first time) …"
for features in "" datasets figures tables; do
    cargo clippy --locked --lib --no-default-features --features "$features" -- --deny warnings
done

say "the crate, with overflow checks and debug assertions (6 to 15 minutes) …"
cargo test --locked

say "documentation …"
RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps

say "the package (about a minute) …"
cargo package --locked --quiet

say "what cargo installs, and a crate that depends on this one (about two minutes) …"
.venv/bin/python -m pytest -p no:cacheprovider tests/build

say "a second computation, the kernel, the notebooks, the browser (about 20 minutes) …"
.venv/bin/python -m pytest -p no:cacheprovider --durations=5 --numprocesses 2 --dist loadfile tests/numpy tests/kernel

say "several processes under mpirun (about four minutes) …"
environment/mpi.sh --tests
.venv/bin/python -m pytest -p no:cacheprovider tests/mpi

say "all passed."
