# Finds the CUDA toolkit and the GPU. checks.sh and setup.sh source this. Exports three variables, empty if nothing is found:
#
#   CUDA_HOME              directory of the toolkit, which contains bin/nvcc
#   CUDARC_CUDA_VERSION    version of the toolkit, such as 13000 for 13.0
#   CUDA_COMPUTE_CAP       compute capability of the first GPU, such as 90

find_toolkit() {
    local cache="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}" nvcc
    for nvcc in "${CUDA_HOME:-}/bin/nvcc" "$(command -v nvcc)" /usr/local/cuda/bin/nvcc "$cache"/cuda-*/nvidia/cu13/bin/nvcc; do
        if [ -x "$nvcc" ]; then
            dirname "$(dirname "$(realpath "$nvcc")")"
            return
        fi
    done
}

# The version of the toolkit, such as 13.0.
toolkit_version() { [ -z "$CUDA_HOME" ] || "$CUDA_HOME/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p'; }

# Whether the toolkit has a library under the name that the linker searches.
has_library() {
    local folder
    for folder in "$CUDA_HOME"/{lib64,lib,targets/x86_64-linux/lib,lib/x86_64-linux-gnu}; do
        [ ! -e "$folder/lib$1.so" ] || return 0
    done
    return 1
}

nvidia_smi() {
    local program
    # Under WSL, the search path often lacks it.
    for program in "$(command -v nvidia-smi)" /usr/lib/wsl/lib/nvidia-smi; do
        if [ -x "$program" ]; then
            "$program" "$@" 2>/dev/null
            return
        fi
    done
    return 1
}

# The newest version of CUDA that the driver supports.
driver_version() { nvidia_smi | sed -n 's/.*CUDA Version: *\([0-9]*\.[0-9]*\).*/\1/p'; }

capability() { nvidia_smi --query-gpu=compute_cap --format=csv,noheader | sed -n '1s/\.//p'; }

CUDA_HOME=$(find_toolkit)
CUDARC_CUDA_VERSION=$(toolkit_version | sed 's/\./0/; s/$/0/')
CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-$(capability)}
export CUDA_HOME CUDARC_CUDA_VERSION CUDA_COMPUTE_CAP
