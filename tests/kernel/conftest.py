"""Tests through the real kernel: they need the project's .venv, which environment/setup.sh --tests makes."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from queue import Empty

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

PROJECT = Path(__file__).parents[2]
DEP = f'loss-landscape = {{ path = "{PROJECT}" }}'
VENV = Path(sys.prefix)
INSTALLED = VENV / "share/jupyter/kernels/loss-landscape"


class Kernel:
    """A running kernel that is asked cell by cell."""

    def __init__(self, cwd):
        self.manager, self.client = start_new_kernel(kernel_name="loss-landscape", cwd=cwd, startup_timeout=180)

    def run(self, source):
        """The outputs of a cell: a dictionary of types, with `stdout`, `stderr` and `error` among them."""
        outputs = {}

        def keep(message):
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    outputs[content["name"]] = outputs.get(content["name"], "") + content["text"]
                case "execute_result":
                    outputs.update(content["data"])
                case "error":
                    outputs["error"] = outputs.get("error", "") + "\n".join(content["traceback"])

        self.client.execute_interactive(source, timeout=300, output_hook=keep)
        # Standard error can come after the cell's end.
        with suppress(Empty):
            while True:
                keep(self.client.get_iopub_msg(timeout=0.2))
        return outputs

    def shown(self, source):
        """The plain text that a cell shows, where nothing may go wrong."""
        outputs = self.run(source)
        assert not {"error", "stderr"} & outputs.keys(), outputs
        return outputs.get("text/plain", "")

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    kernel.shown(f":dep {DEP}\nuse loss_landscape::prelude::*;")
    yield kernel
    kernel.stop()


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of the project's kernel: cells are sources, or sources with a tag."""

    def write(name, *cells):
        book = nbformat.v4.new_notebook()
        book.metadata["kernelspec"] = {"name": "loss-landscape", "display_name": "Rust", "language": "rust"}
        for cell in cells:
            source, *tags = cell if isinstance(cell, tuple) else (cell,)
            book.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags}))
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(book, path)
        return path

    return write


def run(*command, limit=1800, **environment):
    """A command's exit code and all that it said."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    return done.returncode, done.stdout
