#!/usr/bin/env bash
# Executes the notebooks headlessly, each in a fresh kernel, and fails when a cell fails:
#
#     environment/notebooks.sh                  all of notebooks/
#     environment/notebooks.sh NOTEBOOK…        these
#     environment/notebooks.sh --lab            opens JupyterLab on notebooks/ instead
#
# A cell may run for LOSS_LANDSCAPE_CELL_SECONDS, 240 if not set. After a longer one the notebook is executed once more,
# and target/notebooks/NOTEBOOK.timeout.txt says what the kernel was doing.
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

execute() {
    jupyter nbconvert --log-level=ERROR --to notebook --execute "$notebook" --output-dir "$PART" &&
        jupyter nbconvert --log-level=ERROR --to html "$PART/$name.ipynb"
}

# Whether a cell of the notebook just executed ran into its limit. Its report is kept.
timed_out() {
    [ -f "$PART/$name.timeout.txt" ] && mv "$PART/$name.timeout.txt" "$OUT"
}

again() {
    echo "[notebooks] $name: a cell ran into its limit; executing the notebook once more …" >&2
    REPEATED+=("$name")
    execute || { timed_out; false; }
}

FAILED=()
REPEATED=()
for notebook in "${NOTEBOOKS[@]}"; do
    name=$(basename "$notebook" .ipynb)
    rm -f "$OUT/$name.timeout.txt"
    echo "[notebooks] $name (one to four minutes) …"
    started=$SECONDS
    if execute || { timed_out && again; }; then
        mv "$PART/$name.ipynb" "$PART/$name.html" "$OUT"
        echo "[notebooks] $name: all cells passed in $((SECONDS - started)) s → target/notebooks/$name.html"
    else
        FAILED+=("$name")
        echo "[notebooks] $name: FAILED after $((SECONDS - started)) s; the last line above says where" >&2
    fi
done

for name in "${REPEATED[@]}"; do
    echo "[notebooks] warning: $name was executed twice, because a cell ran into its limit; target/notebooks/$name.timeout.txt says what the kernel was doing" >&2
done
if [ ${#FAILED[@]} -gt 0 ]; then
    echo "[notebooks] failed: ${FAILED[*]}" >&2
    exit 1
fi
