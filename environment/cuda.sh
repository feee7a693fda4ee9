#!/usr/bin/env bash
# Builds the command line with CUDA. The machine does not need a GPU. cuda_toolkit.sh downloads NVIDIA's compiler and
# libraries (1.2 GB). For notebooks, see `setup.sh --cuda`.
#
#   environment/cuda.sh                          # for compute capability 9.0, Hopper
#   CUDA_COMPUTE_CAP=80 environment/cuda.sh      # for another
#
# The program is target/cuda/*/release/landscape. It needs these libraries, or those of an installed CUDA 13, and
# libcuda.so.1 of NVIDIA driver 580 or newer. Without a driver it starts only with the stub library, and finds no device:
#
#   LD_LIBRARY_PATH=<cache>/cuda-…/nvidia/cu13/lib landscape hvp --device cuda
#   LD_LIBRARY_PATH=<cache>/cuda-…/nvidia/cu13/lib:<cache>/cuda-…/nvidia/cu13/lib/stubs landscape hvp
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LOSS_LANDSCAPE_CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"

say() { printf '\033[1m[cuda]\033[0m %s\n' "$*"; }
stop() { printf '\033[1m[cuda]\033[0m %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || stop "Rust is missing: install it with rustup (https://rustup.rs), then run this again."
command -v g++ >/dev/null ||
    stop "A C++ compiler is missing: install g++ (Debian, Ubuntu: apt install build-essential), then run this again."

CUDA_HOME=$(environment/cuda_toolkit.sh)
export CUDA_HOME CUDA_PATH="$CUDA_HOME"
export PATH="$CUDA_HOME/bin:$PATH"
say "building landscape for compute capability $CUDA_COMPUTE_CAP (about 20 minutes on two cores the first time) …"
cargo build --locked --release --features cuda --bin landscape --target-dir target/cuda
say "ready. On a machine with a GPU:"
say "  LD_LIBRARY_PATH=$CUDA_HOME/lib $(echo target/cuda/*/release/landscape) hvp --device cuda"
