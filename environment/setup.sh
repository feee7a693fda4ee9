#!/usr/bin/env bash
# Installs what the notebooks need: the Rust kernel, a Python environment with Jupyter, and the compiled crate. Skips what
# is already installed. notebooks.sh and, with --tests, test.sh call it.
#
#     environment/setup.sh            later set-ups keep the choice of a device
#     environment/setup.sh --cuda     for cells on an NVIDIA GPU: `best_device()` is the GPU
#     environment/setup.sh --cpu      for cells on the CPU again
#
# Slow parts go into a per-user cache, ${LOSS_LANDSCAPE_CACHE:-~/.cache/loss-landscape}, keyed by version and lock file, and
# are reused by other clones. Deleting the cache costs only time.
set -euo pipefail

for option in "$@"; do
    case "$option" in
        --tests | --cuda | --cpu) ;;
        -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit ;;
        *) echo "unknown option $option; see $0 --help" >&2; exit 2 ;;
    esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LOSS_LANDSCAPE_CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"

say() { printf '\033[1m[set-up]\033[0m %s\n' "$*"; }
stop() { printf '\033[1m[set-up]\033[0m %s\n' "$*" >&2; exit 1; }

# Editors and services often do not read the shell's settings.
command -v cargo >/dev/null || export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
environment/checks.sh "$@"
if [[ " $* " == *" --cuda "* ]]; then
    . environment/find_cuda.sh
fi

# --- Rust's sources

if [ ! -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core" ]; then
    say "installing Rust's sources, from which the kernel infers types (seconds) …"
    rustup --quiet component add rust-src ||
        stop "Rust's sources could not be installed; rustup's message is above. Check the network, then run this again."
fi

# --- Jupyter

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$1" ||
        stop "Python's packages could not be installed; pip's message is above. Check the network, and HTTPS_PROXY if there is a proxy, then run this again."
}

# A virtual environment contains absolute paths, so a moved clone needs a new one.
STAMP="$(python3 --version) $(sha256sum < environment/requirements.txt) $PWD"
if [ "$(cat .venv/stamp 2>/dev/null)" != "$STAMP" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "installing Jupyter into .venv …"
    rm -rf .venv
    python3 -m venv .venv
    # The download takes about a minute, in which the builds begin.
    install environment/requirements.txt &
    JUPYTER=$!
    .venv/bin/python environment/compile.py --build-only "$@" || { kill $JUPYTER; exit 1; }
    wait $JUPYTER
    echo "$STAMP" > .venv/stamp
fi
STAMP=$(sha256sum < environment/requirements-test.txt)
if [[ " $* " == *" --tests "* ]] && [ "$(cat .venv/stamp-tests 2>/dev/null)" != "$STAMP" ]; then
    say "installing the packages for the tests (seconds) …"
    install environment/requirements-test.txt
    echo "$STAMP" > .venv/stamp-tests
fi

# --- the kernel and the crate

.venv/bin/python environment/compile.py "$@"
say "ready."
