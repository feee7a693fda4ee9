#!/usr/bin/env bash
# Downloads NVIDIA's compiler and libraries, CUDA 13.0, as Python wheels into the cache (1.2 GB; environment/setup.sh names
# the directory), and prints the toolkit's directory. Skips what is already there. The machine does not need a GPU.
#
# cuda.sh calls this, and `setup.sh --cuda` uses the toolkit if no other is installed.
set -euo pipefail

# CUDA 13.0 with the cuBLAS of its last update: candle uses functions that the first version lacks.
WHEELS=(
    nvidia-{cuda-nvcc,nvvm,cuda-crt,cuda-runtime,cuda-cccl,cuda-nvrtc}"==13.0.*" "nvidia-cublas==13.1.0.*"
    "nvidia-curand==10.4.0.*"
)
CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"

say() { printf '\033[1m[cuda]\033[0m %s\n' "$*" >&2; }

if ! python3 -m pip --version >/dev/null 2>&1; then
    say "Python's pip is missing: install it (Debian, Ubuntu: apt install python3-pip), then run this again."
    exit 1
fi

TOOLCHAIN="$CACHE/cuda-$(echo "${WHEELS[@]}" | sha256sum | cut -c1-16)"
if [ ! -d "$TOOLCHAIN" ]; then
    say "downloading CUDA 13.0 (about a minute, once) …"
    rm -rf "$TOOLCHAIN.part"
    python3 -m pip install --quiet --disable-pip-version-check --target "$TOOLCHAIN.part" "${WHEELS[@]}" >&2
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
echo "$TOOLCHAIN/nvidia/cu13"
