"""Tests through the real kernel. They need the project's .venv, which environment/setup.sh --tests creates."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

PROJECT = Path(__file__).parents[2]
DEP = f'loss-landscape = {{ path = "{PROJECT}" }}'
VENV = Path(sys.prefix)
INSTALLED = VENV / "share/jupyter/kernels/loss-landscape"
TOKEN = "browser-test"


class Kernel:
    """A running kernel that executes single cells."""

    def __init__(self, cwd, **environment):
        self.manager, self.client = start_new_kernel(
            kernel_name="loss-landscape", cwd=cwd, startup_timeout=180, env={**os.environ, **environment}
        )

    def run(self, source, limit=300):
        """Runs a cell and returns its outputs, by MIME type or as `stdout`, `stderr` and `error`.

        `progress` lists the states of lines that were updated in place. Every message must belong to this cell.
        """
        return self.outputs(self.client.execute(source), limit)

    def run_all(self, sources, limit=300):
        """Sends cells at once, and returns the outputs of each."""
        return [self.outputs(request, limit) for request in [self.client.execute(source, stop_on_error=False) for source in sources]]

    def outputs(self, request, limit):
        outputs = {}

        def keep(message):
            content = message["content"]
            if message["parent_header"].get("msg_id") != request:
                assert message["msg_type"] == "status", f"a message of another cell: {content}"
                return False
            match message["msg_type"]:
                case "stream":
                    outputs[content["name"]] = outputs.get(content["name"], "") + content["text"]
                case "execute_result" | "display_data" | "update_display_data":
                    if content.get("transient"):
                        outputs.setdefault("progress", []).append(content["data"]["text/plain"])
                    else:
                        outputs.update(content["data"])
                case "error":
                    outputs["error"] = outputs.get("error", "") + "\n".join(content["traceback"])
                    outputs["ename"] = content["ename"]
                case "status":
                    return content["execution_state"] == "idle"
            return False

        while not keep(self.client.get_iopub_msg(timeout=limit)):
            pass
        reply = self.reply(request, limit)
        assert (reply["content"]["status"] == "error") == ("error" in outputs), (reply["content"], outputs)
        return outputs

    def reply(self, request, limit=60):
        """The reply to a request."""
        while (reply := self.client.get_shell_msg(timeout=limit))["parent_header"]["msg_id"] != request:
            pass
        return reply

    def shown(self, source):
        """Runs a cell that must not fail and returns its plain-text output."""
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
    """Writes a notebook for the project's kernel. A cell is a source, or a tuple of a source and its tags."""

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
    """Runs a command and returns its exit code and its output."""
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is missing: install it (Debian: apt install chromium)"
    flags = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def new_page(browser, **settings):
    page = browser.new_context(viewport={"width": 1200, "height": 1000}, **settings).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    return page


@contextmanager
def jupyterlab(folder, scratch, *options):
    """Runs JupyterLab in a directory, with its log and settings in another. Yields its address."""
    log = scratch / "jupyterlab.log"
    command = [VENV / "bin/jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
               f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={folder}", *options]
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(scratch), "JUPYTERLAB_WORKSPACES_DIR": str(scratch)}
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment)
    try:
        # It logs its address when it listens.
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[0]
    finally:
        server.terminate()
        server.wait(timeout=60)
