"""Installs the project's kernel and Jupyter settings into .venv. No file outside .venv is changed."""

import json
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent / "jupyter"
VENV = Path(sys.prefix)
PACKAGES = Path(find_spec("plotly").origin).parent.parent
PLOTLY_JS = PACKAGES / "plotly/package_data/plotly.min.js"


def write_program(program: Path, folder: Path, module: str) -> None:
    """Writes a program that calls `main` of a module in a folder.

    -IS (isolated, without site) starts Python in a few milliseconds. A `#!` line with Python's path would fail if that
    contains a space or is long.
    """
    start = f"import sys; sys.argv[0] = {str(program)!r}; sys.path.insert(0, {str(folder)!r}); import {module}; sys.exit({module}.main(sys.argv[1:]))"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS -c {shlex.quote(start)} "$@"\n')
    program.chmod(0o755)


def main(evaluator: str) -> None:
    kernel = VENV / "share/jupyter/kernels/loss-landscape"
    templates = VENV / "share/jupyter/nbconvert/templates"
    template = templates / "loss_landscape"
    config = VENV / "etc/jupyter"
    for folder in (kernel, template, templates / "loss_landscape_latex", config):
        folder.mkdir(parents=True, exist_ok=True)

    for name in ("kernel.py", "cell_output.py", "evaluator.py", "launch.py", "cargo.py", "cuda.py", "mold.py"):
        shutil.copy(HERE / name, kernel)
    for name, folder in (("mold", "bin"), ("cargo", "analysis")):
        write_program(kernel / folder / name, kernel, name)
    (kernel / "kernel.json").write_text(json.dumps({
        "display_name": "Rust (loss-landscape)",
        "language": "rust",
        "argv": [sys.executable, str(kernel / "kernel.py"), evaluator, "{connection_file}"],
        # An interrupt is for the cell that runs, not for all processes of the kernel.
        "interrupt_mode": "message",
        "env": {
            # The cache of the set-up, also if a later client does not know the variable.
            "LOSS_LANDSCAPE_CACHE": str(Path(evaluator).parents[1]),
            # candle would use all cores for each element-wise operation, while batches already run in parallel.
            "CANDLE_NUM_THREADS": "1",
            # A backtrace through the kernel would hide the error message.
            "RUST_LIB_BACKTRACE": "0",
            "LOSS_LANDSCAPE_KALEIDO": str(PACKAGES / "kaleido/executable"),
            "LOSS_LANDSCAPE_PLOTLY_JS": str(PLOTLY_JS),
        },
    }, indent=1))

    for name in ("checked_execution.py", "stuck_kernel.py", "papermill_rust.py"):
        shutil.copy(HERE / name, PACKAGES)
    package = PACKAGES / "loss_landscape_jupyter-0.1.0.dist-info"
    package.mkdir(exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: loss-landscape-jupyter\nVersion: 0.1.0\n")
    (package / "entry_points.txt").write_text("[papermill.engine]\nloss-landscape = papermill_rust:Engine\n")
    shutil.copy(HERE / "jupyter_nbconvert_config.py", config)
    # JupyterLab exports pages with the server's settings.
    shutil.copy(HERE / "jupyter_nbconvert_config.py", config / "jupyter_server_config.py")
    for file in (HERE / "template").iterdir():
        shutil.copy(file, template)
    for file in (HERE / "latex_template").iterdir():
        shutil.copy(file, templates / "loss_landscape_latex")
    figure = HERE.parents[1] / "src/figure/figure.js"
    for file in (PLOTLY_JS, figure):
        shutil.copy(file, template)

    extension = VENV / "share/jupyter/labextensions/loss-landscape"
    (extension / "static").mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "labextension/package.json", extension)
    script = figure.read_text() + (HERE / "labextension/figures.js").read_text()
    (extension / "static/figures.js").write_text(f"(() => {{\n{script}}})();\n")

    settings = VENV / "share/jupyter/lab/settings"
    settings.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "overrides.json", settings)
