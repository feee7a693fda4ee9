#!/usr/bin/env bash
# Builds the command line for several processes under mpirun: target/*/release/landscape with the feature `mpi`. With
# --tests it builds in the profile of the tests instead, for tests/mpi.
#
# An MPI library, its mpirun and libclang must be there. Where they are not and this is Debian and root, they are
# installed from its packages.
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
    say "building (about two minutes, where the rest is built; some 12 from nothing) …"
    cargo build --locked --release --features mpi --bin landscape
    say "done: mpirun -n 2 $(echo target/*/release/landscape) surface --weights W.safetensors --out surface/"
fi
