#!/usr/bin/env bash
# Builds the command line with the feature `mpi`, to run under mpirun: target/*/release/landscape. With --tests, builds it
# in the profile of the tests, for tests/mpi.
#
# Needs an MPI library, mpirun and libclang. On Debian, as root, installs them if they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="$PWD/target"
say() { printf '\033[1m[mpi]\033[0m %s\n' "$*"; }
stop() { printf '\033[1m[mpi]\033[0m %s\n' "$*" >&2; exit 1; }

has_mpi() { command -v mpicc >/dev/null && command -v mpirun >/dev/null; }
has_clang() { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null; }

has_mpi && has_clang || environment/debian.sh libopenmpi-dev openmpi-bin libclang-dev ||
    stop "MPI or libclang is missing: install them (Debian: sudo apt install libopenmpi-dev openmpi-bin libclang-dev), or load your cluster's modules and set LIBCLANG_PATH, then run this again."

if [ "${1:-}" = --tests ]; then
    say "building for the tests (about two minutes) …"
    cargo build --locked --features mpi --bin landscape
else
    say "building (about two minutes, or 12 if the dependencies are not compiled yet) …"
    cargo build --locked --release --features mpi --bin landscape
    say "done: mpirun -n 2 $(echo target/*/release/landscape) surface --weights W.safetensors --out surface/"
fi
