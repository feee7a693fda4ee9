#!/usr/bin/env bash
# Executes notebooks without a browser, each in a fresh kernel, and fails if a cell fails:
#
#     environment/notebooks.sh                  executes all notebooks in notebooks/
#     environment/notebooks.sh NOTEBOOK…        executes these notebooks
#     environment/notebooks.sh --lab            opens JupyterLab in notebooks/ instead
#
# A cell may run for LOSS_LANDSCAPE_CELL_SECONDS seconds [default: 240]. After a timeout the notebook is executed once more,
# and target/notebooks/NOTEBOOK.timeout.txt reports what the kernel was doing.
#
# Executed notebooks and web pages that work offline are written to target/notebooks/. Missing software is installed first,
# into .venv and a per-user cache. This takes about 16 minutes on two cores the first time, and seconds later.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit ;;
    --lab) LAB=1; shift ;;
    -*) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
esac

NOTEBOOKS=()
for notebook in "$@"; do
    [ -f "$notebook" ] || { echo "no such notebook: $notebook" >&2; exit 2; }
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

# Whether a cell of the notebook just executed timed out. Moves its report to the output.
timed_out() {
    [ -f "$PART/$name.timeout.txt" ] && mv "$PART/$name.timeout.txt" "$OUT"
}

again() {
    echo "[notebooks] $name: a cell timed out; executing the notebook once more …" >&2
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
        echo "[notebooks] $name: FAILED after $((SECONDS - started)) s; see the last line above" >&2
    fi
done

for name in "${REPEATED[@]}"; do
    echo "[notebooks] warning: $name was executed twice because a cell timed out; see target/notebooks/$name.timeout.txt" >&2
done
if [ ${#FAILED[@]} -gt 0 ]; then
    echo "[notebooks] failed: ${FAILED[*]}" >&2
    exit 1
fi
