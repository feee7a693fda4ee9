#!/usr/bin/env bash
# Builds the command line with CUDA. The machine does not need a GPU. NVIDIA's compiler and libraries are installed as
# Python wheels into the cache (1.2 GB; environment/setup.sh names the directory). Skips what is already installed.
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

# CUDA 13.0 with the cuBLAS of its last update: candle uses functions that the first version lacks.
WHEELS=(
    nvidia-{cuda-nvcc,nvvm,cuda-crt,cuda-runtime,cuda-cccl,cuda-nvrtc}"==13.0.*" "nvidia-cublas==13.1.0.*"
    "nvidia-curand==10.4.0.*"
)
export LOSS_LANDSCAPE_CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"

say() { printf '\033[1m[cuda]\033[0m %s\n' "$*"; }
stop() { printf '\033[1m[cuda]\033[0m %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || stop "Rust is missing: install it with rustup (https://rustup.rs), then run this again."
command -v g++ >/dev/null ||
    stop "A C++ compiler is missing: install g++ (Debian, Ubuntu: apt install build-essential), then run this again."
python3 -m pip --version >/dev/null 2>&1 ||
    stop "Python's pip is missing: install it (Debian, Ubuntu: apt install python3-pip), then run this again."

# --- the toolchain

TOOLCHAIN="$LOSS_LANDSCAPE_CACHE/cuda-$(echo "${WHEELS[@]}" | sha256sum | cut -c1-16)"
if [ ! -d "$TOOLCHAIN" ]; then
    say "downloading CUDA 13.0 (about a minute, once) …"
    rm -rf "$TOOLCHAIN.part"
    python3 -m pip install --quiet --disable-pip-version-check --target "$TOOLCHAIN.part" "${WHEELS[@]}"
    HOME_PART="$TOOLCHAIN.part/nvidia/cu13"
    # The linker searches for names without versions.
    for name in cublas cublasLt cudart curand nvrtc; do
        ln -s "$(basename "$HOME_PART/lib/lib$name".so.*)" "$HOME_PART/lib/lib$name.so"
    done
    # No wheel contains the driver's library. The stub has its functions, which all return CUDA_ERROR_STUB_LIBRARY.
    mkdir "$HOME_PART/lib/stubs"
    { grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$HOME_PART/include/cuda.h"; echo cuProfilerInitialize; } | sort -u |
        sed 's/.*/int &(void) { return 34; }/' |
        cc -w -fno-builtin -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o "$HOME_PART/lib/stubs/libcuda.so.1"
    ln -s libcuda.so.1 "$HOME_PART/lib/stubs/libcuda.so"
    mv "$TOOLCHAIN.part" "$TOOLCHAIN"
fi

# --- the command line

export CUDA_HOME="$TOOLCHAIN/nvidia/cu13" CUDA_PATH="$TOOLCHAIN/nvidia/cu13"
export PATH="$CUDA_HOME/bin:$PATH"
say "building landscape for compute capability $CUDA_COMPUTE_CAP (about 20 minutes on two cores the first time) …"
cargo build --locked --release --features cuda --bin landscape --target-dir target/cuda
say "ready. On a machine with a GPU:"
say "  LD_LIBRARY_PATH=$CUDA_HOME/lib $(echo target/cuda/*/release/landscape) hvp --device cuda"
