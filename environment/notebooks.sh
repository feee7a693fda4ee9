#!/usr/bin/env bash
# Executes the notebooks headlessly, each in a fresh kernel, and fails when a cell fails:
#
#     environment/notebooks.sh                  all of notebooks/
#     environment/notebooks.sh NOTEBOOK…        these
#     environment/notebooks.sh --lab            opens JupyterLab on notebooks/ instead
#
# A cell may run for LOSS_LANDSCAPE_CELL_SECONDS, 240 if not set.
#
# The executed notebooks and pages that need no network are written to target/notebooks/. What is missing is installed
# first, into .venv and a per-user cache: about 17 minutes on two cores the first time, seconds afterwards.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit ;;
    --lab) LAB=1; shift ;;
    -*) echo "There is no option $1; see $0 --help" >&2; exit 2 ;;
esac

NOTEBOOKS=()
for notebook in "$@"; do
    [ -f "$notebook" ] || { echo "There is no notebook $notebook" >&2; exit 2; }
    NOTEBOOKS+=("$(realpath "$notebook")")
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment/setup.sh
export PATH="$PWD/.venv/bin:$PATH"

if [ -n "${LAB:-}" ]; then
    ROOT=()
    [ "$(id -u)" != 0 ] || ROOT=(--allow-root)
    exec jupyter lab "${ROOT[@]}" --notebook-dir=notebooks
fi

[ ${#NOTEBOOKS[@]} -gt 0 ] || NOTEBOOKS=("$PWD"/notebooks/*.ipynb)
OUT="$PWD/target/notebooks"
PART="$OUT/.part-$$"
mkdir -p "$PART"
trap 'rm -rf "$PART"' EXIT

FAILED=()
for notebook in "${NOTEBOOKS[@]}"; do
    name=$(basename "$notebook" .ipynb)
    echo "[notebooks] $name (one to four minutes) …"
    started=$SECONDS
    if jupyter nbconvert --log-level=ERROR --to notebook --execute "$notebook" --output-dir "$PART" &&
        jupyter nbconvert --log-level=ERROR --to html "$PART/$name.ipynb"; then
        mv "$PART/$name.ipynb" "$PART/$name.html" "$OUT"
        echo "[notebooks] $name: all cells passed in $((SECONDS - started)) s → target/notebooks/$name.html"
    else
        FAILED+=("$name")
        echo "[notebooks] $name: FAILED after $((SECONDS - started)) s; the last line above says where" >&2
    fi
done

if [ ${#FAILED[@]} -gt 0 ]; then
    echo "[notebooks] failed: ${FAILED[*]}" >&2
    exit 1
fi
