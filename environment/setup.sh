#!/usr/bin/env bash
# Installs what the notebooks need: the Rust kernel, a Python environment with Jupyter, and the compiled crate. Skips what
# is already installed. notebooks.sh and, with --tests, test.sh call it.
#
# Slow parts go into a per-user cache, ${LOSS_LANDSCAPE_CACHE:-~/.cache/loss-landscape}, keyed by version and lock file, and
# are reused by other clones. Deleting the cache costs only time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LOSS_LANDSCAPE_CACHE="${LOSS_LANDSCAPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loss-landscape}"

say() { printf '\033[1m[set-up]\033[0m %s\n' "$*"; }
stop() { printf '\033[1m[set-up]\033[0m %s\n' "$*" >&2; exit 1; }

# --- requirements

command -v cargo >/dev/null && command -v rustc >/dev/null ||
    stop "Rust is missing: install it with rustup (https://rustup.rs), then run this again."
command -v cc >/dev/null ||
    stop "A C compiler is missing: install gcc (Debian, Ubuntu: apt install build-essential), then run this again."
PYTHON=$(command -v python3 || true)
[ -n "$PYTHON" ] || stop "Python is missing: install Python 3.11 or newer, then run this again."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$PYTHON" --version) is too old: install Python 3.11 or newer, then run this again."
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv), then run this again."

RUSTC=$(rustc --version | cut -d' ' -f2)
# For the feature `tables`; tests/dependencies.rs checks it.
REQUIRED=1.95
[ "$(printf '%s\n' "$REQUIRED" "$RUSTC" | sort -V | head -n 1)" = "$REQUIRED" ] ||
    stop "rustc $RUSTC is too old: install $REQUIRED or newer (\`rustup update\`), then run this again."
TAG="rustc-$RUSTC-$(rustc -vV | sed -n 's/^commit-hash: \(........\).*/\1/p')"

# --- the kernel

HOST=$(rustc -vV | sed -n 's/^host: //p')
KERNEL="$LOSS_LANDSCAPE_CACHE/evaluator-$HOST-$(cat environment/kernel/Cargo.* environment/kernel/src/*.rs | sha256sum | cut -c1-16)"
if [ ! -x "$KERNEL/evaluator" ]; then
    say "building the kernel's evaluator (about 4 minutes on two cores, once) …"
    # Not in this directory: its .cargo/config.toml is for the crate.
    (manifest="$PWD/environment/kernel/Cargo.toml"; cd / && cargo build --release --locked --manifest-path "$manifest" \
        --target "$HOST" --target-dir "$LOSS_LANDSCAPE_CACHE/evaluator-target")
    mkdir -p "$KERNEL"
    cp "$LOSS_LANDSCAPE_CACHE/evaluator-target/$HOST/release/evaluator" "$KERNEL/evaluator.part"
    mv "$KERNEL/evaluator.part" "$KERNEL/evaluator"
fi

# --- Jupyter

PIP=(.venv/bin/pip install --quiet --disable-pip-version-check --requirement)
STAMP="$("$PYTHON" --version) $(sha256sum < environment/requirements.txt)"
if [ "$(cat .venv/stamp 2>/dev/null)" != "$STAMP" ]; then
    say "installing Jupyter into .venv (about a minute) …"
    rm -rf .venv
    "$PYTHON" -m venv .venv
    "${PIP[@]}" environment/requirements.txt
    echo "$STAMP" > .venv/stamp
fi
STAMP=$(sha256sum < environment/requirements-test.txt)
if [ "${1:-}" = --tests ] && [ "$(cat .venv/stamp-tests 2>/dev/null)" != "$STAMP" ]; then
    say "installing the packages for the tests (seconds) …"
    "${PIP[@]}" environment/requirements-test.txt
    echo "$STAMP" > .venv/stamp-tests
fi
.venv/bin/python environment/install_kernel.py "$KERNEL/evaluator"

# --- the crate

DEPENDENCIES="$LOSS_LANDSCAPE_CACHE/dependencies-$TAG-$(cat Cargo.lock .cargo/config.toml | sha256sum | cut -c1-16)"
.venv/bin/python environment/compile_crate.py "$DEPENDENCIES"
if [ "${1:-}" = --tests ] && [ ! -d target/debug ]; then
    .venv/bin/python environment/builds.py copy "$DEPENDENCIES" target
fi
say "ready."
