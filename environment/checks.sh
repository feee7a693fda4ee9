#!/usr/bin/env bash
# Checks what setup.sh needs before it starts to work. Prints every problem with what to do, and exits with 1 if there is
# one. Notes do not stop the set-up. With --cuda, also checks what a kernel for an NVIDIA GPU needs.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"
# For the feature `tables`; tests/dependencies.rs checks it.
RUST=1.95
# In GiB. Compiled packages, and Cargo's sources of them; .venv and the build of the tests.
CACHE_SPACE=8
CHECKOUT_SPACE=2

PROBLEMS=()
NOTES=()
problem() { PROBLEMS+=("$*"); }
note() { NOTES+=("$*"); }

older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# --- the machine

check_system() {
    case "$(uname -s)" in
        Linux) ;;
        Darwin) problem "macOS: the kernel does not work here, because it needs Linux's /proc and prctl. Use the Dockerfile. The library and the command line do not need the kernel: cargo build --release." ;;
        *) problem "$(uname -s): the kernel needs Linux. On Windows, use WSL 2. Elsewhere, use the Dockerfile." ;;
    esac
    case "$(uname -m)" in
        x86_64) ;;
        aarch64 | arm64) note "The kernel has not been tried on $(uname -m), only on x86_64." ;;
        *) problem "$(uname -m): the kernel needs x86-64 or aarch64, because Jupyter's packages have no builds for others." ;;
    esac
    if uname -r | grep -qi microsoft && [[ "$PWD" == /mnt/* ]]; then
        note "Under WSL, files below /mnt are slow. A clone in your home directory builds several times faster."
    fi
}

check_paths() {
    local name path
    [[ "$CACHE" == /* ]] || problem "The cache's path is not absolute: $CACHE. Set LOSS_LANDSCAPE_CACHE to an absolute path."
    for name in checkout cache; do
        path=$PWD
        [ $name = checkout ] || path=$CACHE
        # Search paths are separated by colons, and manifests quote paths.
        if [[ "$path" == *[:\"\\]* || "$path" == *$'\n'* ]]; then
            problem "The path of the $name contains a colon, a double quote, a backslash or a line break: $path. Use another directory$([ $name = checkout ] || echo ": set LOSS_LANDSCAPE_CACHE")."
        fi
    done
    [ ${#PROBLEMS[@]} -eq 0 ] || return
    mkdir -p "$CACHE" 2>/dev/null && [ -w "$CACHE" ] ||
        problem "The cache cannot be written: $CACHE. Set LOSS_LANDSCAPE_CACHE to another directory."
    [ -w . ] || problem "The checkout cannot be written: $PWD. Clone it to a directory of your own."
}

# The file system of an existing directory, and its free space in GiB.
device_of() { df -Pk "$1" | awk 'NR == 2 { print $1 }'; }
free_in() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }'; }

need_space() {
    local free
    free=$(free_in "$1") && [ -n "$free" ] || return
    [ "$free" -ge "$2" ] || problem "$1: $free GiB are free, and the set-up needs about $2. Free some space$3."
}

# Only the first set-up needs much space.
check_space() {
    local cache=1 checkout=0
    [ -d "$CACHE" ] || return
    compgen -G "$CACHE/dependencies-*" >/dev/null || cache=$CACHE_SPACE
    [ -d .venv ] || checkout=$CHECKOUT_SPACE
    if [ "$(device_of "$CACHE")" = "$(device_of .)" ]; then
        need_space "$CACHE" $((cache + checkout)) ", or set LOSS_LANDSCAPE_CACHE to a directory on another disk"
    else
        need_space "$CACHE" $cache ", or set LOSS_LANDSCAPE_CACHE to a directory on another disk"
        need_space "$PWD" $checkout ""
    fi
}

# --- programs

check_rust() {
    local found version host
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        problem "Rust is missing: install it with rustup (https://rustup.rs)."
        return
    fi
    if ! found=$(rustc -vV 2>&1) || ! cargo --version >/dev/null 2>&1; then
        if command -v rustup >/dev/null; then
            problem "rustup has no toolchain that works: run \`rustup default stable\`. rustc says: $(head -n 1 <<<"$found")"
        else
            problem "rustc does not run: install Rust again. rustc says: $(head -n 1 <<<"$found")"
        fi
        return
    fi
    version=$(sed -n 's/^release: //p' <<<"$found")
    host=$(sed -n 's/^host: //p' <<<"$found")
    ! older "$version" $RUST || problem "rustc $version is too old: install $RUST or newer (\`rustup update stable\`)."
    case "$host" in
        *-musl) problem "$host: cells are dynamic libraries, which Rust does not build with musl by default. Use a system with glibc, or the Dockerfile." ;;
    esac
    # setup.sh installs them with rustup.
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core" ] && ! command -v rustup >/dev/null; then
        problem "Rust's sources are missing, and the kernel infers the types of variables from them: install them (Debian, Ubuntu: apt install rust-src), or install Rust with rustup (https://rustup.rs)."
    fi
}

check_compiler() {
    if ! command -v cc >/dev/null; then
        problem "A C compiler is missing: install gcc (Debian, Ubuntu: apt install build-essential)."
    elif ! cc -x c - -o /dev/null <<<$'#include <stdio.h>\nint main(void) { return 0; }' 2>/dev/null; then
        problem "The C compiler cannot build a program: install the C library's headers (Debian, Ubuntu: apt install build-essential)."
    fi
}

check_python() {
    if ! command -v python3 >/dev/null; then
        problem "Python is missing: install Python 3.11 or newer."
    elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        problem "$(python3 --version 2>&1) is too old: install Python 3.11 or newer."
    elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        problem "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv)."
    fi
}

check_cuda() {
    local name missing=()
    . environment/find_cuda.sh
    if [ -z "$CUDA_HOME" ]; then
        problem "CUDA's compiler nvcc is missing: install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads), set CUDA_HOME to its directory, or run environment/cuda_toolkit.sh, which downloads CUDA 13.0 into the cache (1.2 GB)."
    elif [ -z "$(toolkit_version)" ]; then
        problem "$CUDA_HOME/bin/nvcc does not run: install the CUDA toolkit again, or set CUDA_HOME to the directory of another."
    else
        for name in cublas cublasLt cudart curand nvrtc; do
            has_library $name || missing+=("lib$name.so")
        done
        [ ${#missing[@]} -eq 0 ] || problem "The CUDA toolkit in $CUDA_HOME lacks ${missing[*]}: install its development libraries, or set CUDA_HOME to the directory of another toolkit."
    fi
    command -v g++ >/dev/null || problem "A C++ compiler is missing, which nvcc needs: install g++ (Debian, Ubuntu: apt install build-essential)."
    if [ -z "$CUDA_COMPUTE_CAP" ]; then
        problem "No NVIDIA GPU is found: nvidia-smi is missing or reports none. Install NVIDIA's driver. For the GPU of another machine, set CUDA_COMPUTE_CAP to its compute capability, such as 90. Without --cuda, cells run on the CPU."
    elif ! [[ "$CUDA_COMPUTE_CAP" =~ ^[0-9]{2,3}[af]?$ ]]; then
        problem "CUDA_COMPUTE_CAP=$CUDA_COMPUTE_CAP is not a compute capability: write 90 for 9.0."
    elif [ -z "$(driver_version)" ]; then
        note "No NVIDIA GPU is found here. The kernel is built for compute capability $CUDA_COMPUTE_CAP, and \`best_device()\` is the CPU until there is a GPU."
    elif older "$(driver_version)" "$(toolkit_version)"; then
        problem "The driver supports CUDA $(driver_version), and $CUDA_HOME has CUDA $(toolkit_version): update NVIDIA's driver, or set CUDA_HOME to an older toolkit."
    fi
}

check_paths
check_space
check_system
check_rust
check_compiler
check_python
[[ " $* " != *" --cuda "* ]] || check_cuda

for each in "${NOTES[@]}"; do
    printf '\033[1m[set-up]\033[0m note: %s\n' "$each"
done
if [ ${#PROBLEMS[@]} -gt 0 ]; then
    for each in "${PROBLEMS[@]}"; do
        printf '\033[1m[set-up]\033[0m %s\n' "$each" >&2
    done
    printf '\033[1m[set-up]\033[0m nothing was installed. Fix this, then run it again.\n' >&2
    exit 1
fi
